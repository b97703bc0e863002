"""The pytest side: options, cells as parameters, fixtures.

Loaded in every pytest run of the environment, so torch is imported only once a test asks for a cell.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from tqdm import tqdm

from quantsuite.collector import Collector, NumericsCollector, TerminalFile, earlier_run
from quantsuite.margins import add_margin_options
from quantsuite.records import ERROR, RECORD, ErrorPoint, Record, RecordError

if TYPE_CHECKING:
    from quantsuite.session import Cell, Session

pytest_plugins = ["quantsuite.conformance.plugin"]

EXECUTION_NAMES = ("simulated", "real")

settings.register_profile(
    "ci", max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile("ci")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; give names separated by commas")
    return names


def _executions(text: str) -> list[str]:
    names = _names(text)
    if unknown := [name for name in names if name not in EXECUTION_NAMES]:
        raise argparse.ArgumentTypeError(f"unknown execution {unknown[0]!r}; use {' or '.join(EXECUTION_NAMES)}")
    return names


def _limit(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"limit {text!r} is not a number of items; use 0 for all")
    return int(text)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("quantsuite", "accuracy of quantized language models")
    add = group.addoption
    add("--model", default="tiny", help="hub id, checkpoint folder, tiny, or tiny-outliers (default: tiny)")
    add("--scheme", type=_names, default=["all"], help="schemes, separated by commas (default: all, the catalogue)")
    add(
        "--execution",
        type=_executions,
        default=list(EXECUTION_NAMES),
        help="simulated, real, or both (default: simulated,real)",
    )
    add("--task", type=_names, default=None, help="tasks, separated by commas, such as wikitext2/window2048,mmlu")
    add("--limit", type=_limit, default=0, help="questions drawn, or first windows taken; 0 for all (default: 0)")
    add("--seed", type=int, default=42, help="seed of the draw of questions and of random tensors (default: 42)")
    add("--device", default="auto", help="as torch names it (default: cuda if there is one, else cpu)")
    add("--dtype", choices=["bf16", "fp16", "fp32"], default="bf16", help="of the reference (default: bf16)")
    add("--include-head", action="store_true", help="quantize the output head too")
    add("--wikitext", default="Salesforce/wikitext", help="WikiText-2: hub id or folder of a local copy")
    add("--mmlu", default="cais/mmlu", help="MMLU: hub id or folder of a local copy")
    add("--output", type=Path, default=Path("reports/accuracy.json"), help="run file (default: reports/accuracy.json)")
    add(
        "--numerics-output",
        type=Path,
        default=Path("reports/numerics.json"),
        help="run file of checked properties and measured errors (default: reports/numerics.json)",
    )
    add("--fresh", action="store_true", help="measure everything anew instead of reusing finished records")
    add(
        "--gate",
        nargs="?",
        const="worse",
        choices=["worse", "strict"],
        help="fail if a cell is worse than its baseline; strict: also if undecided. Put it last, or write --gate=worse",
    )
    add("--baseline", default=None, help="baseline run file, or bf16 (default: reports/baselines/<model>.json)")
    add_margin_options(add)


COLLECTOR = pytest.StashKey[Collector]()


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("scheme") != ["all"] or config.getoption("task"):
        _cells(config)
    if config.getoption("model") and not hasattr(config, "workerinput"):
        config.stash[COLLECTOR] = Collector(config)
        config.pluginmanager.register(config.stash[COLLECTOR], "quantsuite.collector")
        config.pluginmanager.register(NumericsCollector(config), "quantsuite.numerics")


def pytest_report_header(config: pytest.Config) -> str:
    option = config.getoption
    data = f"limit {option('limit') or 'none'}, seed {option('seed')}, output {option('output')}"
    return f"quantsuite: model {option('model')}, device {option('device')}, dtype {option('dtype')}, {data}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("cells")
    if "cell" not in metafunc.fixturenames or marker is None:
        return
    try:
        earlier_run(metafunc.config)
    except RecordError as error:
        raise pytest.Collector.CollectError(str(error)) from error
    cells = [cell for cell in _cells(metafunc.config) if cell.task.kind == marker.args[0]]
    metafunc.parametrize("cell", [pytest.param(cell, id=str(cell)) for cell in cells], scope="session")


def _cells(config: pytest.Config) -> list[Cell]:
    """The cells that the options name.

    Raises:
        pytest.UsageError: if a scheme or task is unknown.
    """
    from quantsuite.session import make_cells, parse_schemes
    from quantsuite.tasks import default_tasks, select_tasks

    option = config.getoption
    try:
        tasks = select_tasks(option("task")) if option("task") else default_tasks(option("model"))
        return make_cells(tasks, parse_schemes(option("scheme"), option("execution")))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Cells scheme by scheme, so that a model is quantized once for all of its tasks.

    Tests of a kind of which the run has no task are deselected; tests of what was measured come last.
    """
    labels = {id(item): _cell_label(item) for item in items}
    empty = [item for item in items if labels[id(item)] == ""]
    if empty:
        config.hook.pytest_deselected(items=empty)
    order = {label: place for place, label in enumerate(dict.fromkeys(labels.values()))}
    cells = (item for item in items if labels[id(item)])
    ordered = iter(sorted(cells, key=lambda item: order[labels[id(item)]]))
    items[:] = [next(ordered) if labels[id(item)] else item for item in items if labels[id(item)] != ""]
    items.sort(key=lambda item: "measured_so_far" in getattr(item, "fixturenames", ()))


def _cell_label(item: pytest.Item) -> str | None:
    """The label of a test's cell, empty if there is none to run, ``None`` if the test takes no cell of the run."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or item.get_closest_marker("cells") is None:
        return None
    return getattr(callspec.params["cell"], "label", "")


@pytest.fixture(scope="session")
def quantsuite_session(pytestconfig: pytest.Config) -> Iterator[Session]:
    """The loaded model of the run and its data."""
    from quantsuite.session import Session
    from quantsuite.tasks import Sources

    option = pytestconfig.getoption
    bar = _progress_bar(TerminalFile(pytestconfig))
    session = Session(
        option("model"),
        device=option("device"),
        dtype=option("dtype"),
        sources=Sources(wikitext=option("wikitext"), mmlu=option("mmlu"), limit=option("limit"), seed=option("seed")),
        include_head=option("include_head"),
        finished=() if option("fresh") else earlier_run(pytestconfig).records,
        progress=bar,
    )
    yield session
    session.close()


def _progress_bar(file: TextIO | Any) -> Callable[[str, int, int], None]:
    bars: dict[str, tqdm] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = tqdm(total=total, desc=what, file=file, leave=False, disable=not file.isatty())
        bars[what].update(done - bars[what].n)
        if done == total:
            bars.pop(what).close()

    return report


@pytest.fixture
def measured(cell: Cell, quantsuite_session: Session, request: pytest.FixtureRequest) -> Record:
    """The record of the test's cell, attached to the test's report."""
    from quantsuite.evaluate.data import MissingDataError
    from quantsuite.linear import UnsupportedError

    def attach(record: Record) -> Record:
        request.node.user_properties.append((RECORD, msgspec.json.encode(record).decode()))
        return record

    test = request.node.nodeid
    blank = attach(quantsuite_session.blank(cell, test))
    try:
        return attach(quantsuite_session.measure(cell, test))
    except UnsupportedError as error:
        attach(msgspec.structs.replace(blank, outcome="unsupported", reason=str(error)))
        pytest.skip(f"not supported: {error}")
    except MissingDataError as error:
        pytest.skip(str(error))


@pytest.fixture
def measured_so_far(request: pytest.FixtureRequest) -> list[Record]:
    """The records that this run has collected until now (none of them in an xdist worker)."""
    collector = request.config.stash.get(COLLECTOR, None)
    return list(collector.records.values()) if collector else []


@pytest.fixture
def record_error(request: pytest.FixtureRequest) -> Callable[[ErrorPoint], None]:
    """Attaches a measured error to the test's report."""
    return lambda point: request.node.user_properties.append((ERROR, msgspec.json.encode(point).decode()))
