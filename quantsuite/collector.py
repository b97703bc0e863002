"""What a pytest run gathers from its tests' reports: records and checked properties, the run files, the gate."""

from __future__ import annotations

import math
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from quantsuite.lines import decode_line
from quantsuite.metrics import metric
from quantsuite.options import RunOptions
from quantsuite.reading import ContentError, read_run
from quantsuite.records import RESULT, ErrorPoint, Key, PropertyResult, Record, RecordError, Result, Run
from quantsuite.reporting.checked import checked_kernels, reason_unchecked
from quantsuite.runfile import RunFile
from quantsuite.scheme import REFERENCE_NAME
from quantsuite.tiny import embedded_baseline

if TYPE_CHECKING:
    from quantsuite.asked import Asked
    from quantsuite.gate import GateResult

NOT_RUN = ("not supported", "not applicable")
BASELINES = Path("reports/baselines")
EARLIER = pytest.StashKey[Run]()
NUMERICS_INTERVAL = 1.0
"""Seconds of results, of which there are thousands, that a run that is killed may lose."""


def earlier_run(config: pytest.Config) -> Run:
    """The output file as the run began.

    Raises:
        RecordError: if it is no file, or is unreadable and the run is not ``--fresh``.
    """
    if EARLIER not in config.stash:
        options = RunOptions.read(config.option)
        path = options.output
        try:
            config.stash[EARLIER] = read_run(path, purpose="output") if path.exists() else Run()
        except ContentError:
            if not options.fresh:
                raise
            config.stash[EARLIER] = Run()
    return config.stash[EARLIER]


def results_of(report: pytest.TestReport) -> list[Result]:
    """What a test measured, attached to its report as lines of a run file."""
    return [decode_line(value) for name, value in report.user_properties if name == RESULT]


class Output:
    """The run file of a pytest run.  What cannot be written ends the run with one line, told once.

    Args:
        file: where it is written.
        interval: seconds between two writes, at least; what comes sooner waits for the next.
    """

    def __init__(self, file: RunFile, *, interval: float = 0.0) -> None:
        self._file, self._interval = file, interval
        self._pending: list[Result] = []
        self._written_at, self._told = -math.inf, ""

    @property
    def moved(self) -> list[Path]:
        """What could not be read, where it is now."""
        return self._file.moved

    def add(self, result: Result) -> None:
        """Append what is new, if it is time.

        Raises:
            pytest.exit.Exception: if it cannot be written, since what is measured from here on would be lost.
        """
        self._pending.append(result)
        if time.monotonic() - self._written_at < self._interval:
            return
        try:
            self._write()
        except RecordError as error:
            self._told = str(error)
            pytest.exit(self._told)

    def finish(self, session: pytest.Session) -> None:
        """Append what waits, or what an interrupt or an error kept from being written."""
        if not self._pending:
            return
        try:
            self._write()
        except RecordError as error:
            session.exitstatus = session.exitstatus or pytest.ExitCode.INTERRUPTED
            if str(error) != self._told:
                session.config.get_terminal_writer().line(str(error))

    def _write(self) -> None:
        self._file.append(self._pending)
        self._pending, self._written_at = [], time.monotonic()


class NumericsCollector:
    """Gathers checked properties and measured errors from test reports, and writes them as they come.

    A file that cannot be read is moved aside.
    """

    def __init__(self, options: RunOptions) -> None:
        self._path = options.numerics_output
        file = RunFile(self._path, move_unreadable=True, option="--numerics-output")
        self._output = Output(file, interval=NUMERICS_INTERVAL)
        self._chosen = options.kernel
        self._require_all = options.require_all
        self._not_run: dict[str, str | None] = {}
        self._results: dict[object, PropertyResult | ErrorPoint] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for found in results_of(report) if report.when == "call" else ():
            if not isinstance(found, Record):
                self._results[found.key] = found
                self._output.add(found)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._results:
            return
        self._output.finish(session)
        results = self._properties
        ran = {result.contestant for result in results if result.outcome not in NOT_RUN}
        self._not_run = {result.contestant: result.reason for result in results if result.contestant not in ran}
        missed = self._require_all and any(map(reason_unchecked, results))
        if (missed or (self._chosen and results and not ran)) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @property
    def _properties(self) -> list[PropertyResult]:
        return [result for result in self._results.values() if isinstance(result, PropertyResult)]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._results:
            terminalreporter.write_line(f"numerics: {self._path}\nreport:   python -m quantsuite report {self._path}")
        for name, reason in self._not_run.items() if self._chosen else ():
            terminalreporter.write_line(f"no check of {name} ran: {reason}")
        found = [each for each in checked_kernels(self._properties) if each.total]
        for kernel in found if self._chosen or self._require_all else ():
            terminalreporter.write_line("\n".join(kernel.lines()))
        missed = [kernel.kernel for kernel in found if not kernel.is_complete]
        if self._require_all and missed:
            terminalreporter.write_line(f"--require-all: not all properties were checked of {', '.join(missed)}")


class Collector:
    """Gathers records from test reports, on the controller under xdist, and writes them as they come.

    Raises:
        pytest.UsageError: if the run is to be compared with a baseline that cannot be read.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config, self._options = config, RunOptions.read(config.option)
        self._path = self._options.output
        self._output = Output(RunFile(self._path, move_unreadable=self._options.fresh))
        self._baseline = _baseline(self._options)
        self.records: dict[Key, Record] = {}
        self.asked: set[Asked] | None = None
        """The cells that the options of the run name, whatever is deselected; ``None`` if no test measures one."""
        self.gate: GateResult | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        found = [result for result in results_of(report) if isinstance(result, Record)]
        if not found:
            return
        record = found[-1]
        if record.items is None or not report.passed:
            outcome = "unsupported" if record.outcome == "unsupported" else _outcome(report)
            record = msgspec.structs.replace(record, outcome=outcome, reason=_reason(report, record))
        self.records[record.key] = record
        self._output.add(record)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._output.finish(session)
        if self.records and not self._measured and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        mode, margins = self._options.gate, self._options.margins
        if mode is None or self._config.option.collectonly:
            return
        from quantsuite.gate import gate, gate_against_reference

        records = list(self.records.values())
        if self._baseline is None:
            self.gate = gate_against_reference(records, mode=mode, margins=margins)
        else:
            complete = self._options.gate_complete
            self.gate = gate(records, self._baseline, mode=mode, margins=margins, asked=self.asked, complete=complete)
        if not self.gate.passed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @property
    def _measured(self) -> bool:
        return any(record.measured for record in self.records.values())

    @cached_property
    def _earlier(self) -> list[Record]:
        return [] if self._options.fresh else earlier_run(self._config).records

    def is_reused(self, record: Record) -> bool:
        """Whether an earlier run measured it."""
        return record.measured and record in self._earlier

    def notes(self) -> list[str]:
        """Lines on what was written and where it came from."""
        reused = sum(map(self.is_reused, self.records.values()))
        lines = [f"records: {self._path}", f"report:  python -m quantsuite report {self._path}"] if self.records else []
        if reused:
            lines.append(f"reused:  {reused} of {len(self.records)} records of an earlier run; --fresh measures anew")
        lines += [f"moved:   {path}, which could not be read" for path in self._output.moved]
        if self.records and not self._measured:
            lines.append("nothing was measured")
        return lines


def _baseline(options: RunOptions) -> list[Record] | None:
    """The model's records that the run's are compared with; ``None`` without a gate, or if it is against bf16."""
    baseline, model = options.baseline, options.model
    if options.gate is None or baseline == REFERENCE_NAME:
        return None
    path = Path(baseline) if baseline else _default_baseline(model)
    try:
        _load_metrics(options)
        records = read_run(path, purpose="baseline").records
    except ValueError as error:
        raise pytest.UsageError(f"--gate: {error}") from error
    ours = [record for record in records if record.subject.model == model]
    if records and not ours:
        names = ", ".join(dict.fromkeys(record.subject.model for record in records))
        raise pytest.UsageError(f"--gate: {path} holds records of {names}, none of {model}; name the model as it does")
    return ours


def _load_metrics(options: RunOptions) -> None:
    """Make metrics of tasks of the user's own known, which records of a baseline may name."""
    if any(name.endswith(".toml") for name in options.task or ()):
        from quantsuite.tasks import select_tasks

        for task in select_tasks(options.task or ()):
            metric(task.metric)


def _default_baseline(model: str) -> Path:
    """The reviewed file of the folder's own, or that of an embedded model."""
    own = BASELINES / f"{Path(model).name}.jsonl"
    shipped = embedded_baseline(model)
    return shipped if shipped is not None and not own.exists() else own


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
    return crash.message.removeprefix("Failed: ") if crash is not None else record.reason
