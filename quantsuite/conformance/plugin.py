"""The pytest side of the checks: ``--kernel``, the parameter ``conformance_check``, a record of each case.

Contestants are loaded in processes of their own.  Loaded in every pytest run of the environment, so torch is imported
only once a test asks for a check.
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from quantsuite.records import PROPERTY, PropertyResult

if TYPE_CHECKING:
    from quantsuite.conformance.cases import CheckCase
    from quantsuite.conformance.isolated import IsolatedContestant, IsolatedSource

CASE = "conformance_check"
KNOWN_FAILURES = Path("reports/known_failures.toml")
CHECK_SECONDS = 120.0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"check timeout {text!r} is not a number of seconds; use 0 for no limit")
    return seconds


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
        "--check-timeout",
        type=_seconds,
        default=CHECK_SECONDS,
        metavar="SECONDS",
        help=f"what loading a contestant, and each check of it, may take; 0 for no limit (default: {CHECK_SECONDS:g})",
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says of checks; ``schemes`` is ``None`` for all that a contestant implements."""

    locations: list[str]
    schemes: list[str] | None
    device: str
    seed: int
    limit: float

    @classmethod
    def of(cls, config: pytest.Config) -> Options:
        option = config.getoption
        return cls(
            locations=option("kernel"),
            schemes=None if option("scheme") == ["all"] else option("scheme"),
            device=option("device"),
            seed=option("seed"),
            limit=option("check_timeout"),
        )


@dataclass(frozen=True)
class LoadFailure:
    """In the place of the cases of a source that cannot be loaded."""

    error: BaseException

    def __call__(self) -> None:
        """Fail with one line."""
        __tracebackhide__ = True
        failure = pytest.fail.Exception(str(self.error), pytrace=False)
        failure.__dict__.update(report_sections=getattr(self.error, "report_sections", []))
        raise failure


@dataclass(kw_only=True)
class Found:
    """The run's sources, what they declare, and parameters in the place of those that declare nothing."""

    sources: list[IsolatedSource]
    contestants: list[IsolatedContestant] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)

    def load(self) -> None:
        """Load all sources, each in its process."""
        from quantsuite.conformance.isolated import LOAD_ERRORS
        from quantsuite.contestant import MissingLibraryError

        for source in self.sources:
            source.start()
        for source in self.sources:
            try:
                self.contestants += source.load()
            except MissingLibraryError as error:
                self.errors.append(error)
                self.others.append(pytest.param(None, id=source.name, marks=pytest.mark.skip(reason=str(error))))
            except LOAD_ERRORS as error:
                self.errors.append(error)
                self.others.append(pytest.param(LoadFailure(error), id=f"{source.name}/load"))


FOUND = pytest.StashKey[Found]()


def _found(config: pytest.Config) -> Found:
    from quantsuite.conformance.isolated import IsolatedSource
    from quantsuite.contestant import discover

    if FOUND not in config.stash:
        options = Options.of(config)
        locations = options.locations or discover(config.rootpath / "kernels")
        sources = [IsolatedSource(location, limit=options.limit) for location in locations]
        config.stash[FOUND] = Found(sources=sources)
        config.stash[FOUND].load()
    return config.stash[FOUND]


def _close(config: pytest.Config) -> None:
    for source in config.stash[FOUND].sources if FOUND in config.stash else ():
        source.close()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Load what ``--kernel`` names, under xdist on the controller too, where a usage error ends the run.

    Raises:
        pytest.UsageError: if it cannot be loaded.
    """
    config = session.config
    if hasattr(config, "workerinput") or not Options.of(config).locations:
        return
    if errors := _found(config).errors:
        raise pytest.UsageError(str(errors[0]))
    if config.pluginmanager.hasplugin("dsession"):
        _close(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    _close(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if CASE not in metafunc.fixturenames:
        return
    try:
        metafunc.parametrize(CASE, list(_parameters(metafunc.config)))
    except ValueError as error:
        raise pytest.Collector.CollectError(str(error)) from error


def _parameters(config: pytest.Config) -> Iterator[Any]:
    from quantsuite.conformance import cases as made
    from quantsuite.conformance.isolated import IsolatedCase
    from quantsuite.session import resolve_device

    options, found = Options.of(config), _found(config)
    if not found.sources:
        raise ValueError(f"no contestants in {config.rootpath / 'kernels'}; give one with --kernel path.py[:name]")
    path, kernels, schemes = config.rootpath / KNOWN_FAILURES, found.contestants, options.schemes
    known = made.read_known_failures(path, datetime.date.today()) if path.exists() else []
    names = [kernel.name for kernel in kernels] if schemes is None else []
    device = resolve_device(options.device)
    cases = made.make_cases(kernels, device=device, schemes=schemes, seed=options.seed, case=IsolatedCase)
    if options.locations:
        made.require_cases(cases, kernels, schemes)
    yield from made.parameters(cases, known, names)
    yield from found.others


def _case(item: pytest.Item) -> CheckCase | None:
    made = sys.modules.get("quantsuite.conformance.cases")
    callspec = getattr(item, "callspec", None)
    if made is None or callspec is None:
        return None
    return next((value for value in callspec.params.values() if isinstance(value, made.CheckCase)), None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call" and call.excinfo is not None:
        report.sections.extend(getattr(call.excinfo.value, "report_sections", ()))
    if report.when == "call" and (case := _case(item)) is not None:
        report.user_properties.append((PROPERTY, msgspec.json.encode(_result(case, report, call)).decode()))
    return report


def _result(case: CheckCase, report: pytest.TestReport, call: pytest.CallInfo[None]) -> PropertyResult:
    from quantsuite.conformance.cases import CHECK_VERSION
    from quantsuite.session import describe_environment

    reason = None
    if case.measured is not None:
        outcome = "exact" if case.measured.tightness == 0 else "within bound"
    elif case.not_run is not None:
        outcome, reason = case.not_run
    else:
        failure = _failure(report, call)
        outcome = "known failure" if hasattr(report, "wasxfail") else "fails"
        reason = f"{report.wasxfail}: {failure}" if outcome == "known failure" else failure
    return PropertyResult(
        test=report.nodeid,
        contestant=case.contestant.name,
        operation=case.contestant.operation,
        scheme=str(case.subject),
        property=case.property,
        outcome=outcome,
        factor=None if case.measured is None else case.measured.tightness,
        reason=reason,
        details={} if case.measured is None else case.measured.details,
        version=CHECK_VERSION,
        seed=case.seed,
        environment=describe_environment(case.device, case.dtype_name),
    )


def _failure(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    """Why a check has no result: the message of a failed one or of a lost process, else the exception with its name."""
    from quantsuite.checks import CheckFailure

    if call.excinfo is not None and isinstance(call.excinfo.value, CheckFailure | pytest.fail.Exception):
        return str(call.excinfo.value)
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(report.longrepr) if crash is None else crash.message
