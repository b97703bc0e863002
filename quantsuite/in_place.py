"""What stands where each matrix of a model stood, once it is quantized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from quantsuite.coverage import Target, expert_counts, targets
from quantsuite.experts import FusedExperts, QuantizedExperts
from quantsuite.layer import QuantizedLinear
from quantsuite.parts import RowParts
from quantsuite.plan import LayerPlan, Plan, as_plan, name_rows
from quantsuite.scheme import REFERENCE, Scheme

_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A matrix of a model, what a plan makes of it, and what a quantized copy of the model has in its place.

    Args:
        name: as a plan names it.
        weight: ``[N, K]``, as it was loaded.
        bias: ``[N]`` or ``None``, as it was loaded.
        plan: how it is to be quantized.
        module: what multiplies in its place; ``None`` if nothing there can be told to be its own.
        loaded: what stands in its place in the model as it was loaded; ``None`` for a matrix of fused experts.
        whole: the layer of which the matrix is some rows, and the first of them; ``None`` if it is one by itself.
        stray: of what no plan names, or is planned as its scheme does not say, why it is wrong; else empty.
        is_matrix: whether a plan names it, or it is quantized all the same; else a norm, an embedding or the like.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    plan: LayerPlan
    module: nn.Module | None
    loaded: nn.Module | None = None
    whole: tuple[nn.Module, int] | None = None
    stray: str = ""
    is_matrix: bool = True


def placed(
    original: nn.Module, quantized: nn.Module, plan: Plan | Scheme, include_head: bool = False
) -> Iterator[Placed]:
    """Every matrix that a plan may name, rows that it names one by one apart, and whatever else is not as it was.

    Experts that the plan leaves fused are left out: none of their matrices has a place of its own.

    Args:
        original: the model as it was loaded, with the parameters that the plan exchanges.
        quantized: the same model under the plan, or what poses as it.
        plan: how each matrix is to be quantized.
        include_head: whether the output head is quantized too.
    """
    plan, paths = as_plan(plan), set()
    wanted = replace(plan.scheme, method=None, kv_cache=None)
    for target in targets(original, include_head):
        paths.add(target.path)
        module = _found(quantized, target.path)
        part = target.part
        found = (
            _experts(target, part, plan, module)
            if isinstance(part, FusedExperts)
            else _layer(target, part, plan, module)
        )
        for each in found:
            other = not plan.layers and each.plan.scheme != wanted
            yield replace(each, stray=f"is planned as {each.plan.scheme}, the run says {wanted}") if other else each
    yield from _strays(original, quantized, paths, include_head)


def _strays(original: nn.Module, quantized: nn.Module, paths: set[str], include_head: bool) -> Iterator[Placed]:
    """What is not as it was where a plan can name nothing, and linear layers that it could not name."""
    head = None if include_head else getattr(original, "get_output_embeddings", lambda: None)()
    routed = bool(expert_counts(original))
    for path, module in quantized.named_modules():
        if any(f"{path}.".startswith(f"{each}.") for each in paths):
            continue
        loaded = _found(original, path)
        reason = _difference(loaded, module)
        if not (reason or routed) and isinstance(loaded, nn.Linear) and loaded is not head:
            reason = "is a linear layer for which nothing is planned"
        if reason:
            weight = getattr(loaded, "weight", None)
            weight = torch.zeros(1, 1) if weight is None else weight.detach()
            plan = LayerPlan(scheme=REFERENCE)
            own = isinstance(module, QuantizedLinear)
            yield Placed(name=path, weight=weight, bias=None, plan=plan, module=module, stray=reason, is_matrix=own)


def _difference(loaded: nn.Module | None, module: nn.Module) -> str:
    """How a module differs from the one that was loaded, in class, tensors or numbers of its own; empty if in none."""
    if isinstance(module, QuantizedLinear):
        return f"is quantized to {module.scheme}, the plan leaves it as it is"
    if loaded is None or type(loaded) is not type(module):
        return f"is a {type(module).__name__}, which was not loaded"
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        other = getattr(loaded, name, None)
        if not isinstance(other, torch.Tensor) or other.dtype != tensor.dtype or other.shape != tensor.shape:
            return f"has another {name} than was loaded"
        if other.data_ptr() != tensor.data_ptr() and not torch.equal(other, tensor):
            return f"has other values of {name} than were loaded"
    if ("forward" in vars(module)) != ("forward" in vars(loaded)):
        return "has a forward of its own, which was not loaded"
    if any(len(getattr(module, hooks)) != len(getattr(loaded, hooks)) for hooks in _HOOKS):
        return "has hooks other than were loaded"
    for name, value in vars(module).items():
        if isinstance(value, bool | int | float | str) and vars(loaded).get(name) != value:
            return f"has {name} of {value!r}, not {vars(loaded).get(name)!r} as loaded"
    return ""


def _found(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _layer(target: Target, weight: Tensor, plan: Plan, module: nn.Module | None) -> Iterator[Placed]:
    weight, bias, loaded = weight.detach(), getattr(target.module, "bias", None), target.module
    rows, path = plan.parts(target.path), target.path
    if not rows:
        yield Placed(name=path, weight=weight, bias=bias, plan=plan.layer(path), module=module, loaded=loaded)
        return
    parts: list[nn.Module | None] = [None] * len(rows)
    if isinstance(module, RowParts) and len(module.parts) == len(rows):
        parts = list(module.parts)
    for (start, stop), part in zip(rows, parts, strict=True):
        yield Placed(
            name=name_rows(path, start, stop),
            weight=weight[start:stop],
            bias=None if bias is None else bias[start:stop],
            plan=rows[start, stop],
            module=part,
            loaded=loaded,
            whole=None if part is None or module is None else (module, start),
        )


def _experts(target: Target, fused: FusedExperts, plan: Plan, module: nn.Module | None) -> Iterator[Placed]:
    planned = {name: layer for name, (_, layer) in target.planned(plan).items()}
    if all(layer.scheme.weight is None for layer in planned.values()):
        return
    for number in range(len(fused)):
        for place, (label, (weight, bias)) in enumerate(fused.matrices(number).items()):
            name = f"{target.path}.{number}.{label}"
            own = module.experts[number][place] if isinstance(module, QuantizedExperts) else None
            yield Placed(name=name, weight=weight, bias=bias, plan=planned[name], module=own)
