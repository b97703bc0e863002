"""INT8 weights, one scale a row, activations as they are; the bias is added before the result is rounded.

Not in float16, whose 65,504 sums of codes exceed.
"""

from torch import Tensor

from quantsuite.quantize import QuantizedTensor, quantize
from quantsuite.scheme import Scheme

name, operation = "my-int8-row", "linear"
schemes = ("int8-row",)
dtypes = ("float32", "bfloat16")
takes_bias = True


def pack(weight: Tensor, scheme: Scheme) -> QuantizedTensor:
    return pack_quantized(quantize(weight, scheme.weight), scheme)


def pack_quantized(quantized: QuantizedTensor, scheme: Scheme) -> QuantizedTensor:
    """Codes that a method chose, as GPTQ does, are multiplied as they are."""
    return quantized


def unpack(packed: QuantizedTensor) -> QuantizedTensor:
    return packed


def linear(x: Tensor, packed: QuantizedTensor, bias: Tensor | None = None) -> Tensor:
    y = (x @ packed.values.to(x.dtype).t()).float() * packed.scale.flatten()
    return (y if bias is None else y + bias).to(x.dtype)


def unsupported(scheme: Scheme, device: str) -> str | None:
    """A real kernel asks the device for what it needs."""
    return None if device.startswith(("cpu", "cuda")) else f"{device} was never tried"
