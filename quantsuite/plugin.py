"""The pytest side: options, cells as parameters, fixtures.

torch is imported only once a test asks for a cell.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from quantsuite.collector import Collector, NumericsCollector, earlier_run
from quantsuite.lines import encode_line
from quantsuite.margins import MarginError, Margins
from quantsuite.options import PREFIX, RunOptions, add_options
from quantsuite.progress import Progress
from quantsuite.quiet import quiet
from quantsuite.records import RESULT, ErrorPoint, Record
from quantsuite.refusal import refusal, refused
from quantsuite.requirements.plugin import RequirementsSummary, parametrize
from quantsuite.scheme import REFERENCE_NAME

if TYPE_CHECKING:
    from quantsuite.cells import Cell
    from quantsuite.session import Session

pytest_plugins = ["quantsuite.conformance.plugin", "quantsuite.profiles"]

CELLS = pytest.StashKey["list[Cell] | ValueError"]()
SESSION = pytest.StashKey["Session"]()
COLLECTOR = pytest.StashKey[Collector]()
PROGRESS = pytest.StashKey[Progress]()
LEFT: list[str] = []
"""Short options that another plugin owns."""
NEEDS_ALL = "measured_so_far"
LEFT_OVER = pytest.StashKey[list[str]]()
AFTERWARDS = "quantsuite_afterwards"
"""Under what xdist's workers name the tests that need the records of all of them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    groups = [parser._anonymous, *parser._groups]
    taken = {name for group in groups for option in group.options for name in option.names()}
    LEFT[:] = add_options(parser.getgroup(PREFIX, "quantized language models").addoption, taken=taken)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cells(kind): parametrize with the run's cells of a kind of task")
    options = RunOptions.read(config.option)
    if options.baseline and not options.gate:
        raise pytest.UsageError(f"--baseline {options.baseline} is of no effect without a gate; add --gate=worse")
    if options.gate_complete and (not options.gate or options.baseline == REFERENCE_NAME):
        raise pytest.UsageError("--gate-complete is of no effect without a gate against a baseline; add --gate=worse")
    try:
        options.check_margins()
    except MarginError as error:
        raise pytest.UsageError(str(error)) from error
    if _is_worker(config):
        _share_threads(int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    else:
        config.stash[COLLECTOR] = Collector(config)
        config.stash[PROGRESS] = Progress(config, options, config.stash[COLLECTOR])
        summaries = NumericsCollector(options), RequirementsSummary(config)
        for plugin in (config.stash[COLLECTOR], config.stash[PROGRESS], *summaries):
            config.pluginmanager.register(plugin)


def pytest_report_header(config: pytest.Config) -> list[str]:
    options = RunOptions.read(config.option)
    data = f"limit {options.limit or 'none'}, seed {options.seed}, output {options.output}"
    model = textwrap.shorten(ascii(options.model)[1:-1], 80, placeholder="...")
    lines = [f"quantsuite: model {model}, device {options.device}, dtype {options.dtype}, {data}"]
    if LEFT:
        long = ", ".join(f"--{PREFIX}-{short[2:]}" for short in LEFT)
        lines.append(f"quantsuite: {', '.join(LEFT)} of another plugin or conftest.py; for ours use {long}")
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "requirement" in metafunc.fixturenames:
        parametrize(metafunc, _cells(metafunc.config))
    marker = metafunc.definition.get_closest_marker("cells")
    if "cell" not in metafunc.fixturenames or marker is None:
        return
    found = _cells(metafunc.config)
    if isinstance(found, ValueError):
        metafunc.parametrize("cell", [refused(found)], scope="session")
    else:
        cells = [cell for cell in found if cell.task.kind == marker.args[0]]
        metafunc.parametrize("cell", [pytest.param(cell, id=str(cell)) for cell in cells], scope="session")


def _cells(config: pytest.Config) -> list[Cell] | ValueError:
    """The cells that the options name, or the reason why there can be none."""
    with quiet():
        from quantsuite.preflight import plan_cells
    if CELLS not in config.stash:
        try:
            config.stash[CELLS] = plan_cells(RunOptions.read(config.option))
        except Exception as error:
            config.stash[CELLS] = _in_one_line(config, error)
    return config.stash[CELLS]


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Cells scheme by scheme, so that a model is quantized once for all of its tasks.

    Tests of a kind of which the run has no task are deselected; tests of what was measured come last, and under
    xdist are left to the controller.  What was refused stays, whatever else is selected.
    """
    stands_for_error = [item for item in items if refusal([item.nodeid])]
    items[:] = [item for item in items if item not in stands_for_error]
    labels = {id(item): _cell_label(item) for item in items}
    left = [item for item in items if labels[id(item)] == ""]
    if _is_worker(config):
        last = [item for item in items if _needs_all(item)]
        config.workeroutput[AFTERWARDS] = [f"{item.path}::{item.name}" for item in last]
        left += last
    if left:
        config.hook.pytest_deselected(items=left)
    order = {label: place for place, label in enumerate(dict.fromkeys(labels.values()))}
    cells = iter(sorted((item for item in items if labels[id(item)]), key=lambda item: order[labels[id(item)]]))
    items[:] = [next(cells) if labels[id(item)] else item for item in items if item not in left]
    items.sort(key=_needs_all)
    yield
    items[:0] = stands_for_error


def _needs_all(item: pytest.Item) -> bool:
    return NEEDS_ALL in getattr(item, "fixturenames", ())


def _cell_label(item: pytest.Item) -> str | None:
    """The label of a test's cell, empty if there is none to run, ``None`` if the test takes no cell of the run."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or item.get_closest_marker("cells") is None:
        return None
    return getattr(callspec.params["cell"], "label", "")


def pytest_collection_finish(session: pytest.Session) -> None:
    """What makes the whole run impossible ends it here, before anything is measured."""
    config = session.config
    if SESSION in config.stash or _is_worker(config):
        return
    labels = {item.nodeid: label for item in session.items if (label := _cell_label(item))}
    _prepare(config, [item.nodeid for item in session.items], labels)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """The same on the controller, which collects nothing itself and keeps no model."""
    config: pytest.Config = node.config
    parts = {name: name.rpartition("[")[2].removesuffix("]") for name in ids}
    if config.stash[PROGRESS].expects_cells:
        return
    cells = _cells(config) if any("/" in part for part in parts.values()) else []
    known = {} if isinstance(cells, ValueError) else {str(cell): cell.label for cell in cells}
    _prepare(config, ids, {name: known[part] for name, part in parts.items() if part in known})
    if SESSION in config.stash:
        config.stash[SESSION].close()
        del config.stash[SESSION]


def _prepare(config: pytest.Config, ids: list[str], labels: dict[str, str]) -> None:
    """Try what the tests need, and load the model if there are cells among them.

    Args:
        config: of the run.
        ids: of the tests.
        labels: of those that measure a cell, the scheme and its execution.

    Raises:
        pytest.UsageError: in one line, if the run cannot be made.
    """
    if message := refusal(ids):
        raise pytest.UsageError(message)
    output = RunOptions.read(config.option).output
    if output != RunOptions().output and not labels and any("[" in name and "conformance" in name for name in ids):
        raise pytest.UsageError(
            f"--output {output} is of records of models, and none is measured here; of checks give --numerics-output"
        )
    config.stash[PROGRESS].expect(labels)
    if labels and not isinstance(cells := _cells(config), ValueError):
        config.stash[COLLECTOR].asked = {cell.asked(RunOptions.read(config.option).model) for cell in cells}
    if config.option.collectonly:
        return
    try:
        if labels:
            config.stash[SESSION] = _open_session(config)
    except Exception as error:
        raise pytest.UsageError(str(_in_one_line(config, error))) from error


def _open_session(config: pytest.Config) -> Session:
    from quantsuite.preflight import open_session

    cells, options = _cells(config), RunOptions.read(config.option)
    if isinstance(cells, ValueError):
        raise cells
    finished = () if options.fresh else earlier_run(config).records
    return open_session(options, cells, finished=finished)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the tests that the workers left to the controller."""
    left = getattr(node, "workeroutput", {}).get(AFTERWARDS, [])
    node.config.stash.setdefault(LEFT_OVER, []).extend(left)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[object]:
    done = yield
    left = dict.fromkeys(session.config.stash.get(LEFT_OVER, []))
    for item in session.perform_collect(list(left)) if left else ():
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    return done


@pytest.fixture(scope="session")
def quantsuite_session(pytestconfig: pytest.Config) -> Iterator[Session]:
    """The loaded model of the run and its data."""
    if SESSION not in pytestconfig.stash:
        pytestconfig.stash[SESSION] = _open_session(pytestconfig)
    session = pytestconfig.stash[SESSION]
    if PROGRESS in pytestconfig.stash:
        session.progress = pytestconfig.stash[PROGRESS].show
    yield session
    session.close()


@pytest.fixture
def measured(cell: Cell, quantsuite_session: Session, request: pytest.FixtureRequest) -> Record:
    """The record of the test's cell, attached to the test's report."""
    from quantsuite.linear import UnsupportedError

    def attach(record: Record) -> Record:
        request.node.user_properties.append((RESULT, encode_line(record).decode()))
        return record

    test = request.node.nodeid
    blank = attach(quantsuite_session.blank(cell, test))
    try:
        return attach(quantsuite_session.measure(cell, test))
    except UnsupportedError as error:
        attach(msgspec.structs.replace(blank, outcome="unsupported", reason=str(error)))
        ending = pytest.skip.Exception(f"not supported: {error}")
    except Exception as error:
        ending = pytest.fail.Exception(str(_in_one_line(request.config, error)), pytrace=False)
    raise ending


@pytest.fixture
def measured_so_far(request: pytest.FixtureRequest) -> list[Record]:
    """The records that this run has collected until now; under xdist only the controller has them."""
    return list(request.config.stash[COLLECTOR].records.values())


@pytest.fixture
def margins(pytestconfig: pytest.Config) -> Margins:
    """The losses that count as none in this run."""
    return RunOptions.read(pytestconfig.option).margins


@pytest.fixture
def record_error(request: pytest.FixtureRequest) -> Callable[[ErrorPoint], None]:
    """Attaches a measured error to the test's report."""
    return lambda point: request.node.user_properties.append((RESULT, encode_line(point).decode()))


def _in_one_line(config: pytest.Config, error: Exception) -> ValueError:
    """Any error as one that a user reads: messages of this package as they are, others with their type.

    With ``--full-trace`` it is raised as it came.
    """
    if config.option.fulltrace:
        raise error
    first = (str(error).splitlines() or [""])[0]
    return ValueError(first if isinstance(error, ValueError) else f"{type(error).__name__}: {first}")


def _share_threads(workers: int) -> None:
    """Leave each worker its share of the processor's threads, unless the environment says how many there are."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    share = max(1, (os.cpu_count() or 1) // workers)
    os.environ["OMP_NUM_THREADS"] = str(share)  # Of what the worker starts, and of torch if it is not imported yet.
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(share)


def _is_worker(config: pytest.Config) -> bool:
    """Whether this is a process of pytest-xdist that runs tests for another."""
    return hasattr(config, "workerinput")
