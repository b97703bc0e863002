"""Exchanging a model's linear layers and experts for quantized ones, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from quantsuite.coverage import MisfitError, misfits, targets, unquantized
from quantsuite.layer import QuantizedLinear, UnsupportedError, check_supported
from quantsuite.scheme import Execution, Scheme

__all__ = [
    "MisfitError",
    "QuantizedLinear",
    "UnsupportedError",
    "check_supported",
    "misfits",
    "quantized",
    "unquantized",
    "weight_bytes",
]


@contextmanager
def quantized(
    model: nn.Module,
    scheme: Scheme,
    execution: Execution,
    *,
    include_head: bool = False,
    progress: Callable[[str], None] = lambda name: None,
) -> Iterator[nn.Module]:
    """The model with its linear layers and experts quantized, inside the ``with`` block; as it was, after it.

    Embeddings and routers are never quantized; the output head is only with ``include_head``.  The
    reference scheme changes nothing.

    Args:
        model: any module; ``get_output_embeddings()`` names the head where the method exists.
        scheme: what to quantize.
        execution: simulated or real.
        include_head: quantize the output head too.
        progress: called with the name of each layer before it is quantized.

    Raises:
        UnsupportedError: if the scheme cannot be executed so on the model's device, or the model has
            weights that no scheme quantizes (see :func:`~quantsuite.coverage.unquantized`).
        MisfitError: naming the layer, if a group does not divide its K.
        ValueError: naming the layer, if its weight is not finite.
    """
    chosen = targets(model, include_head)
    check_supported(scheme, execution, chosen[0].weights[0].device if chosen else "cpu")
    if scheme.is_reference:
        yield model
        return
    if reason := misfits(model, scheme, include_head):
        raise MisfitError(reason)
    unquantized(model, include_head)
    replaced = []
    try:
        for target in chosen:
            progress(target.path)
            setattr(target.parent, target.name, target.quantize(scheme, execution))
            replaced.append(target)
        yield model
    finally:
        for target in replaced:
            setattr(target.parent, target.name, target.module)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers as stored, tied ones once."""
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())
