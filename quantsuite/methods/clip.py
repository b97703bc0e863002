"""Clip search: each scale of a weight is the one, of some below round-to-nearest's, with the least squared error.

The same as an operand that ends in ``-clip``: ``int4-g128@clip`` has the codes and scales of ``int4-g128-clip``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from quantsuite.coverage import MisfitError, matrices, misfits
from quantsuite.methods.protocol import Needs
from quantsuite.plan import LayerPlan, Plan
from quantsuite.quantize import quantize
from quantsuite.scheme import Scheme

name = "clip"
needs: Needs = "weights"


def plan(model: nn.Module, scheme: Scheme, *, include_head: bool, progress: Callable[[str], None]) -> Plan:
    """See :class:`~quantsuite.methods.protocol.Method`.

    Raises:
        ValueError: if there are no scales to search, or a weight is not finite.
        MisfitError: naming the layer, if a group does not divide it.
    """
    operand = scheme.weight
    if operand is None:
        raise ValueError(f"there is no weight whose scales are searched; drop @{name}")
    try:
        searched = replace(operand, clip=True)
    except ValueError as error:
        raise ValueError(f"{str(error).partition(';')[0]}; drop @{name}") from error
    if reason := misfits(model, Plan.of(scheme), include_head):
        raise MisfitError(reason)
    layers = {}
    for layer, weight in matrices(model, include_head):
        progress(layer)
        layers[layer] = LayerPlan(scheme=scheme, weight=replace(quantize(weight, searched), operand=operand))
    return Plan(scheme=scheme, layers=layers)
