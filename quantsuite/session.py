"""Cells of a run, measured one after the other on one loaded model."""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property

from quantsuite.asked import Asked
from quantsuite.checks.in_place import Execute
from quantsuite.engine import Backend, Engine, open_backend
from quantsuite.engine.registry import close_backend, packages
from quantsuite.environment import describe_environment, resolve_device
from quantsuite.evaluate.engines import Held
from quantsuite.evaluate.reading import DataError
from quantsuite.in_place import Placed
from quantsuite.inventory import identify
from quantsuite.kernels.user import UserKernels
from quantsuite.layer import UnsupportedError
from quantsuite.methods import MethodError
from quantsuite.metrics import Divergences, Items, Perplexities, metric
from quantsuite.plan import Plan
from quantsuite.quantize import MODEL_DTYPES
from quantsuite.records import Environment, Identity, Record, Subject
from quantsuite.scheme import DTYPES, REFERENCE, Scheme, Variant
from quantsuite.tasks import Opened, Prepared, Sources, Task
from quantsuite.tasks.measuring import Against


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A task under a scheme in an execution."""

    task: Task
    variant: Variant

    @property
    def label(self) -> str:
        return self.variant.label

    def asked(self, model: str) -> Asked:
        """The cell as records of a model name it."""
        return model, self.task.label.name, str(self.variant.scheme), self.variant.execution or ""

    def __str__(self) -> str:
        return f"{self.task.name}-{self.label}"


def make_cells(tasks: Sequence[Task], variants: Iterable[Variant]) -> list[Cell]:
    """Every task under every variant, variant by variant; what is compared with simulated execution of real ones."""
    cells = [Cell(task=task, variant=variant) for variant in variants for task in tasks]
    return [cell for cell in cells if cell.task.against == "reference" or cell.variant.execution == "real"]


class Session:
    """Loads a model once and measures cells on it.

    Args:
        model: as the engine takes it.
        engine: name of what runs it.
        device: as torch names it, or ``auto``.
        dtype: of the reference: ``bf16``, ``fp16`` or ``fp32``.
        sources: the data.
        include_head: quantize the output head too.
        methods: places of a user's methods, which schemes may name.
        plans: measured for the schemes that they are named by.
        kernels: where kernels are, as :func:`quantsuite.kernels.loading.load` takes it; if any is given, real
            execution multiplies by them alone.
        finished: records of an earlier run, reused where nothing that they depend on has changed.

    Attributes:
        progress: called with the cell that is measured, how much is done and how much there is.

    Raises:
        ValueError: if the device is not there, or a kernel cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        *,
        engine: str = "transformers",
        device: str = "auto",
        dtype: str = DTYPES[0],
        sources: Sources,
        include_head: bool = False,
        methods: Sequence[str] = (),
        plans: Sequence[Plan] = (),
        kernels: Sequence[str] = (),
        finished: Sequence[Record] = (),
    ) -> None:
        self._name, self._device, self._dtype, self._sources = model, resolve_device(device), dtype, sources
        self._engine_name, self._include_head, self._methods = engine, include_head, methods
        self._plans = {plan.scheme: plan for plan in plans}
        self._kernels = UserKernels(kernels, MODEL_DTYPES[dtype]) if kernels else None
        self.progress: Callable[[Cell, int, int], None] = lambda cell, done, total: None
        self._finished = {record.key: record for record in finished if record.measured}
        self._opened: Backend | Exception | None = None
        self._prepared: dict[str, Prepared] = {}
        self._misfits: dict[Variant, str | None] = {}
        self._unquantized: dict[Scheme, float] = {}
        self._current: tuple[Variant, Engine] | None = None
        self._identities: dict[Variant, Identity | None] = {}
        self._evaluated: list[tuple[Prepared, Items, float]] = []
        self._current_stack, self._reference_stack = ExitStack(), ExitStack()
        self._open_reference: Engine | None = None

    @property
    def backend(self) -> Backend:
        """The loaded model; one that cannot be loaded is tried once, and fails each time with the same error.

        Raises:
            ValueError: if there is no such engine, or the model cannot be loaded.
        """
        if self._opened is None:
            try:
                self._opened = open_backend(self._engine_name, self._name, device=self._device, dtype=self._dtype)
            except Exception as error:
                self._opened = error
        if isinstance(self._opened, Exception):
            raise self._opened
        return self._opened

    @cached_property
    def _environment(self) -> Environment:
        return describe_environment(self._device, self._dtype, packages=packages(self._engine_name))

    def close(self) -> None:
        """Leave the engines that are open, and let the model go."""
        self._leave()
        self._reference_stack.close()
        self._open_reference = None
        if self._opened is not None and not isinstance(self._opened, Exception):
            close_backend(self._opened)

    def _leave(self) -> None:
        self._current_stack.close()
        self._current = None
        self._identities.clear()
        self._evaluated.clear()

    def _engine(self, variant: Variant) -> Engine:
        """The engine of a variant, which stays open until another one's is asked for."""
        if self._current is None or self._current[0] != variant:
            self._leave()
            plan, kernel = self._plan(variant.scheme), self.kernel(variant)
            opened = self.backend.engine(plan, variant.execution, include_head=self._include_head, kernel=kernel)
            self._current = variant, self._current_stack.enter_context(opened)
        return self._current[1]

    @property
    def kernel_names(self) -> dict[str, list[str]]:
        """Of the kernels that were given, by place."""
        return {} if self._kernels is None else self._kernels.names

    def kernel(self, variant: Variant) -> str | None:
        """Name of the given kernel that multiplies, or ``None`` if it is for the engine to choose.

        Raises:
            UnsupportedError: if kernels are given, and none claims the scheme.
        """
        if self._kernels is None or variant.execution != "real":
            return None
        return self._kernels.of(variant.scheme)

    def _reference(self) -> Engine:
        """The engine of the model as it is, beside that of a variant."""
        if self._open_reference is None:
            self._open_reference = Held(self._reference_stack.enter_context(self.backend.engine(REFERENCE, None)))
        return self._open_reference

    def _simulated(self, variant: Variant) -> Engine:
        """The engine of a real variant's scheme in simulated execution, beside the variant's own, until that is left.

        Raises:
            UnsupportedError: if the variant is not real, or the scheme cannot be simulated.
        """
        if variant.execution != "real":
            raise UnsupportedError(f"{variant.label} is not real, and has no simulated execution to be compared with")
        simulated = Variant(variant.scheme, "simulated")
        if (reason := self.misfit(simulated)) is not None:
            raise UnsupportedError(f"{simulated.label}: {reason}")
        plan = self._plan(variant.scheme)
        opened = self.backend.engine(plan, "simulated", include_head=self._include_head, kernel=None)
        return self._current_stack.enter_context(opened)

    def _open(self, cell: Cell) -> Opened:
        """The engine of a cell, and what its task measures it against.

        Raises:
            UnsupportedError: if the task is of layers, and the engine shows none.
        """
        variant, kind = cell.variant, cell.task.kind
        if kind == "drift":
            return self._compared(variant, cell.task.against)
        if kind != "layers":
            return Opened(engine=self._engine(variant))
        if (matrices := self._matrices(variant)) is None:
            raise UnsupportedError(f"the engine {self._engine_name} shows no layers that could be checked in place")
        engine = self._engine(variant)
        how = Execute(execution=variant.execution, kernel=self.kernel(variant), seed=self._sources.seed)
        return Opened(engine=engine, matrices=matrices, how=how)

    def _matrices(self, variant: Variant) -> Sequence[Placed] | None:
        """What stands for each matrix of the model in a variant's engine; ``None`` if the engine does not show it."""
        if (show := getattr(self.backend, "matrices", None)) is None:
            return None
        return show(self._engine(variant), self._plan(variant.scheme), include_head=self._include_head)

    def identity(self, variant: Variant) -> Identity | None:
        """What stands in a variant's engine, counted once while it is open; ``None`` if the engine does not show it."""
        self._engine(variant)
        if variant not in self._identities:
            matrices = self._matrices(variant)
            parameters = getattr(self.backend, "parameters", None)
            self._identities[variant] = None if matrices is None else identify(matrices, parameters)
        return self._identities[variant]

    def _compared(self, variant: Variant, against: Against = "reference") -> Opened:
        """The engine of a variant beside the one that its predictions are compared with."""
        engine = self._engine(variant)
        if against == "simulated":
            return Opened(reference=self._simulated(variant), engine=engine)
        return Opened(reference=self._reference(), engine=engine, is_reference=variant.execution is None)

    def _plan(self, scheme: Scheme) -> Plan | Scheme:
        """The plan of a scheme that a plan is named by, or that names a method, made once; else the scheme.

        Raises:
            ValueError: if the method cannot make it, or the engine makes none.
        """
        if scheme.method is not None and scheme not in self._plans:
            make = getattr(self.backend, "plan", None)
            if make is None:
                raise UnsupportedError(
                    f"{scheme}: the engine {self._engine_name} makes no plans; drop @{scheme.method}, or give a saved "
                    "one with --plan"
                )
            self._plans[scheme] = make(scheme, methods=self._methods, include_head=self._include_head)
        return self._plans.get(scheme, scheme)

    def blank(self, cell: Cell, test: str) -> Record:
        """The record of a cell that was not measured."""
        opened, variant = None if isinstance(self._opened, Exception) else self._opened, cell.variant
        kernel = self._kernel_or_none(variant) or ""
        return Record(
            test=test,
            outcome="error",
            task=cell.task.label,
            subject=Subject(
                model=self._name,
                model_sha256=opened.model_sha256 if opened else "",
                scheme=str(variant.scheme),
                execution=variant.execution,
                plan=self._plans[variant.scheme].sha256 if variant.scheme in self._plans else "",
                engine=self._engine_name,
                head=self._include_head,
                kernel=kernel,
                kernel_sha256=self._kernels.sha256[kernel] if self._kernels and kernel else "",
            ),
            environment=self._environment,
            reason="not measured",
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    def _kernel_or_none(self, variant: Variant) -> str | None:
        with suppress(UnsupportedError):
            return self.kernel(variant)
        return None

    @property
    def context(self) -> int | None:
        """The longest context of the model in tokens, or ``None`` if there is no limit."""
        return self.backend.max_length

    def prepare(self, task: Task) -> Prepared:
        """A task with its data loaded, once.

        Raises:
            DataError: if the data is not to be had.
        """
        if task.name not in self._prepared:
            self._prepared[task.name] = task.prepare(self.backend.tokenizer, self._sources, self.context or 2048)
        return self._prepared[task.name]

    def misfit(self, variant: Variant) -> str | None:
        """Why a scheme cannot be executed so on this model and device, or ``None`` if it can."""
        execution = variant.execution
        if execution is None:
            return None
        if variant not in self._misfits:
            try:
                plan, kernel = self._plan(variant.scheme), self.kernel(variant)
                reason = self.backend.unsupported(plan, execution, include_head=self._include_head, kernel=kernel)
            except (MethodError, UnsupportedError) as error:
                reason = str(error)
            self._misfits[variant] = reason
        return self._misfits[variant]

    def unquantized(self, scheme: Scheme) -> float:
        """The share of all parameters that a scheme leaves in the model's dtype.

        Raises:
            UnsupportedError: if that is more than embeddings, norms, biases, routers and the head.
        """
        if scheme not in self._unquantized:
            shares = self.backend.unquantized(self._plan(scheme), include_head=self._include_head)
            self._unquantized[scheme] = sum(shares.values())
        return self._unquantized[scheme]

    def measure(self, cell: Cell, test: str) -> Record:
        """The record of a cell: an earlier one if it is still valid, else a new one.

        Raises:
            DataError: if the data is not to be had.
            UnsupportedError: if the scheme cannot run so on this device or does not fit a layer, the model's context
                does not hold the items, or the tokenizer lacks what the recipe needs.
            ValueError: if the model cannot be loaded.
        """
        if (reason := self.misfit(cell.variant)) is not None:
            raise UnsupportedError(reason)
        prepared = self.prepare(cell.task)
        if self.context is not None and prepared.longest > self.context:
            raise UnsupportedError(
                f"{cell.task.name} reads {prepared.longest:,} tokens at once, the context holds {self.context:,}"
            )
        record = self.blank(cell, test)
        earlier = self._finished.get(record.key)
        wanted = {**record.conditions, "dataset": prepared.dataset}
        # Layers are checked for the code that runs, of which a record says nothing; a kernel's name says no more.
        reusable = cell.task.kind != "layers" and not record.subject.kernel
        if earlier is not None and reusable and _is_still_valid(earlier, record, wanted):
            return earlier
        try:
            items, seconds = self._evaluate(cell, prepared)
            result = prepared.summarize(items)
        except DataError as error:
            raise UnsupportedError(f"{self._name} with {cell.task.name}: {error}") from error
        except ValueError as error:
            if record.subject.kernel and record.subject.kernel not in str(error):
                raise ValueError(f"{error} (products by the kernel {record.subject.kernel})") from error
            raise
        fields = {name: getattr(record, name) for name in ("task", "subject", "environment", "created")}
        return Record(
            test=test,
            outcome="passed",
            dataset=prepared.dataset,
            value=result.value,
            details=result.details,
            items=result.items,
            seconds=seconds,
            weight_bytes=self.backend.weight_bytes(self._engine(cell.variant)),
            unquantized=1.0 if cell.variant.execution is None else self.unquantized(cell.variant.scheme),
            identity=self.identity(cell.variant),
            **fields,
        )

    def _evaluate(self, cell: Cell, prepared: Prepared) -> tuple[Items, float]:
        """What the variant's engine yields, and the seconds it took: once for tasks that differ in the metric alone."""
        self._engine(cell.variant)  # What another one yielded is forgotten.
        for earlier, items, seconds in self._evaluated:
            if prepared.yields_as(earlier):
                return items, seconds

        def progress(done: int, total: int) -> None:
            self.progress(cell, done, total)

        begin = time.perf_counter()
        both = self._text_and_drift(prepared) if cell.variant.execution is not None else ()
        if both:
            found = prepared.evaluate_with_drift(self._compared(cell.variant), progress)
        else:
            both, found = (prepared,), (prepared.evaluate(self._open(cell), progress),)
        seconds = time.perf_counter() - begin
        self._evaluated += [(each, items, seconds) for each, items in zip(both, found, strict=True)]
        return found[both.index(prepared)], seconds

    def _text_and_drift(self, prepared: Prepared) -> tuple[Prepared, ...]:
        """The task of likelihoods and that of divergences from the reference, if one pass of a text serves both."""
        kinds = (Perplexities, Divergences)
        alike = [each for each in self._prepared.values() if each.against == prepared.against == "reference"]
        by_kind = [[each for each in alike if metric(each.metric).items is kind] for kind in kinds]
        for pair in itertools.product(*by_kind):
            if any(each is prepared for each in pair) and pair[0].reads_as(pair[1]):
                return pair
        return ()


def _is_still_valid(earlier: Record, record: Record, conditions: Mapping[str, object]) -> bool:
    return earlier.conditions == conditions and earlier.subject == record.subject and earlier.task == record.task
