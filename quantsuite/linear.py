"""Exchanging a model's linear layers and experts for quantized ones, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from quantsuite.coverage import MisfitError, matrices, misfits, targets, unquantized
from quantsuite.kernels.registry import find
from quantsuite.layer import QuantizedLinear, UnsupportedError, check_supported
from quantsuite.parameters import exchanged
from quantsuite.plan import LayerPlan, Plan, PlanError, as_plan
from quantsuite.scheme import Execution, Scheme

__all__ = [
    "LayerPlan",
    "MisfitError",
    "Plan",
    "PlanError",
    "QuantizedLinear",
    "UnsupportedError",
    "check_plan",
    "check_supported",
    "matrices",
    "misfits",
    "quantized",
    "unquantized",
    "weight_bytes",
]


@contextmanager
def quantized(
    model: nn.Module,
    plan: Plan | Scheme,
    execution: Execution,
    *,
    include_head: bool = False,
    kernel: Any = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Iterator[nn.Module]:
    """The model with its linear layers and experts quantized, inside the ``with`` block; as it was, after it.

    Embeddings and routers are never quantized; the output head is only with ``include_head``.  The
    reference scheme changes nothing.

    Args:
        model: any module; ``get_output_embeddings()`` names the head where the method exists.
        plan: how each layer is quantized, and what other parameters become; a scheme rounds every layer to nearest.
        execution: simulated or real.
        include_head: quantize the output head too.
        kernel: of real execution, or its name; ``None``: each layer's, as
            :func:`quantsuite.kernels.dispatch.choose` finds it.
        progress: called with the name of each layer before it is quantized.

    Raises:
        UnsupportedError: if a scheme cannot be executed so on the model's device, or not by the kernel, or the model
            has weights that no plan quantizes (see :func:`~quantsuite.coverage.unquantized`).
        MisfitError: naming the layer, if a group does not divide its K, or the plan is of another model.
        PlanError: if a scheme is given that names a method.
        ValueError: naming the layer, if its weight is not finite.
    """
    plan, kernel = as_plan(plan), find(kernel) if isinstance(kernel, str) else kernel
    device = next((target.weights[0].device for target in targets(model, include_head)), torch.device("cpu"))
    check_plan(plan, execution, device, kernel)
    if plan.is_reference:
        yield model
        return
    if reason := misfits(model, plan, include_head):
        raise MisfitError(reason)
    unquantized(model, include_head, plan=plan)
    replaced = []
    with exchanged(model, plan.parameters):
        try:
            for target in targets(model, include_head):
                progress(target.path)
                setattr(target.parent, target.name, target.quantize(plan, execution, kernel))
                replaced.append(target)
            yield model
        finally:
            for target in replaced:
                setattr(target.parent, target.name, target.module)


def check_plan(plan: Plan | Scheme, execution: Execution, device: torch.device | str, kernel: Any = None) -> None:
    """Raise :class:`UnsupportedError` if a layer of a plan cannot be executed so on a device, by a kernel or any."""
    plan = as_plan(plan)
    for scheme in dict.fromkeys([replace(plan.scheme, method=None), *(layer.scheme for layer in plan.layers.values())]):
        check_supported(scheme, execution, device, kernel)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers as stored, tied ones once; of a packed weight, as its kernel counts them."""
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    packed = {id(tensor) for layer in layers for tensor in layer.packed_tensors()}
    rest = (tensor for tensor in (*model.parameters(), *model.buffers()) if id(tensor) not in packed)
    sizes = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in rest}
    return sum(sizes.values()) + sum(layer.packed_bytes() for layer in layers)
