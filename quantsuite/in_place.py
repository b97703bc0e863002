"""What stands where each matrix of a model stood, once it is quantized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quantsuite.coverage import Target, targets
from quantsuite.experts import FusedExperts, QuantizedExperts
from quantsuite.layer import QuantizedLinear
from quantsuite.parts import RowParts
from quantsuite.plan import LayerPlan, Plan, as_plan, name_rows
from quantsuite.scheme import REFERENCE, Scheme


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A matrix of a model, what a plan makes of it, and what a quantized copy of the model has in its place.

    Args:
        name: as a plan names it.
        weight: ``[N, K]``, as it was loaded.
        bias: ``[N]`` or ``None``, as it was loaded.
        plan: how it is to be quantized.
        module: what multiplies in its place; ``None`` if nothing there can be told to be its own.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    plan: LayerPlan
    module: nn.Module | None


def placed(
    original: nn.Module, quantized: nn.Module, plan: Plan | Scheme, include_head: bool = False
) -> Iterator[Placed]:
    """Every matrix that a plan may name, rows that it names one by one apart, and whatever else is quantized.

    Experts that the plan leaves fused are left out: none of their matrices has a place of its own.

    Args:
        original: the model as it was loaded, with the parameters that the plan exchanges.
        quantized: the same model under the plan, or what poses as it.
        plan: how each matrix is to be quantized.
        include_head: whether the output head is quantized too.
    """
    plan, paths = as_plan(plan), set()
    for target in targets(original, include_head):
        paths.add(target.path)
        module = _found(quantized, target.path)
        if isinstance(target.part, FusedExperts):
            yield from _experts(target, target.part, plan, module)
        else:
            yield from _layer(target, target.part, plan, module)

    yield from _unplanned(original, quantized, paths)


def _unplanned(original: nn.Module, quantized: nn.Module, paths: set[str]) -> Iterator[Placed]:
    """Matrices that are quantized where a plan can name none: embeddings, routers, a head that was not asked for."""
    for path, module in quantized.named_modules():
        if isinstance(module, QuantizedLinear) and not any(f"{path}.".startswith(f"{each}.") for each in paths):
            weight = getattr(_found(original, path), "weight", None)
            weight = torch.zeros(module.out_features, module.in_features) if weight is None else weight.detach()
            yield Placed(name=path, weight=weight, bias=None, plan=LayerPlan(scheme=REFERENCE), module=module)


def _found(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _layer(target: Target, weight: Tensor, plan: Plan, module: nn.Module | None) -> Iterator[Placed]:
    weight, bias = weight.detach(), getattr(target.module, "bias", None)
    rows = plan.parts(target.path)
    if not rows:
        yield Placed(name=target.path, weight=weight, bias=bias, plan=plan.layer(target.path), module=module)
        return
    parts: list[nn.Module | None] = [None] * len(rows)
    if isinstance(module, RowParts) and len(module.parts) == len(rows):
        parts = list(module.parts)
    for (start, stop), part in zip(rows, parts, strict=True):
        own = None if bias is None else bias[start:stop]
        name = name_rows(target.path, start, stop)
        yield Placed(name=name, weight=weight[start:stop], bias=own, plan=rows[start, stop], module=part)


def _experts(target: Target, fused: FusedExperts, plan: Plan, module: nn.Module | None) -> Iterator[Placed]:
    planned = {name: layer for name, (_, layer) in target.planned(plan).items()}
    if all(layer.scheme.weight is None for layer in planned.values()):
        return
    for number in range(len(fused)):
        for place, (label, (weight, bias)) in enumerate(fused.matrices(number).items()):
            name = f"{target.path}.{number}.{label}"
            own = module.experts[number][place] if isinstance(module, QuantizedExperts) else None
            yield Placed(name=name, weight=weight, bias=bias, plan=planned[name], module=own)
