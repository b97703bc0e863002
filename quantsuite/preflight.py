"""What makes a whole run impossible, found before anything is measured."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from quantsuite import methods
from quantsuite.cells import Cell, make_cells
from quantsuite.engine.registry import context_length
from quantsuite.layer import UnsupportedError
from quantsuite.metrics import metric
from quantsuite.options import RunOptions
from quantsuite.plan import Plan
from quantsuite.plan_files import read_document
from quantsuite.records import Record
from quantsuite.runfile import RunFile
from quantsuite.scheme import Scheme, Variant, parse_variants
from quantsuite.session import Session
from quantsuite.tasks import Sources, Task, default_tasks, select_tasks, shipped_tasks


class RunError(ValueError):
    """A run that cannot be made; the message says why in one line, and the way out."""


def plan_cells(options: RunOptions) -> list[Cell]:
    """The cells of a run, scheme by scheme; of the model only the configuration is read.

    Raises:
        ValueError: if a scheme, its method, a task or the engine is unknown, the model is not to be had, or a folder
            holds no plan.
        MarginError: if a margin is of no task's metric.
        RunError: if the model's context cannot hold a task that was named, or none of the tasks has a dataset that was.
    """
    for variant in parse_variants(options.schemes, options.execution):
        if variant.scheme.method is not None:
            methods.find(variant.scheme.method, options.method)
    _require_methods(options)
    variants = parse_variants([*options.schemes, *_plan_names(options)], options.execution)
    named = select_tasks(options.task) if options.task else None
    context = context_length(options.engine, options.model)
    tasks = default_tasks(options.model, context) if named is None else named
    _require_datasets(options, tasks)
    options.margins.check(metric(task.metric) for task in tasks)
    for task in tasks:
        _require_context(task, task.context, context, options.model)
    return make_cells(tasks, variants)


def _require_methods(options: RunOptions) -> None:
    """Each method that is given is one that a scheme names."""
    schemes = [variant.scheme for variant in parse_variants(options.schemes, options.execution)]
    for place in options.method:
        name = methods.load(place).name
        if name not in {scheme.method for scheme in schemes}:
            example = next(
                (replace(scheme, method=name) for scheme in schemes if not scheme.is_reference), f"int8-row@{name}"
            )
            raise RunError(
                f"--method {place}: no scheme of this run names {name!r}; write for example --scheme {example}"
            )


def _plan_names(options: RunOptions) -> list[str]:
    """The names of ``--plan``'s plans, each of which is one scheme's in the run."""
    variants = parse_variants(options.schemes, options.execution)
    named = {variant.scheme: f"--scheme {variant.scheme}" for variant in variants}
    own = []
    for folder in options.plan:
        scheme = Scheme.parse(read_document(Path(folder)).scheme)
        if scheme.is_reference:
            raise RunError(f"--plan {folder}: {scheme} is the reference's name; save a plan named such as bf16@mine")
        if scheme in named:
            raise RunError(
                f"--plan {folder} is named {scheme}, as {named[scheme]} is; measure them in runs of their own"
            )
        named[scheme] = f"--plan {folder}"
        own.append(str(scheme))
    return own


def _require_datasets(options: RunOptions, tasks: Sequence[Task]) -> None:
    """``--dataset`` names datasets of the run's tasks."""
    used = dict.fromkeys(task.dataset.name for task in tasks)
    known = used | dict.fromkeys(task.dataset.name for task in shipped_tasks().values())
    for name, place in options.dataset:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise RunError(f"--dataset {name}={place}: no task has a dataset {name!r}; {hint}known: {', '.join(known)}")
        if name not in used:
            raise RunError(
                f"--dataset {name}={place} is of no effect: the tasks of this run use {', '.join(used)}; choose a "
                f"task of {name} with --task, or leave it away"
            )


def _require_context(task: Task, needed: int, context: int | None, model: str) -> None:
    if context is not None and needed > context:
        fitting = [
            name for name, other in shipped_tasks().items() if other.context <= context and other.kind == task.kind
        ]
        raise RunError(
            f"{task.name} reads {needed:,} tokens at once, the context of {model} holds {context:,}; "
            f"use --task {','.join(fitting) or 'of another kind'}"
        )


def _require_claims(session: Session, named: Sequence[Variant]) -> None:
    """A kernel that was named implements the schemes that were named, where these are to be real."""
    for variant in named:
        try:
            session.model.kernel(variant)
        except UnsupportedError as error:
            raise RunError(str(error)) from error


def _require_use(session: Session, cells: Sequence[Cell]) -> None:
    """A kernel that was named multiplies in some cell."""
    used: set[str | None] = set()
    for variant in dict.fromkeys(cell.variant for cell in cells):
        with suppress(UnsupportedError):
            used.add(session.model.kernel(variant))
    for location, names in session.model.kernel_names.items():
        if not used & {*names}:
            others = ", ".join(sorted(name for name in used if name)) or "none"
            raise RunError(
                f"--kernel {location}: {', '.join(names)} multiplies in no cell of this run, where {others} does; name "
                "schemes that it alone claims, in real execution"
            )


def open_session(options: RunOptions, cells: Sequence[Cell], *, finished: Sequence[Record] = ()) -> Session:
    """The loaded model with the data of its cells.

    Args:
        options: of the run.
        cells: what will be measured.
        finished: records of an earlier run, reused where they are still valid.

    Raises:
        RecordError: if the output cannot be written.
        RunError: if a scheme, a plan or a task that was named does not fit the model.
        ValueError: if the device is not there, the model cannot be loaded, or a plan was changed.
        DataError: if a dataset is not to be had.
    """
    RunFile(options.output).check_writable()
    session = Session(
        options.model,
        engine=options.engine,
        device=options.device,
        dtype=options.dtype,
        sources=Sources(places=options.places, limit=options.limit, seed=options.seed),
        include_head=options.include_head,
        methods=options.method,
        plans=[Plan.load(folder) for folder in options.plan],
        kernels=options.kernel,
        finished=finished,
    )
    if quantized := next((cell.variant for cell in cells if cell.variant.execution), None):
        session.model.unquantized(quantized.scheme)
    names = [name for name in options.schemes if name != "all"]
    named = parse_variants([*names, *_plan_names(options)], options.execution)
    _require_claims(session, named)
    _require_use(session, cells)
    for scheme in dict.fromkeys(variant.scheme for variant in named):
        reasons = [session.model.misfit(variant) for variant in named if variant.scheme == scheme]
        if all(reasons):
            raise RunError(f"{scheme} cannot be measured on {options.model}: {reasons[0]}")
    for task in {cell.task.name: cell.task for cell in cells}.values():
        longest = session.prepare(task).longest
        if options.task:
            _require_context(task, longest, session.context, options.model)
    return session
