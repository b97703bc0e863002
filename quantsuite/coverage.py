"""Which parts of a model a scheme quantizes, which stay as they are, and whether a scheme fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quantsuite.experts import FusedExperts, QuantizedExperts, reproduces
from quantsuite.granularity import share_scales
from quantsuite.layer import QuantizedLinear, UnsupportedError
from quantsuite.scheme import Execution, Scheme

_ROUTER = re.compile(r"(^|\.)(router|\w*gate)(\.|$)")
_EXPERT_COUNT = re.compile(r"(num|n)_(\w+_)?experts|moe_num_experts|num_experts_\w*total")
_NOT_COUNTS = ("per_tok", "shared", "group", "selected", "activated")


class MisfitError(ValueError):
    """A scheme whose groups or blocks do not divide a layer; the message names the layer and its K."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A module that is exchanged for a quantized one.

    Args:
        parent: the module that has it as ``name``.
        name: in ``parent``.
        path: in the model.
        module: a layer, or an experts module.
        weights: its parameters that are quantized.
        matrices: a label and the ``[N, K]`` of each kind of matrix in it.
        part: the weight ``[N, K]`` of a layer, or fused experts.
    """

    parent: nn.Module
    name: str
    path: str
    module: nn.Module
    weights: list[nn.Parameter]
    matrices: dict[str, tuple[int, ...]]
    part: Tensor | FusedExperts

    def quantize(self, scheme: Scheme, execution: Execution) -> nn.Module:
        """The module under a scheme, for inference.

        Raises:
            UnsupportedError: if the scheme cannot be executed so, or experts are computed in an unknown way.
            ValueError: naming the layer, if a weight is not finite or a group does not divide its K.
        """
        try:
            if isinstance(self.part, FusedExperts):
                experts = QuantizedExperts(self.part, scheme, execution)
                self.part.check(self.path)
                return experts
            bias = getattr(self.module, "bias", None)
            return QuantizedLinear(self.part.contiguous(), bias, scheme, execution).freeze()
        except UnsupportedError:
            raise
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error


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
                shapes = {f"{path}.{label}": tuple(w.shape) for label, (w, _) in fused.matrices(0).items()}
                found.append(Target(**place, weights=fused.weights, matrices=shapes, part=fused))
            elif isinstance(child, nn.Embedding) or (child is head and not include_head):
                continue
            elif (weight := _layer_weight(child)) is not None and not _is_router(path, weight.shape[0], counts):
                found.append(Target(**place, weights=[child.weight], matrices={path: tuple(weight.shape)}, part=weight))
    return found


def misfits(model: nn.Module, scheme: Scheme, include_head: bool = False) -> str | None:
    """Why a scheme does not fit a model, or ``None`` if it does; nothing is quantized to find out.

    Returns:
        The first layer whose N or K a group or block does not divide, with the sizes that do.
    """
    for target in targets(model, include_head):
        for path, (rows, columns) in target.matrices.items():
            for operand, shape in ((scheme.weight, (rows, columns)), (scheme.activation, (1, 1, columns))):
                try:
                    if operand is not None:
                        share_scales(torch.empty(shape, device="meta"), operand.granularity)
                except ValueError as error:
                    return f"{path}: {error}"
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


def unquantized(model: nn.Module, include_head: bool = False) -> dict[str, float]:
    """What every scheme leaves as it is, as a share of all parameters, tied ones counted once.

    Returns:
        Shares by kind: ``embeddings``, ``norms and biases``, ``routers``, ``head``.

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
    return shares
