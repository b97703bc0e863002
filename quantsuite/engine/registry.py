"""Engines by name: built in, or of installed packages that offer one under ``quantsuite.engines``."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast

from quantsuite.engine.backend import Backend, OpensBackends
from quantsuite.engine.protocol import Engine
from quantsuite.environment import resolve_device
from quantsuite.scheme import DTYPES

if TYPE_CHECKING:
    from quantsuite.scheme import Execution

GROUP = "quantsuite.engines"
BUILT_IN = {"transformers": "quantsuite.adapters.backend:TransformersBackend"}


def _entries() -> dict[str, EntryPoint]:
    """By name; an installed package cannot take the name of a built-in engine."""
    own = {name: EntryPoint(name=name, value=value, group=GROUP) for name, value in BUILT_IN.items()}
    return {entry.name: entry for entry in entry_points(group=GROUP)} | own


def _entry(name: str) -> EntryPoint:
    entries = _entries()
    if name not in entries:
        close = difflib.get_close_matches(name, entries, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"unknown engine {name!r}; {hint}known: {', '.join(entries)} (packages add theirs as entry points {GROUP})"
        )
    return entries[name]


def _load(name: str) -> OpensBackends:
    entry = _entry(name)
    try:
        return cast(OpensBackends, entry.load())
    except Exception as error:  # A module of anyone's raises what it likes while it is imported.
        reason = " ".join(str(error).split())
        raise ValueError(f"the engine {name!r} ({entry.value}) cannot be imported: {reason}") from error


def packages(name: str) -> tuple[str, ...]:
    """The distribution that offers an engine, as records give its version; none for a built-in one.

    Raises:
        ValueError: if there is no such engine.
    """
    distribution = _entry(name).dist
    return () if distribution is None else (distribution.name,)


def context_length(name: str, model: str) -> int | None:
    """The longest context of a model before it is loaded; ``None`` for no limit, and where an engine does not say.

    Raises:
        ValueError: if there is no such engine, or the model is not to be had.
    """
    ask = getattr(_load(name), "context_length", None)
    return None if ask is None else ask(model)


def open_backend(name: str, model: str, *, device: str = "auto", dtype: str = DTYPES[0]) -> Backend:
    """Load a model with an engine.

    Args:
        name: ``transformers``, or what an installed package offers under ``quantsuite.engines``.
        model: what the engine takes; of ``transformers`` a hub id, a folder, ``tiny`` or ``tiny-outliers``.
        device: as torch names it, or ``auto``.
        dtype: of the reference: ``bf16``, ``fp16`` or ``fp32``.

    Raises:
        ValueError: if there is no such engine or device, or the model cannot be loaded.
    """
    return _load(name)(model, device=resolve_device(device), dtype=dtype)


@contextmanager
def open_engine(
    name: str,
    model: str,
    plan: Any,
    *,
    execution: Execution | None,
    device: str = "auto",
    dtype: str = DTYPES[0],
    include_head: bool = False,
    kernel: str | None = None,
) -> Iterator[Engine]:
    """A model under a plan, inside the ``with`` block.

    Args:
        name: as :func:`open_backend` takes it, as ``model``, ``device`` and ``dtype`` are.
        model: to load.
        plan: how weights and activations are represented.
        execution: simulated or real; ``None`` for the model as it is loaded.
        device: where it runs.
        dtype: of the reference.
        include_head: quantize the output head too.
        kernel: name of the one that multiplies in real execution, or ``None`` for the engine's own.

    Raises:
        ValueError: as :func:`open_backend`.
        UnsupportedError: if the plan cannot run so on this device, or does not fit the model.
    """
    backend = open_backend(name, model, device=device, dtype=dtype)
    try:
        with backend.engine(plan, execution, include_head=include_head, kernel=kernel) as engine:
            yield engine
    finally:
        close_backend(backend)


def close_backend(backend: Backend) -> None:
    """Let a model go, if its backend holds more than Python's memory."""
    if hasattr(backend, "close"):
        backend.close()
