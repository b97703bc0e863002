"""Implementations of the quantized operations, one module an operation."""
