"""The shipped kernels, one module a library; each has a list ``KERNELS``."""
