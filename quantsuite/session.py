"""Cells of a run, measured one after the other on one loaded model."""

from __future__ import annotations

import copy
import datetime
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, cached_property

import torch

from quantsuite.adapters.loading import CheckpointError, LoadedModel, load_model
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.evaluate.data import DataError
from quantsuite.linear import UnsupportedError, check_supported, misfits, quantized, unquantized, weight_bytes
from quantsuite.records import Environment, Record, Subject
from quantsuite.scheme import CATALOGUE, DTYPES, EXECUTIONS, REFERENCE, Execution, Scheme, parse_alias
from quantsuite.tasks import Prepared, Sources, Task

PACKAGES = ("quantsuite", "torch", "transformers", "datasets", "tokenizers", "numpy", "scipy")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A task under a scheme; the reference has no execution."""

    task: Task
    scheme: Scheme
    execution: Execution | None

    @property
    def label(self) -> str:
        return str(self.scheme) if self.execution is None else f"{self.scheme}-{self.execution}"

    def __str__(self) -> str:
        return f"{self.task.name}-{self.label}"


def parse_schemes(names: Iterable[str], executions: Sequence[Execution]) -> list[tuple[Scheme, Execution | None]]:
    """Schemes with their executions, the reference first whether it is named or not.

    A course report's name that ends in ``_Fake`` or ``_Real`` brings its own execution; ``all``
    stands for the catalogue.

    Raises:
        ValueError: if a name is no scheme.
    """
    pairs: dict[tuple[Scheme, Execution | None], None] = {(REFERENCE, None): None}
    for name in names:
        own = parse_alias(name)
        for scheme in CATALOGUE if name == "all" else (Scheme.parse(name),):
            if scheme.is_reference:
                continue
            for execution in (own[1],) if own and own[1] else executions:
                pairs[scheme, execution] = None
    return list(pairs)


def make_cells(tasks: Sequence[Task], pairs: Iterable[tuple[Scheme, Execution | None]]) -> list[Cell]:
    """Every task under every scheme, scheme by scheme."""
    return [Cell(task=task, scheme=scheme, execution=execution) for scheme, execution in pairs for task in tasks]


@cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def resolve_device(device: str) -> str:
    """``auto`` is the accelerator if there is one, else the CPU; a named device is taken at its word.

    Raises:
        ValueError: if a named device is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=device).item()  # A device that computes: "meta" makes tensors too.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {device!r} is not usable: {str(error).splitlines()[0]}; use --device cpu") from error
    return device


def describe_environment(device: str, dtype: str) -> Environment:
    """The environment of a record made on a device."""
    on_gpu = device.startswith("cuda")
    processor = platform.processor() or platform.machine()
    return Environment(
        device=torch.cuda.get_device_name(device) if on_gpu else device,
        dtype=dtype,
        versions=_versions(),
        hardware=torch.cuda.get_device_name(device)
        if on_gpu
        else f"{processor}, {torch.backends.cpu.get_cpu_capability()}",
        threads=torch.get_num_threads(),
    )


class Session:
    """Loads a model once and measures cells on it.

    Args:
        model: as :func:`~quantsuite.adapters.loading.load_model` takes it.
        device: as torch names it, or ``auto``.
        dtype: of the reference: ``bf16``, ``fp16`` or ``fp32``.
        sources: the data.
        include_head: quantize the output head too.
        finished: records of an earlier run, reused where nothing that they depend on has changed.

    Attributes:
        progress: called with the cell that is measured, how much is done and how much there is.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = DTYPES[0],
        sources: Sources,
        include_head: bool = False,
        finished: Sequence[Record] = (),
    ) -> None:
        self._name, self._device, self._dtype, self._sources = model, resolve_device(device), dtype, sources
        self._include_head = include_head
        self.progress: Callable[[Cell, int, int], None] = lambda cell, done, total: None
        self._finished = {record.key: record for record in finished if record.measured}
        self._loaded: LoadedModel | CheckpointError | None = None
        self._prepared: dict[str, Prepared] = {}
        self._misfits: dict[Scheme, str | None] = {}
        self._current: tuple[Scheme, Execution | None] = (REFERENCE, None)
        self._stack = ExitStack()

    @property
    def loaded(self) -> LoadedModel:
        """The model; one that cannot be loaded is tried once, and fails each time with the same error.

        Raises:
            CheckpointError: if the model cannot be loaded.
        """
        if self._loaded is None:
            try:
                self._loaded = load_model(self._name, device=self._device, dtype=self._dtype)
            except CheckpointError as error:
                self._loaded = error
        if isinstance(self._loaded, CheckpointError):
            raise self._loaded
        return self._loaded

    @cached_property
    def _environment(self) -> Environment:
        return describe_environment(self._device, self._dtype)

    @cached_property
    def _engine(self) -> TransformersEngine:
        return TransformersEngine(self.loaded.model)

    @cached_property
    def _reference_engine(self) -> TransformersEngine:
        """The untouched model beside the one whose layers are exchanged; weights are shared."""
        self.close()
        memo = {id(tensor): tensor for tensor in (*self.loaded.model.parameters(), *self.loaded.model.buffers())}
        return TransformersEngine(copy.deepcopy(self.loaded.model, memo))

    def close(self) -> None:
        """Undo the quantization that is in place."""
        self._stack.close()
        self._current = (REFERENCE, None)

    def _select(self, scheme: Scheme, execution: Execution | None) -> None:
        if self._current != (scheme, execution):
            self.close()
            assert execution is not None or scheme.is_reference
            self._stack.enter_context(
                quantized(self.loaded.model, scheme, execution or EXECUTIONS[0], include_head=self._include_head)
            )
            self._current = (scheme, execution)

    def blank(self, cell: Cell, test: str) -> Record:
        """The record of a cell that was not measured."""
        loaded = self._loaded if isinstance(self._loaded, LoadedModel) else None
        return Record(
            test=test,
            outcome="error",
            task=cell.task.label,
            subject=Subject(
                model=self._name,
                model_sha256=loaded.sha256 if loaded else "",
                scheme=str(cell.scheme),
                execution=cell.execution,
                engine=TransformersEngine.name,
                head=self._include_head,
            ),
            environment=self._environment,
            reason="not measured",
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    @property
    def context(self) -> int | None:
        """The longest context of the model in tokens, or ``None`` if there is no limit."""
        return self._engine.max_length

    def prepare(self, task: Task) -> Prepared:
        """A task with its data loaded, once.

        Raises:
            DataError: if the data is not to be had.
        """
        if task.name not in self._prepared:
            self._prepared[task.name] = task.prepare(self.loaded.tokenizer, self._sources, self.context or 2048)
        return self._prepared[task.name]

    def misfit(self, scheme: Scheme, execution: Execution | None) -> str | None:
        """Why a scheme cannot be executed so on this model and device, or ``None`` if it can."""
        if execution is None:
            return None
        try:
            check_supported(scheme, execution, self._device)
        except UnsupportedError as error:
            return str(error)
        if scheme not in self._misfits:
            self.close()  # Layers that are quantized already would not be seen.
            self._misfits[scheme] = misfits(self.loaded.model, scheme, self._include_head)
        return self._misfits[scheme]

    @cached_property
    def unquantized(self) -> dict[str, float]:
        """What every scheme leaves in the model's dtype, as shares of all parameters by kind.

        Raises:
            UnsupportedError: if that is more than embeddings, norms, biases, routers and the head.
        """
        self.close()
        return unquantized(self.loaded.model, self._include_head)

    def measure(self, cell: Cell, test: str) -> Record:
        """The record of a cell: an earlier one if it is still valid, else a new one.

        Raises:
            DataError: if the data is not to be had.
            UnsupportedError: if the scheme cannot run so on this device or does not fit a layer, the model's context
                does not hold the items, or the tokenizer lacks what the recipe needs.
            CheckpointError: if the model cannot be loaded.
        """
        if (reason := self.misfit(cell.scheme, cell.execution)) is not None:
            raise UnsupportedError(reason)
        prepared = self.prepare(cell.task)
        if self.context is not None and prepared.longest > self.context:
            raise UnsupportedError(
                f"{cell.task.name} reads {prepared.longest:,} tokens at once, the context holds {self.context:,}"
            )
        record = self.blank(cell, test)
        earlier = self._finished.get(record.key)
        wanted = {**record.conditions, "dataset": prepared.dataset}
        if earlier is not None and earlier.conditions == wanted and earlier.subject == record.subject:
            return earlier
        reference = self._reference_engine if cell.task.kind == "drift" else None
        self._select(cell.scheme, cell.execution)
        begin = time.perf_counter()
        try:
            result = prepared.measure(self._engine, reference, lambda done, total: self.progress(cell, done, total))
        except DataError as error:
            raise UnsupportedError(f"{self._name} with {cell.task.name}: {error}") from error
        fields = {name: getattr(record, name) for name in ("task", "subject", "environment", "created")}
        return Record(
            test=test,
            outcome="passed",
            dataset=prepared.dataset,
            value=result.value,
            details=result.details,
            items=result.items,
            seconds=time.perf_counter() - begin,
            weight_bytes=weight_bytes(self.loaded.model),
            unquantized=1.0 if cell.execution is None else sum(self.unquantized.values()),
            **fields,
        )
