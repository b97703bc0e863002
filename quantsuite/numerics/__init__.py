"""Kernels and error tables as pytest tests: ``pytest --pyargs quantsuite.numerics``."""
