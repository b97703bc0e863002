"""The quantized linear layer: one module for simulated and real execution, training and inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantsuite.kernels import product
from quantsuite.quantize import QuantizedTensor, dequantize, fake_quantize, quantize
from quantsuite.scheme import Execution, Scheme


class UnsupportedError(ValueError):
    """A scheme that cannot be run so, here; the message says why and what can."""


def check_supported(scheme: Scheme, execution: Execution, device: torch.device | str) -> None:
    """Raise :class:`UnsupportedError` if a linear layer cannot run a scheme on a device."""
    if scheme.method is not None:
        raise UnsupportedError(f"{scheme}: no method {scheme.method!r} is available; drop @{scheme.method}")
    if scheme.kv_cache is not None:
        raise UnsupportedError(f"{scheme}: this engine has no quantized KV cache; drop +kv-{scheme.kv_cache}")
    if scheme.activation is not None and not scheme.activation.dynamic:
        raise UnsupportedError(f"{scheme}: static activation scales need calibration; drop -static")
    if execution == "real" and scheme.weight is not None:
        reason = product.unsupported(scheme.weight, scheme.activation, device)
        if reason is not None:
            raise UnsupportedError(f"{scheme}: {reason}; run it with --execution simulated")


class QuantizedLinear(nn.Module):
    """``y = x W^T + b`` under a scheme.

    *Simulated*, the weight is a parameter that each forward pass rounds, and gradients pass
    straight through; :meth:`freeze` rounds it once and for all for inference.  *Real*, the weight
    is stored as codes of its format, packed where they are smaller than a byte, with their scales, activations are
    quantized at each call, and there is nothing to train.

    Args:
        weight: ``[N, K]``, floating.
        bias: ``[N]`` or ``None``.
        scheme: a weight, and perhaps a dynamic activation.
        execution: ``"simulated"`` or ``"real"``.

    Raises:
        UnsupportedError: if the scheme cannot be executed so on the weight's device.
        ValueError: if the weight is not finite or a group does not divide K.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, scheme: Scheme, execution: Execution) -> None:
        super().__init__()
        check_supported(scheme, execution, weight.device)
        if scheme.weight is None:
            raise UnsupportedError(f"{scheme} quantizes no weight; use torch.nn.Linear")
        self.scheme, self.execution, self.frozen = scheme, execution, False
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else nn.Parameter(bias.detach())
        if execution == "real":
            quantized = quantize(weight, scheme.weight)
            self.register_buffer("codes", product.store(quantized))
            self.register_buffer("scale", quantized.scale)
            self.register_buffer("tensor_scale", quantized.tensor_scale)
            self.register_buffer("zero_point", quantized.zero_point)
        else:
            self.weight = nn.Parameter(weight.detach())
            # A weight that cannot be quantized is refused now, as in real execution, not in the first forward pass.
            fake_quantize(self.weight.detach(), scheme.weight)

    @classmethod
    def from_linear(cls, linear: nn.Linear, scheme: Scheme, execution: Execution) -> QuantizedLinear:
        """Quantize a layer; the original is not changed."""
        return cls(linear.weight, linear.bias, scheme, execution)

    def freeze(self) -> QuantizedLinear:
        """Round a simulated weight now, so that forward passes need not; it is not trainable after."""
        if self.execution == "simulated" and not self.frozen:
            self.weight = nn.Parameter(self.effective_weight().detach(), requires_grad=False)
            self.frozen = True
        return self

    def effective_weight(self) -> Tensor:
        """The weight ``[N, K]`` that the layer multiplies with."""
        assert self.scheme.weight is not None
        if self.execution == "real":
            return dequantize(self._stored())
        return self.weight if self.frozen else fake_quantize(self.weight, self.scheme.weight)

    def _stored(self) -> QuantizedTensor:
        assert self.scheme.weight is not None
        return QuantizedTensor(
            codes=product.load(self.codes, self.scheme.weight, self.in_features),
            scale=self.scale,
            tensor_scale=self.tensor_scale,
            zero_point=self.zero_point,
            shape=torch.Size((self.out_features, self.in_features)),
            operand=self.scheme.weight,
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.execution == "real":
            return product.linear(x, self._stored(), self.bias, self.scheme.activation)
        if self.scheme.activation is not None:
            x = fake_quantize(x, self.scheme.activation)
        return functional.linear(x, self.effective_weight(), self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.scheme}, {self.execution}"
