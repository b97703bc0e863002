"""What a pytest run gathers from its tests' reports: records and checked properties, the run files, the gate."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from quantsuite.margins import Margins
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

NOT_RUN = ("not supported", "not applicable")
NUMERICS = {PROPERTY: PropertyResult, ERROR: ErrorPoint}
BASELINES = Path("reports/baselines")
EARLIER = pytest.StashKey[Run]()
UNREADABLE = Run()
"""What a run file that cannot be read holds, as far as a run with ``--fresh`` goes."""


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


def _set_aside(path: Path, content: bytes) -> Path:
    """Write what a run file held to a file beside it, named by the time."""
    aside = path.with_stem(f"{path.stem}-{datetime.datetime.now():%Y%m%dT%H%M%S}")
    aside.write_bytes(content)
    return aside


class NumericsCollector:
    """Gathers checked properties and measured errors from test reports, and writes them as the run ends.

    Earlier ones are kept if this run did not repeat them; a file that cannot be read is set aside.
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
        try:
            earlier = read_run(self._path) if self._path.exists() else Run()
        except RecordError:
            _set_aside(self._path, self._path.read_bytes())
            earlier = Run()
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
            self._set_aside = _set_aside(self._path, self._replaced)
        write_run(self._path, list(records.values()), properties=earlier.properties, errors=earlier.errors)

    def _is_kept(self, record: Record) -> bool:
        """Whether an earlier record stays beside this run's: of another model, or of this one as it is measured now."""
        loaded = (each for each in self.records.values() if each.subject.model_sha256)
        ours = next((each for each in loaded if each.subject.model == record.subject.model), None)
        if ours is None:
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

        console = Console(file=TerminalFile(self._config), width=max(100, terminalreporter._tw.fullwidth))
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
        records = read_run(path).records
    except RecordError as error:
        raise pytest.UsageError(f"--gate: {error}. Copy a reviewed run file of the same command there") from error
    ours = [record for record in records if record.subject.model == model]
    if records and not ours:
        names = ", ".join(dict.fromkeys(record.subject.model for record in records))
        raise pytest.UsageError(f"--gate: {path} holds records of {names}, none of {model}; name the model as it does")
    return ours


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


class TerminalFile:
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
