"""optimum-quanto's quantized linear layers."""

from quantsuite.contestants.quanto import CONTESTANTS

__all__ = ["CONTESTANTS"]
