"""Which matrices of a model can be quantized, which a plan quantizes, and whether a plan fits."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.experts import FusedExperts, QuantizedExperts, reproduces
from quantsuite.granularity import share_scales
from quantsuite.layer import UnsupportedError
from quantsuite.parameters import unknown_parameter, weights_sha256
from quantsuite.parts import RowParts, build_layer, uncovered
from quantsuite.plan import LayerPlan, Plan, as_plan, name_rows, split_rows
from quantsuite.scheme import Execution, Scheme

_ROUTER = re.compile(r"(^|\.)(router|\w*gate)(\.|$)")
_EXPERT_COUNT = re.compile(r"(num|n)_(\w+_)?experts|moe_num_experts|num_experts_\w*total")
_NOT_COUNTS = ("per_tok", "shared", "group", "selected", "activated")


class MisfitError(UnsupportedError):
    """A plan whose groups or blocks do not divide a layer, or that is of another model; the message names the layer."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A module that is exchanged for a quantized one.

    Args:
        parent: the module that has it as ``name``.
        name: in ``parent``.
        path: in the model.
        module: a layer, or an experts module.
        weights: its parameters that are quantized.
        part: the weight ``[N, K]`` of a layer, or fused experts.
    """

    parent: nn.Module
    name: str
    path: str
    module: nn.Module
    weights: list[nn.Parameter]
    part: Tensor | FusedExperts

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """The ``[N, K]`` of each matrix, by the name that a plan gives it."""
        if not isinstance(self.part, FusedExperts):
            return {self.path: tuple(self.part.shape)}
        shapes = {label: tuple(weight.shape) for label, (weight, _) in self.part.matrices(0).items()}
        numbers = range(len(self.part))
        return {f"{self.path}.{number}.{label}": shape for number in numbers for label, shape in shapes.items()}

    def matrices(self) -> Iterator[tuple[str, Tensor]]:
        """Name and weight ``[N, K]`` of each matrix."""
        if not isinstance(self.part, FusedExperts):
            yield self.path, self.part.detach()
            return
        for number in range(len(self.part)):
            for label, (weight, _) in self.part.matrices(number).items():
                yield f"{self.path}.{number}.{label}", weight

    def planned(self, plan: Plan) -> dict[str, tuple[tuple[int, int], LayerPlan]]:
        """Shape and plan of each matrix, rows that are named one by one apart."""
        found = {}
        for name, (rows, columns) in self.shapes.items():
            parts = plan.parts(name)
            found |= {name_rows(name, *part): ((part[1] - part[0], columns), each) for part, each in parts.items()}
            if not parts:
                found[name] = (rows, columns), plan.layer(name)
        return found

    def quantize(self, plan: Plan, execution: Execution, kernel: Any = None) -> nn.Module:
        """The module under a plan, for inference; itself if the plan leaves all of it as it is.

        Raises:
            UnsupportedError: if a scheme cannot be executed so, or experts are computed in an unknown way.
            ValueError: naming the layer, if a weight is not finite or a group does not divide its K.
        """
        planned = {name: layer for name, (_, layer) in self.planned(plan).items()}
        if all(layer.scheme.weight is None for layer in planned.values()):
            return self.module

        def build(name: str, weight: Tensor, bias: Tensor | None) -> nn.Module:
            try:
                return build_layer(weight, bias, planned[name], execution, kernel)
            except UnsupportedError:
                raise
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

        if isinstance(self.part, FusedExperts):
            experts = QuantizedExperts(self.part, lambda name, *matrix: build(f"{self.path}.{name}", *matrix))
            self.part.check(self.path)
            return experts
        matrix = self.part, getattr(self.module, "bias", None)
        if rows := list(plan.parts(self.path)):
            return RowParts(*matrix, rows, lambda part, *each: build(name_rows(self.path, *part), *each))
        return build(self.path, *matrix)


def expert_counts(model: nn.Module) -> set[int]:
    """Numbers of experts of a model's configuration and of its fused experts; empty if it has none."""
    config = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    settings = {**getattr(config, "attribute_map", {}), **getattr(config, "__dict__", {})}
    named = {
        getattr(config, name, None)
        for name in settings
        if _EXPERT_COUNT.fullmatch(name) and not any(part in name for part in _NOT_COUNTS)
    }
    found = {len(fused) for module in model.modules() if (fused := FusedExperts.find(module))}
    return {count for count in named | found if isinstance(count, int) and count > 0}


def _is_router(path: str, outputs: int, counts: set[int]) -> bool:
    """Whether a matrix chooses experts: by its outputs, one for each expert or one gate; and by its name,
    since a projection may have as many outputs by chance."""
    return bool(counts) and outputs in counts | {1} and _ROUTER.search(path) is not None


def _layer_weight(module: nn.Module) -> Tensor | None:
    """The weight ``[N, K]`` if the module computes ``x W^T + b``, else ``None``.

    A module of a class of its own (transformers' Conv1D, whose weight is ``[K, N]``) is one if it says so itself:
    what it gives for random input is compared.
    """
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if type(module).forward is nn.Linear.forward:
        return weight
    if not isinstance(weight, nn.Parameter) or weight.ndim != 2:
        return None
    if any(parameter is not weight and parameter is not bias for parameter in module.parameters()):
        return None
    for candidate in (weight.detach(), weight.detach().t()):
        x = torch.randn((3, candidate.shape[1]), generator=torch.Generator().manual_seed(0)).to(weight)
        try:
            with torch.no_grad():
                theirs = module(x)
            if reproduces(torch.nn.functional.linear(x, candidate, bias), theirs):
                return candidate
        except Exception:  # Of another input: ids, other sizes, more arguments.
            continue
    return None


def _head(model: nn.Module) -> nn.Module | None:
    return getattr(model, "get_output_embeddings", lambda: None)()


def targets(model: nn.Module, include_head: bool) -> list[Target]:
    """All modules that a scheme quantizes: linear layers and experts, without routers and embeddings."""
    head, counts = _head(model), expert_counts(model)
    found = []
    for parent_path, parent in model.named_modules():
        for name, child in parent.named_children():
            path = f"{parent_path}.{name}" if parent_path else name
            place = {"parent": parent, "name": name, "path": path, "module": child}
            if fused := FusedExperts.find(child):
                found.append(Target(**place, weights=fused.weights, part=fused))
            elif isinstance(child, nn.Embedding) or (child is head and not include_head):
                continue
            elif (weight := _layer_weight(child)) is not None and not _is_router(path, weight.shape[0], counts):
                found.append(Target(**place, weights=[child.weight], part=weight))
    return found


def matrices(model: nn.Module, include_head: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Name and weight ``[N, K]`` of each matrix that a plan may name."""
    for target in targets(model, include_head):
        yield from target.matrices()


def misfits(model: nn.Module, plan: Plan | Scheme, include_head: bool = False) -> str | None:
    """Why a plan does not fit a model, or ``None`` if it does; nothing is quantized to find out.

    Returns:
        The first name that the model does not have, or the first layer whose N or K a group or block does not divide,
        with the sizes that do, or whose planned weight has another shape, or whose static scale is missing; or the
        hashes, if the plan was made from other weights.
    """
    plan = as_plan(plan)
    chosen = targets(model, include_head)
    if reason := _unknown_layer(model, plan, chosen) or unknown_parameter(model, plan.parameters):
        return reason
    for target in chosen:
        for name, (rows, _) in target.shapes.items():
            if (parts := list(plan.parts(name))) and (reason := uncovered(parts, rows)):
                return f"{name}: {reason}; name each row in one part"
        for name, (shape, layer) in target.planned(plan).items():
            if reason := _misfit(layer, shape):
                return f"{name}: {reason}"
    return _other_weights(model, plan)


def _other_weights(model: nn.Module, plan: Plan) -> str | None:
    if not plan.model_sha256 or (found := weights_sha256(model)) == plan.model_sha256:
        return None
    made = f"the plan {plan} was made from weights of sha256 {plan.model_sha256[:12]}"
    return f"{made}, the model's are {found[:12]}; plan for this model"


def _unknown_layer(model: nn.Module, plan: Plan, chosen: Sequence[Target]) -> str | None:
    known = {name for target in chosen for name in target.shapes}
    for name in plan.layers:
        path, rows = split_rows(name)
        if path in known and (rows is None or path not in plan.layers):
            continue
        if path in known:
            return f"{path} is named as a whole and in rows; keep one"
        if path in {name for target in targets(model, include_head=True) for name in target.shapes}:
            return f"{path} is the output head; quantize it with --include-head, or leave it out of the plan"
        close = difflib.get_close_matches(path, known, n=1) or sorted(known)[:1]
        return f"the model has no layer {path}; it has for example {', '.join(close) or 'none that is quantized'}"
    return None


def _misfit(layer: LayerPlan, shape: tuple[int, int]) -> str | None:
    activation = layer.scheme.activation
    if layer.weight is not None and layer.weight.shape != shape:
        return f"the plan's weight is {list(layer.weight.shape)}, the layer's {list(shape)}; plan for this model"
    if activation is not None and not activation.dynamic and layer.activation_scale is None:
        return f"{layer.scheme}: static activation scales need calibration; drop -static"
    try:
        for operand, size in ((layer.scheme.weight, shape), (activation, (1, 1, shape[1]))):
            if operand is not None:
                share_scales(torch.empty(size, device="meta"), operand.granularity)
    except ValueError as error:
        return str(error)
    return None


def _kinds(model: nn.Module, include_head: bool) -> Iterator[tuple[str, nn.Parameter, str | None]]:
    """Name and kind of each parameter that stays unquantized, tied ones once; the kind is ``None`` if it has none."""
    chosen = targets(model, include_head)
    quantized = {id(weight) for target in chosen for weight in target.weights}
    biases = {id(p) for target in chosen for p in target.module.parameters(recurse=False)} - quantized
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head, counts = _head(model), expert_counts(model)
    heads = set() if head is None else {id(parameter) for parameter in head.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in embeddings:
            yield name, parameter, "embeddings"
        elif id(parameter) in quantized:
            continue
        elif parameter.ndim < 2 or id(parameter) in biases:
            yield name, parameter, "norms and biases"
        elif id(parameter) in heads:
            yield name, parameter, "head"
        elif parameter.ndim == 2 and any(_is_router(name, size, counts) for size in parameter.shape):
            yield name, parameter, "routers"
        else:
            yield name, parameter, None


def unquantized(model: nn.Module, include_head: bool = False, *, plan: Plan | Scheme | None = None) -> dict[str, float]:
    """What stays as it is, as a share of all parameters, tied ones counted once.

    Args:
        model: any module.
        include_head: whether the output head is quantized too.
        plan: whose layers are counted that it leaves as they are; without one, what every plan leaves.

    Returns:
        Shares by kind: ``embeddings``, ``norms and biases``, ``routers``, ``head``, and ``layers left by the plan``.

    Raises:
        UnsupportedError: naming the first parameter that is none of these and yet not quantized.
    """
    total = max(1, sum(parameter.numel() for parameter in model.parameters()))
    shares: dict[str, float] = {}
    for name, parameter, kind in _kinds(model, include_head):
        share = parameter.numel() / total
        if kind is None:
            raise UnsupportedError(
                f"{name} {list(parameter.shape)}, {share:.2%} of the parameters, is of no linear layer, embedding, "
                "norm or router, and would stay unquantized; --scheme bf16 measures such a model unquantized"
            )
        shares[kind] = shares.get(kind, 0.0) + share
    if plan is not None and (left := _left(model, as_plan(plan), include_head)):
        shares["layers left by the plan"] = left / total
    return shares


def _left(model: nn.Module, plan: Plan, include_head: bool) -> int:
    """How many parameters are of matrices that a plan leaves as they are; embeddings that a layer shares are none."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return sum(
        math.prod(shape)
        for target in targets(model, include_head)
        if not embeddings & {id(weight) for weight in target.weights}
        for shape, layer in target.planned(plan).values()
        if layer.scheme.weight is None
    )
