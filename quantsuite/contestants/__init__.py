"""The shipped contestants, one module a library; each has a list ``KERNELS``."""
