"""Cells of a run, measured one after the other on one loaded model."""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property

from quantsuite.cells import Cell
from quantsuite.checks.in_place import Execute
from quantsuite.engine.registry import packages
from quantsuite.environment import describe_environment, resolve_device
from quantsuite.evaluate.reading import DataError
from quantsuite.layer import UnsupportedError
from quantsuite.loaded import LoadedModel
from quantsuite.metrics import Divergences, Items, Perplexities, metric
from quantsuite.plan import Plan
from quantsuite.records import Environment, Record, Subject
from quantsuite.scheme import DTYPES, Variant
from quantsuite.tasks import Opened, Prepared, Sources, Task
from quantsuite.tasks.measuring import Against


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
        model: under each variant.
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
        self._device, self._dtype, self._sources = resolve_device(device), dtype, sources
        self.model = LoadedModel(
            model,
            engine=engine,
            device=self._device,
            dtype=dtype,
            include_head=include_head,
            methods=methods,
            plans=plans,
            kernels=kernels,
        )
        self.progress: Callable[[Cell, int, int], None] = lambda cell, done, total: None
        self._finished = {record.key: record for record in finished if record.measured}
        self._prepared: dict[str, Prepared] = {}
        self._evaluated: tuple[Variant | None, list[tuple[Prepared, Items, float]]] = None, []

    @cached_property
    def _environment(self) -> Environment:
        return describe_environment(self._device, self._dtype, packages=packages(self.model.engine_name))

    def close(self) -> None:
        """Leave the engines that are open, and let the model go."""
        self.model.close()

    def _open(self, cell: Cell) -> Opened:
        """The engine of a cell, and what its task measures it against.

        Raises:
            UnsupportedError: if the task is of layers, and the engine shows none.
        """
        variant, kind = cell.variant, cell.task.kind
        if kind == "drift":
            return self._compared(variant, cell.task.against)
        if kind != "layers":
            return Opened(engine=self.model.engine(variant))
        if (matrices := self.model.matrices(variant)) is None:
            raise UnsupportedError(
                f"the engine {self.model.engine_name} shows no layers that could be checked in place"
            )
        engine = self.model.engine(variant)
        how = Execute(execution=variant.execution, kernel=self.model.kernel(variant), seed=self._sources.seed)
        return Opened(reference=self.model.reference(), engine=engine, matrices=matrices, how=how)

    def _compared(self, variant: Variant, against: Against = "reference") -> Opened:
        """The engine of a variant beside the one that its predictions are compared with."""
        engine = self.model.held(variant)
        if against == "simulated":
            return Opened(reference=self.model.simulated(variant), engine=engine)
        return Opened(reference=self.model.reference(), engine=engine, is_reference=variant.execution is None)

    def blank(self, cell: Cell, test: str) -> Record:
        """The record of a cell that was not measured."""
        model, variant = self.model, cell.variant
        kernel = self._kernel_or_none(variant) or ""
        return Record(
            test=test,
            outcome="error",
            task=cell.task.label,
            subject=Subject(
                model=model.name,
                model_sha256=model.sha256,
                scheme=str(variant.scheme),
                execution=variant.execution,
                plan=model.plan_sha256(variant.scheme),
                engine=model.engine_name,
                head=model.include_head,
                kernel=kernel,
                kernel_sha256=model.kernel_sha256(kernel),
            ),
            environment=self._environment,
            reason="not measured",
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    def _kernel_or_none(self, variant: Variant) -> str | None:
        with suppress(UnsupportedError):
            return self.model.kernel(variant)
        return None

    @property
    def context(self) -> int | None:
        """The longest context of the model in tokens, or ``None`` if there is no limit."""
        return self.model.backend.max_length

    def prepare(self, task: Task) -> Prepared:
        """A task with its data loaded, once.

        Raises:
            DataError: if the data is not to be had.
        """
        if task.name not in self._prepared:
            self._prepared[task.name] = task.prepare(self.model.backend.tokenizer, self._sources, self.context or 2048)
        return self._prepared[task.name]

    def measure(self, cell: Cell, test: str) -> Record:
        """The record of a cell: an earlier one if it is still valid, else a new one.

        Raises:
            DataError: if the data is not to be had.
            UnsupportedError: if the scheme cannot run so on this device or does not fit a layer, the model's context
                does not hold the items, or the tokenizer lacks what the recipe needs.
            ValueError: if the model cannot be loaded.
        """
        if (reason := self.model.misfit(cell.variant)) is not None:
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
            raise UnsupportedError(f"{self.model.name} with {cell.task.name}: {error}") from error
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
            weight_bytes=self.model.backend.weight_bytes(self.model.engine(cell.variant)),
            unquantized=1.0 if cell.variant.execution is None else self.model.unquantized(cell.variant.scheme),
            identity=self.model.identity(cell.variant),
            **fields,
        )

    def _evaluate(self, cell: Cell, prepared: Prepared) -> tuple[Items, float]:
        """What the variant's engine yields, and the seconds it took: once for tasks that differ in the metric alone."""
        variant, evaluated = self._evaluated
        if variant != cell.variant:
            evaluated = []
            self._evaluated = cell.variant, evaluated
        for earlier, items, seconds in evaluated:
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
        evaluated += [(each, items, seconds) for each, items in zip(both, found, strict=True)]
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
