"""bitsandbytes: LLM.int8 and its four-bit formats."""

from quantsuite.contestants.bitsandbytes import CONTESTANTS

__all__ = ["CONTESTANTS"]
