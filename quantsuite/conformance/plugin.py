"""The pytest side of the checks: ``--kernel``, the parameter ``conformance_check``, a record of each case.

Loaded in every pytest run of the environment, so torch is imported only once a test asks for a check.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from quantsuite.options import RunOptions
from quantsuite.records import PROPERTY, PropertyResult

if TYPE_CHECKING:
    from quantsuite.conformance.cases import CheckCase

CASE = "conformance_check"
FAILURE = "quantsuite.checks.outcome.CheckFailure: "
KNOWN_FAILURES = Path("reports/known_failures.toml")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if CASE not in metafunc.fixturenames:
        return
    from quantsuite.session import resolve_device

    device = RunOptions.read(metafunc.config.option).device
    try:
        metafunc.parametrize(CASE, list(_parameters(metafunc.config, resolve_device(device))))
    except ValueError as error:
        raise pytest.Collector.CollectError(str(error)) from error


def _parameters(config: pytest.Config, device: str) -> Iterator[Any]:
    from quantsuite.conformance import cases as made
    from quantsuite.contestant import discover, load

    options = RunOptions.read(config.option)
    locations, schemes = options.kernel, list(options.scheme)
    sources = [load(location) for location in locations] or discover(config.rootpath / "kernels")
    if not sources:
        raise ValueError(f"no contestants in {config.rootpath / 'kernels'}; give one with --kernel path.py[:name]")
    if locations and (missing := next((source.missing for source in sources if source.missing), None)):
        raise ValueError(missing)
    kernels = [kernel for source in sources for kernel in source.contestants]
    chosen = None if schemes == ["all"] else schemes
    path = config.rootpath / KNOWN_FAILURES
    known = made.read_known_failures(path, datetime.date.today()) if path.exists() else []
    names = [kernel.name for kernel in kernels] if chosen is None else []
    cases = made.make_cases(kernels, device=device, schemes=chosen, seed=options.seed)
    if locations:
        made.require_cases(cases, kernels, chosen)
    yield from made.parameters(cases, known, names)
    for source in sources:
        if source.missing is not None:
            yield pytest.param(None, id=source.name, marks=pytest.mark.skip(reason=source.missing))


def _case(item: pytest.Item) -> CheckCase | None:
    made = sys.modules.get("quantsuite.conformance.cases")
    callspec = getattr(item, "callspec", None)
    if made is None or callspec is None:
        return None
    return next((value for value in callspec.params.values() if isinstance(value, made.CheckCase)), None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call" and (case := _case(item)) is not None:
        report.user_properties.append((PROPERTY, msgspec.json.encode(_result(case, report)).decode()))
    return report


def _result(case: CheckCase, report: pytest.TestReport) -> PropertyResult:
    from quantsuite.conformance.cases import CHECK_VERSION
    from quantsuite.session import describe_environment

    reason = None
    if case.measured is not None:
        outcome = "exact" if case.measured.tightness == 0 else "within bound"
    elif case.not_run is not None:
        outcome, reason = case.not_run
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        failure = str(report.longrepr) if crash is None else crash.message.removeprefix(FAILURE)
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
