"""The quantized linear layer: one module for simulated and real execution, training and inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.kernels import dispatch
from quantsuite.kernels.protocol import (
    UnsupportedError,
    multiply,
    nbytes,
    pack,
    packing,
    unsupported_shape,
)
from quantsuite.kernels.simulated import multiply_simulated
from quantsuite.kernels.tensors import map_tensors, named_tensors
from quantsuite.kernels.validation import KernelError, require_product
from quantsuite.quantize import QuantizedTensor, dequantize, fake_quantize
from quantsuite.scheme import Execution, Scheme

__all__ = ["QuantizedLinear", "UnsupportedError", "check_supported"]


def check_supported(scheme: Scheme, execution: Execution, device: torch.device | str, kernel: Any = None) -> None:
    """Raise :class:`UnsupportedError` if a linear layer cannot run a scheme on a device, by a kernel or any."""
    if scheme.kv_cache is not None:
        raise UnsupportedError(f"{scheme}: this engine has no quantized KV cache; drop +kv-{scheme.kv_cache}")
    if execution == "real" and scheme.weight is not None:
        if kernel is not None:
            dispatch.require(kernel, scheme, str(device))
        else:
            dispatch.choose(scheme, str(device), 1, 1, 1)


class QuantizedLinear(nn.Module):
    """``y = x W^T + b`` under a scheme.

    *Simulated*, the weight is a parameter that each forward pass rounds, and gradients pass
    straight through; :meth:`freeze` rounds it once and for all for inference.  *Real*, a kernel has packed the
    weight, whose tensors are buffers of the layer, activations are quantized at each call, and there is nothing to
    train.

    Args:
        weight: ``[N, K]``, floating; or its codes and scales as a method chose them, whose values a simulated layer
            holds in ``dtype``, frozen.
        bias: ``[N]`` or ``None``.
        scheme: a weight, and perhaps an activation.
        execution: ``"simulated"`` or ``"real"``.
        kernel: of real execution, by which all products are made; ``None``: those of
            :func:`quantsuite.kernels.dispatch.choose`.
        activation_scale: float32, of static activations, broadcast over ``[..., K]`` in groups.
        dtype: of the values of a weight that is quantized already (default: that of the bias, else float32).

    Attributes:
        kernel: the one that packed the weight; ``None`` if simulated.

    Raises:
        UnsupportedError: if the scheme cannot be executed so on the weight's device.
        ValueError: if the weight is not finite or a group does not divide K, or static activations have no scale.
        KernelError: if no tensor is found in what the kernel packed.
    """

    def __init__(
        self,
        weight: Tensor | QuantizedTensor,
        bias: Tensor | None,
        scheme: Scheme,
        execution: Execution,
        *,
        kernel: Any = None,
        activation_scale: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        quantized = isinstance(weight, QuantizedTensor)
        self._check(scheme, quantized, activation_scale)
        self.scheme, self.execution, self.frozen = scheme, execution, execution == "simulated" and quantized
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else nn.Parameter(bias.detach())
        self.register_buffer("activation_scale", activation_scale)
        self._explicit, self.kernel = kernel is not None and execution == "real", None
        if quantized:
            device, dtype = weight.values.device, dtype or (torch.float32 if bias is None else bias.dtype)
        else:
            device, dtype = weight.device, weight.dtype
        if execution == "real":
            if self._explicit:
                self.kernel, self._asked_on = dispatch.require(kernel, scheme, str(device), dtype), str(device)
            else:
                self.kernel = self._choose(1, str(device), dtype)
            self._keep(pack(self.kernel, weight if quantized else weight.detach(), scheme))
            self._register(self._packed)
        elif quantized:
            self.weight = nn.Parameter(dequantize(weight, dtype), requires_grad=False)
        else:
            self.weight = nn.Parameter(weight.detach())
            # A weight that cannot be quantized is refused now, as in real execution, not in the first forward pass.
            assert scheme.weight is not None
            fake_quantize(self.weight.detach(), scheme.weight)

    @staticmethod
    def _check(scheme: Scheme, quantized: bool, activation_scale: Tensor | None) -> None:
        if scheme.weight is None:
            raise UnsupportedError(f"{scheme} quantizes no weight; use torch.nn.Linear")
        if scheme.method is not None and not quantized:
            raise UnsupportedError(f"{scheme}: the weight is to be quantized by {scheme.method!r} first")
        static = scheme.activation is not None and not scheme.activation.dynamic
        if static and activation_scale is None:
            raise UnsupportedError(f"{scheme}: static activation scales need calibration; drop -static")
        if activation_scale is not None and not static:
            raise ValueError(f"{scheme} has no static activations; give no activation_scale, or write -static")

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
        """The weight ``[N, K]`` that the layer multiplies with.

        Raises:
            UnsupportedError: if the kernel cannot say.
        """
        assert self.scheme.weight is not None
        if self.kernel is not None:
            return dequantize(self.unpack())
        return self.weight if self.frozen else fake_quantize(self.weight, self.scheme.weight)

    def unpack(self) -> QuantizedTensor:
        """The codes and scales that the kernel keeps of a real layer's weight.

        Raises:
            UnsupportedError: if the kernel cannot say.
        """
        if not hasattr(self.kernel, "unpack"):
            raise UnsupportedError(f"{self.kernel.name} has no unpack, which says what weight it keeps")
        return self.kernel.unpack(self._packed)

    def packed_tensors(self) -> list[Tensor]:
        """The parameters and buffers that are the packed weight's; none if simulated."""
        if self.kernel is None:
            return []
        others = {id(self.bias), id(self.activation_scale)}
        return [tensor for tensor in (*self.parameters(), *self.buffers()) if id(tensor) not in others]

    def packed_bytes(self) -> int:
        """Bytes that the packed weight occupies, as its kernel counts them; 0 if simulated."""
        return 0 if self.kernel is None else nbytes(self.kernel, self._packed)

    def kernel_for(self, x: Tensor) -> Any:
        """The kernel that multiplies ``x``: the one given, or of the table's with the same packing the first that can.

        Raises:
            UnsupportedError: if it does not take the shape or dtype of ``x``.
        """
        m, device = x.numel() // self.in_features, str(x.device)
        if not self._explicit:
            return self._choose(m, device, x.dtype)
        if device != self._asked_on:
            dispatch.require(self.kernel, self.scheme, device)
            self._asked_on = device
        dispatch.require_dtype(self.kernel, self.scheme, x.dtype)
        reason = unsupported_shape(self.kernel, self.scheme, device, m, self.out_features, self.in_features)
        if reason is not None:
            raise UnsupportedError(f"{self.scheme}: {self.kernel.name}: {reason}")
        return self.kernel

    def _choose(self, m: int, device: str, dtype: torch.dtype) -> Any:
        packed_as = None if self.kernel is None else packing(self.kernel)
        return dispatch.choose(self.scheme, device, m, self.out_features, self.in_features, dtype, packed_as)

    def _keep(self, packed: object) -> None:
        """Hold a packed weight as a plain attribute: as one of the module's it would be registered a second time."""
        self.__dict__["_packed"] = packed

    def _register(self, packed: object) -> None:
        """Make the tensors of a packed weight the layer's own, so that they are counted, saved and moved with it.

        Raises:
            KernelError: if there are none.
        """
        if next(named_tensors(packed), None) is None and not hasattr(self.kernel, "nbytes"):
            raise KernelError(
                f"{self.kernel.name} packed {self.scheme} into a {type(packed).__name__} in which no tensor is found;"
                " keep them in attributes, slots, lists, tuples, mappings or a module, or say their nbytes"
            )
        if isinstance(packed, nn.Module):
            self.packed = packed
            return
        for name, tensor in named_tensors(packed):
            self.register_buffer(name, tensor)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedLinear:
        # Their dtype is that of their format, not the model's.
        kept = {id(tensor) for tensor in (*self.packed_tensors(), self.activation_scale)}

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if id(tensor) in kept and moved.dtype != tensor.dtype else moved

        names = {} if self.kernel is None else {id(tensor): name for name, tensor in named_tensors(self._packed)}
        super()._apply(move, recurse)
        if self.kernel is not None and not isinstance(self._packed, nn.Module):
            # Gradients of a module in the packed weight have no name.
            self._keep(map_tensors(self._packed, lambda t: getattr(self, names[id(t)]) if id(t) in names else fn(t)))
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel is not None:
            kernel = self.kernel_for(x)
            return require_product(kernel, self._multiply(kernel, x), x, self.out_features)
        weight, scale = self.effective_weight(), self.activation_scale
        return multiply_simulated(x, weight, self.scheme, bias=self.bias, activation_scale=scale)

    def _multiply(self, kernel: Any, x: Tensor) -> Any:
        try:
            return multiply(kernel, x, self._packed, bias=self.bias, activation_scale=self.activation_scale)
        except (torch.OutOfMemoryError, UnsupportedError):
            raise
        except Exception as error:  # A kernel of anyone's raises what it likes.
            if not self._explicit:
                raise
            raise KernelError(
                f"{kernel.name}.linear of {list(x.shape)} raised {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error

    def extra_repr(self) -> str:
        how = self.execution if self.kernel is None else f"{self.execution} by {self.kernel.name}"
        return f"{self.in_features} -> {self.out_features}, {self.scheme}, {how}"
