"""The pytest side: options, cells as parameters, the collector of records, the gate at the end.

Loaded in every pytest run of the environment, so torch is imported only once a test asks for a cell.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from tqdm import tqdm

from quantsuite.margins import Margins, add_margin_options
from quantsuite.records import (
    ERROR,
    PROPERTY,
    RECORD,
    ErrorPoint,
    PropertyResult,
    Record,
    RecordError,
    Run,
    differences_with_model,
    read_run,
    write_run,
)

if TYPE_CHECKING:
    from quantsuite.gate import GateResult
    from quantsuite.session import Cell, Session

pytest_plugins = ["quantsuite.conformance.plugin"]

NOT_RUN = ("not supported", "not applicable")
NUMERICS = {PROPERTY: PropertyResult, ERROR: ErrorPoint}
EXECUTION_NAMES = ("simulated", "real")
BASELINES = Path("reports/baselines")

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


class NumericsCollector:
    """Gathers checked properties and measured errors from test reports, and writes them as the run ends.

    Earlier ones are kept if this run did not repeat them.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._path: Path = config.getoption("numerics_output")
        self._chosen: list[str] = config.getoption("kernel")
        self._not_run: dict[str, str | None] = {}
        self._properties: dict[tuple[str, ...], PropertyResult] = {}
        self._errors: dict[tuple[object, ...], ErrorPoint] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name in NUMERICS:
                found = msgspec.json.decode(value, type=NUMERICS[name])
                kept: dict[Any, Any] = self._properties if isinstance(found, PropertyResult) else self._errors
                kept[found.key] = found

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not (self._properties or self._errors):
            return
        results = self._properties.values()
        ran = {result.contestant for result in results if result.outcome not in NOT_RUN}
        self._not_run = {result.contestant: result.reason for result in results if result.contestant not in ran}
        if self._chosen and results and not ran and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        earlier = read_run(self._path) if self._path.exists() else Run()
        properties = {result.key: result for result in earlier.properties} | self._properties
        errors = {point.key: point for point in earlier.errors} | self._errors
        write_run(self._path, earlier.records, properties=list(properties.values()), errors=list(errors.values()))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._properties or self._errors:
            terminalreporter.write_line(f"numerics: {self._path}\nreport:   python -m quantsuite report {self._path}")
        for name, reason in self._not_run.items() if self._chosen else ():
            terminalreporter.write_line(f"no check of {name} ran: {reason}")


class Collector:
    """Gathers records from test reports, on the controller under xdist, and writes them as they come.

    Raises:
        pytest.UsageError: if the run is to be compared with a baseline that cannot be read.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._path: Path = config.getoption("output")
        self._replaced: bytes | None = None
        self._set_aside: Path | None = None
        self._baseline = _baseline(config)
        self.records: dict[tuple[str, str, str, str], Record] = {}
        self.gate: GateResult | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = [value for name, value in report.user_properties if name == RECORD]
        if not found or report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        record = msgspec.json.decode(found[-1], type=Record)
        if record.items is None or not report.passed:
            outcome = "unsupported" if record.outcome == "unsupported" else _outcome(report)
            record = msgspec.structs.replace(record, outcome=outcome, reason=_reason(report, record))
        if not self.records and self._path.exists():
            self._replaced = self._path.read_bytes()
        self.records[record.cell] = record
        earlier = earlier_run(self._config)
        records = {each.cell: each for each in earlier.records if self._is_kept(each)} | self.records
        if self._set_aside is None and self._replaced is not None and _loses(earlier, records):
            self._set_aside = self._path.with_stem(f"{self._path.stem}-{datetime.datetime.now():%Y%m%dT%H%M%S}")
            self._set_aside.write_bytes(self._replaced)
        write_run(self._path, list(records.values()), properties=earlier.properties, errors=earlier.errors)

    def _is_kept(self, record: Record) -> bool:
        """Whether an earlier record stays beside this run's: of another model, or of this one as it is measured now."""
        ours = next(iter(self.records.values()))
        if record.subject.model != ours.subject.model:
            return record.measured
        return record.subject.model_sha256 == ours.subject.model_sha256 and record.environment == ours.environment

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        mode = self._config.getoption("gate")
        if mode is None or self._config.getoption("collectonly"):
            return
        from quantsuite.gate import gate, gate_against_reference

        records, margins = list(self.records.values()), _margins(self._config)
        if self._baseline is None:
            self.gate = gate_against_reference(records, mode=mode, margins=margins)
        else:
            self.gate = gate(records, self._baseline, mode=mode, margins=margins)
        if not self.gate.passed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.records and self.gate is None:
            return
        from rich.console import Console

        from quantsuite.reporting import gate_summary, terminal_summary

        console = Console(file=_TerminalFile(self._config), width=max(100, terminalreporter._tw.fullwidth))
        if self.records:
            console.print(terminal_summary(list(self.records.values()), _margins(self._config)))
            console.print(f"records: {self._path}\nreport:  python -m quantsuite report {self._path}", highlight=False)
        if self._set_aside is not None:
            console.print(f"earlier: {self._set_aside}, with records that this run replaced", highlight=False)
        if self.gate is not None:
            console.print(gate_summary(self.gate))


def _baseline(config: pytest.Config) -> list[Record] | None:
    """The model's records that the run's are compared with; ``None`` without a gate, or if it is against bf16."""
    baseline, model = config.getoption("baseline"), config.getoption("model")
    if config.getoption("gate") is None or baseline == "bf16":
        return None
    path = Path(baseline) if baseline else BASELINES / f"{Path(model).name}.json"
    try:
        return [record for record in read_run(path).records if record.subject.model == model]
    except RecordError as error:
        raise pytest.UsageError(f"--gate: {error}. Copy a reviewed run file of the same command there") from error


def _loses(earlier: Run, records: Mapping[tuple[str, str, str, str], Record]) -> bool:
    """Whether something that was measured earlier is in none of the records, nor was measured again alike."""
    return earlier is UNREADABLE or any(
        record.measured
        and not (
            record.cell in records
            and records[record.cell].measured
            and not differences_with_model(records[record.cell], record)
        )
        for record in earlier.records
    )


def _margins(config: pytest.Config) -> Margins:
    return Margins(accuracy=config.getoption("accuracy_margin"), log_perplexity=config.getoption("perplexity_margin"))


def _outcome(report: pytest.TestReport) -> Any:
    if hasattr(report, "wasxfail"):
        return "xfailed"
    if report.skipped:
        return "skipped"
    return "error" if report.when == "setup" or report.passed else "failed"


def _reason(report: pytest.TestReport, record: Record) -> str | None:
    if record.outcome == "unsupported":
        return record.reason
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash is not None else record.reason


class _TerminalFile:
    """What writes to the terminal also while pytest captures output."""

    def __init__(self, config: pytest.Config) -> None:
        self._writer = config.get_terminal_writer()

    def write(self, text: str) -> int:
        self._writer.write(text, flush=True)
        return len(text)

    def flush(self) -> None:
        self._writer.flush()

    def isatty(self) -> bool:
        return sys.__stdout__ is not None and sys.__stdout__.isatty()


COLLECTOR = pytest.StashKey[Collector]()
EARLIER = pytest.StashKey[Run]()
UNREADABLE = Run()
"""What a run file that cannot be read holds, as far as a run with ``--fresh`` goes."""


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("scheme") != ["all"] or config.getoption("task"):
        _cells(config)
    if config.getoption("model") and not hasattr(config, "workerinput"):
        config.stash[COLLECTOR] = Collector(config)
        config.pluginmanager.register(config.stash[COLLECTOR], "quantsuite.collector")
        config.pluginmanager.register(NumericsCollector(config), "quantsuite.numerics")


def earlier_run(config: pytest.Config) -> Run:
    """The output file as the run began.

    Raises:
        RecordError: if it cannot be read and the run is not ``--fresh``.
    """
    if EARLIER not in config.stash:
        path: Path = config.getoption("output")
        try:
            config.stash[EARLIER] = read_run(path) if path.exists() else Run()
        except RecordError:
            if not config.getoption("fresh"):
                raise
            config.stash[EARLIER] = UNREADABLE
    return config.stash[EARLIER]


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
    bar = _progress_bar(_TerminalFile(pytestconfig))
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
