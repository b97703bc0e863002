"""The tensors in whatever a kernel keeps of a weight: found, counted, and exchanged for others."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from types import ModuleType
from typing import Any

import msgspec
from torch import Tensor, nn


def _attributes(packed: object) -> Iterator[tuple[str, Any]]:
    """What a plain object holds, in its ``__dict__`` and in its slots, as a ``msgspec.Struct`` does."""
    yield from getattr(packed, "__dict__", {}).items()
    for kind in type(packed).__mro__:
        for name, member in vars(kind).items() if "__slots__" in vars(kind) else ():
            if inspect.ismemberdescriptor(member) and hasattr(packed, name):
                yield name, getattr(packed, name)


def _parts(packed: object) -> Iterator[tuple[str, Any]]:
    """The named parts of a container or of a plain object, of one level."""
    if isinstance(packed, Mapping):
        yield from ((str(key), value) for key, value in packed.items())
    elif isinstance(packed, tuple | list):
        yield from ((str(place), value) for place, value in enumerate(packed))
    elif not isinstance(packed, nn.Module | type | ModuleType):
        yield from _attributes(packed)


def named_tensors(packed: object, name: str = "packed") -> Iterator[tuple[str, Tensor]]:
    """All tensors in lists, tuples, mappings, plain objects and modules, with names made of their places.

    What is met a second time, as in a cycle, is named after its first place only; a tensor, after each.
    """
    return _named_tensors(packed, name, set())


def _named_tensors(packed: object, name: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(packed, Tensor):
        yield name, packed
    elif id(packed) in seen:
        return
    elif isinstance(packed, nn.Module):
        for place, tensor in (*packed.named_parameters(), *packed.named_buffers()):
            yield f"{name}_{place.replace('.', '_')}", tensor
    else:
        seen.add(id(packed))
        for place, value in _parts(packed):
            yield from _named_tensors(value, f"{name}_{place}", seen)


def map_tensors(packed: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with each tensor changed; modules in it are changed themselves."""
    return _map_tensors(packed, change, {})


def _map_tensors(packed: Any, change: Callable[[Tensor], Tensor], done: dict[int, Any]) -> Any:
    if isinstance(packed, Tensor):
        return change(packed)
    if id(packed) in done:
        return done[id(packed)]
    if isinstance(packed, nn.Module):
        done[id(packed)] = packed._apply(change)
    elif next(named_tensors(packed), None) is None:
        done[id(packed)] = packed
    elif isinstance(packed, tuple):
        values = [_map_tensors(value, change, done) for value in packed]
        done[id(packed)] = type(packed)(*values) if hasattr(packed, "_fields") else type(packed)(values)
    elif isinstance(packed, Mapping) and not isinstance(packed, MutableMapping):
        values = [_map_tensors(value, change, done) for value in packed.values()]
        done[id(packed)] = type(packed)(dict(zip(packed, values, strict=True)))  # type: ignore[call-arg]
    else:
        # What refers back to the object finds its copy, which is filled after.
        other = done[id(packed)] = copy.copy(packed)
        _fill(other, packed, lambda value: _map_tensors(value, change, done))
    return done[id(packed)]


def _fill(other: Any, packed: Any, change: Callable[[Any], Any]) -> None:
    """Set the parts of a copy to the changed ones of the original, frozen or not."""
    if isinstance(packed, MutableMapping):
        other.update({key: change(value) for key, value in packed.items()})
    elif isinstance(packed, list):
        other[:] = [change(value) for value in packed]
    else:
        assign = msgspec.structs.force_setattr if isinstance(packed, msgspec.Struct) else object.__setattr__
        for name, value in list(_attributes(packed)):
            assign(other, name, change(value))


def plain_tensors(packed: object) -> Iterator[Tensor]:
    """As :func:`named_tensors`, with the tensors that a subclass is made of in its place."""
    for _, tensor in named_tensors(packed):
        if hasattr(tensor, "__tensor_flatten__"):
            yield from plain_tensors([getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]])
        else:
            yield tensor


def nbytes(packed: object) -> int:
    """Bytes of all tensors in what a kernel keeps, each storage once."""
    storages = {}
    for tensor in plain_tensors(packed):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
