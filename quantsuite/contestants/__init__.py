"""Kernels under test, each module a list ``KERNELS``: a library's, or in ``ours`` every registered one."""
