"""What a quantized model is, counted from the modules that stand in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import Tensor

from quantsuite.checks.in_place import Execute, PlacedLayer
from quantsuite.in_place import Placed
from quantsuite.layer import QuantizedLinear, UnsupportedError
from quantsuite.records import Identity

PREFILL = 512
"""Tokens of a product whose kernel is asked for, beside that of one token."""
UNKNOWN = "unknown"
"""The dtype of what has no tensor to be seen."""


def identify(matrices: Iterable[Placed], parameters: int | None = None) -> Identity:
    """The identity of an open engine.

    Args:
        matrices: what stands in it for each matrix of the model.
        parameters: of the whole model, tied ones once; ``None`` if that is not known.
    """
    schemes, storage, kernels, decode = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    weights, bits = 0, 0.0
    for placed in matrices:
        if not placed.is_matrix:
            continue
        storage[_storage(placed)] += 1
        module, size = placed.module, placed.weight.numel()
        if not isinstance(module, QuantizedLinear):
            continue
        schemes[str(module.scheme)] += 1
        weights, bits = weights + size, bits + size * PlacedLayer(placed, Execute(execution=None)).bits
        for counts, tokens in ((kernels, PREFILL), (decode, 1)):
            if (name := _kernel(module, placed.weight, tokens)) is not None:
                counts[name] += 1
    return Identity(
        schemes=_sorted(schemes),
        storage=_sorted(storage),
        kernels=_sorted(kernels),
        decode={} if decode == kernels else _sorted(decode),
        share=None if not parameters else weights / parameters,
        bits=bits / weights if weights else None,
    )


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _storage(placed: Placed) -> str:
    """The dtype of the largest tensor that holds a matrix."""
    module = placed.module
    if isinstance(module, QuantizedLinear) and module.kernel is not None:
        held = module.packed_tensors()
    else:
        held = [weight] if isinstance(weight := getattr(module, "weight", None), Tensor) else []
    largest = max(held, key=lambda tensor: tensor.nbytes, default=None)
    return UNKNOWN if largest is None else str(largest.dtype).removeprefix("torch.")


def _kernel(module: QuantizedLinear, weight: Tensor, tokens: int) -> str | None:
    """The name of what multiplies so many tokens; ``None`` if torch does, or nothing can."""
    if module.kernel is None:
        return None
    x = weight.new_empty(1).expand(tokens, module.in_features)  # Of one number: only its shape is looked at.
    try:
        return module.kernel_for(x).name
    except UnsupportedError:
        return None
