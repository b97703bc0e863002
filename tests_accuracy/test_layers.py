"""Requirements on each layer of a quantized model where it stands, scheme by scheme."""

from quantsuite.accuracy.test_layers import test_layers

__all__ = ["test_layers"]
