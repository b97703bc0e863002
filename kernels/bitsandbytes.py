"""bitsandbytes: LLM.int8 and its four-bit formats."""

from quantsuite.contestants.bitsandbytes import KERNELS

__all__ = ["KERNELS"]
