"""A matrix as its layer plan wants it: quantized, as it is, or its rows in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.layer import QuantizedLinear
from quantsuite.plan import LayerPlan
from quantsuite.quantize import QuantizedTensor
from quantsuite.scheme import Execution


def move(weight: QuantizedTensor, device: torch.device) -> QuantizedTensor:
    """The weight on a device."""
    tensors = {name: getattr(weight, name) for name in ("values", "scale", "tensor_scale", "zero_point")}
    return replace(weight, **{name: None if tensor is None else tensor.to(device) for name, tensor in tensors.items()})


def build_layer(
    weight: Tensor, bias: Tensor | None, plan: LayerPlan, execution: Execution, kernel: Any = None
) -> nn.Module:
    """The layer of a weight ``[N, K]`` for inference.

    Raises:
        UnsupportedError: if the scheme cannot be executed so, or not by the kernel.
        ValueError: if the weight is not finite or a group does not divide its K.
    """
    if plan.scheme.weight is None:
        return _plain(weight, bias)
    given = weight.contiguous() if plan.weight is None else move(plan.weight, weight.device)
    scale = None if plan.activation_scale is None else plan.activation_scale.to(weight.device)
    layer = QuantizedLinear(
        given, bias, plan.scheme, execution, kernel=kernel, activation_scale=scale, dtype=weight.dtype
    )
    return layer.freeze()


def _plain(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    linear.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return linear


class RowParts(nn.Module):
    """A layer that holds several projections, each its own: ``y = [x W1^T + b1, x W2^T + b2, ...]``.

    Args:
        weight: ``[N, K]``.
        bias: ``[N]`` or ``None``.
        rows: of each part, start and stop; they follow one another from 0 to N.
        build: the layer of some rows, of their weight and bias.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        rows: Sequence[tuple[int, int]],
        build: Callable[[tuple[int, int], Tensor, Tensor | None], nn.Module],
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            build((start, stop), weight[start:stop], None if bias is None else bias[start:stop]) for start, stop in rows
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=-1)


def uncovered(rows: Sequence[tuple[int, int]], size: int) -> str | None:
    """Why rows that are named one by one are not those of a matrix ``[size, K]``, or ``None`` if they are."""
    end = 0
    for start, stop in rows:
        if start != end:
            return f"rows {min(start, end)} to {max(start, end)} are named {'twice' if start < end else 'in no part'}"
        end = stop
    return None if end == size else f"rows end at {end}, the matrix has {size}"
