"""The tensors in whatever a kernel keeps of a weight: found, counted, and exchanged for others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn


def _parts(packed: object) -> Iterator[tuple[str, Any]]:
    """The named parts of a container or of a plain object, of one level."""
    if isinstance(packed, Mapping):
        yield from ((str(key), value) for key, value in packed.items())
    elif isinstance(packed, tuple | list):
        yield from ((str(place), value) for place, value in enumerate(packed))
    elif not isinstance(packed, nn.Module | type):
        yield from getattr(packed, "__dict__", {}).items()


def named_tensors(packed: object, name: str = "packed") -> Iterator[tuple[str, Tensor]]:
    """All tensors in lists, tuples, mappings, plain objects and modules, with names made of their places."""
    if isinstance(packed, Tensor):
        yield name, packed
    elif isinstance(packed, nn.Module):
        for place, tensor in (*packed.named_parameters(), *packed.named_buffers()):
            yield f"{name}_{place.replace('.', '_')}", tensor
    else:
        for place, value in _parts(packed):
            yield from named_tensors(value, f"{name}_{place}")


def map_tensors(packed: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with each tensor changed; modules in it are changed themselves."""
    if isinstance(packed, Tensor):
        return change(packed)
    if isinstance(packed, nn.Module):
        return packed._apply(change)
    changed = {name: map_tensors(value, change) for name, value in _parts(packed)}
    if isinstance(packed, Mapping):
        return type(packed)(zip(packed, changed.values(), strict=True))  # type: ignore[call-arg]
    if isinstance(packed, tuple | list):
        named = hasattr(packed, "_fields")
        return type(packed)(*changed.values()) if named else type(packed)(changed.values())
    if all(value is getattr(packed, name) for name, value in changed.items()):
        return packed
    other = copy.copy(packed)
    for name, value in changed.items():
        object.__setattr__(other, name, value)
    return other


def _plain_tensors(packed: object) -> Iterator[Tensor]:
    """As :func:`named_tensors`, with the tensors that a subclass is made of in its place."""
    for _, tensor in named_tensors(packed):
        if hasattr(tensor, "__tensor_flatten__"):
            yield from _plain_tensors([getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]])
        else:
            yield tensor


def nbytes(packed: object) -> int:
    """Bytes of all tensors in what a kernel keeps, each storage once."""
    storages = {}
    for tensor in _plain_tensors(packed):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
