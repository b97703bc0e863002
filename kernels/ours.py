"""quantsuite's own quantizer and quantized linear layer."""

from quantsuite.contestants.ours import CONTESTANTS

__all__ = ["CONTESTANTS"]
