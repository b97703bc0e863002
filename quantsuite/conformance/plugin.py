"""The pytest side of the checks: ``--kernel``, the parameter ``conformance_check``, a record of each case.

Loaded in every pytest run of the environment, so torch is imported only once a test asks for a check.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from quantsuite.records import CheckRecord, write_run

if TYPE_CHECKING:
    from quantsuite.conformance.cases import CheckCase

CASE = "conformance_check"
CHECK_RECORD = "quantsuite_check"
KNOWN_FAILURES = Path("reports/known_failures.toml")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("quantsuite")
    group.addoption(
        "--kernel",
        action="append",
        default=[],
        metavar="WHERE",
        help="contestants under test: path.py, path.py:name, package.module or package.module:name; "
        "may be repeated (default: every file of kernels/, and installed entry points)",
    )
    group.addoption(
        "--checks-output",
        type=Path,
        default=Path("reports/numerics.json"),
        help="run file of the checks (default: reports/numerics.json)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if CASE not in metafunc.fixturenames:
        return
    from quantsuite.session import resolve_device

    option = metafunc.config.getoption
    try:
        metafunc.parametrize(CASE, list(_parameters(metafunc.config, resolve_device(option("device")))))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def _parameters(config: pytest.Config, device: str) -> Iterator[Any]:
    from quantsuite.conformance import cases as made
    from quantsuite.contestant import discover, load

    locations, schemes = config.getoption("kernel"), config.getoption("scheme")
    sources = [load(location) for location in locations] or discover(config.rootpath / "kernels")
    if not sources:
        raise ValueError(f"no contestants in {config.rootpath / 'kernels'}; give one with --kernel path.py[:name]")
    kernels = [kernel for source in sources for kernel in source.contestants]
    chosen = None if schemes == ["all"] else schemes
    path = config.rootpath / KNOWN_FAILURES
    known = made.read_known_failures(path, datetime.date.today()) if path.exists() else []
    names = [kernel.name for kernel in kernels] if chosen is None else []
    yield from made.parameters(made.make_cases(kernels, device=device, schemes=chosen), known, names)
    for source in sources:
        if source.missing is not None:
            yield pytest.param(None, id=source.name, marks=pytest.mark.skip(reason=source.missing))


def _case(item: pytest.Item) -> CheckCase | None:
    callspec = getattr(item, "callspec", None)
    values = [] if callspec is None else callspec.params.values()
    return next((value for value in values if hasattr(value, "not_supported")), None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call" and (case := _case(item)) is not None:
        report.user_properties.append((CHECK_RECORD, msgspec.json.encode(_record(case, report)).decode()))
    return report


def _record(case: CheckCase, report: pytest.TestReport) -> CheckRecord:
    from quantsuite.conformance.cases import CHECK_VERSION
    from quantsuite.session import describe_environment

    if case.not_supported is not None:
        outcome, reason = "unsupported", case.not_supported
    elif hasattr(report, "wasxfail"):
        outcome, reason = "xfailed", report.wasxfail
    elif report.passed:
        outcome, reason = "passed", None
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = str(report.longrepr) if crash is None else crash.message
        outcome = "failed" if "CheckFailure" in reason or crash is None else "error"
    return CheckRecord(
        test=report.nodeid,
        outcome=outcome,
        contestant=case.contestant.name,
        operation=case.contestant.operation,
        scheme=str(case.subject),
        property=case.property,
        version=CHECK_VERSION,
        environment=describe_environment(case.device, case.dtype_name),
        tightness=None if case.measured is None else case.measured.tightness,
        details={} if case.measured is None else case.measured.details,
        reason=reason,
        seconds=case.seconds,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


class CheckCollector:
    """Gathers the records of checks from test reports, on the controller under xdist, and writes them at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.checks: list[CheckRecord] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == CHECK_RECORD and report.when == "call":
                self.checks.append(msgspec.json.decode(value, type=CheckRecord))

    def pytest_sessionfinish(self) -> None:
        if self.checks:
            write_run(self._path, [], self.checks)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.checks:
            terminalreporter.write_line(f"checks: {len(self.checks)} records in {self._path}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(CheckCollector(config.getoption("checks_output")), "quantsuite.checks")
