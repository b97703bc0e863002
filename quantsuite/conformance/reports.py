"""A test's report of a check: what pytest shows of a failure, and its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprFileLocation, ReprTraceback

from quantsuite.records import PropertyResult

if TYPE_CHECKING:
    from quantsuite.conformance.cases import CheckCase


def as_shown(error: BaseException, report: pytest.TestReport) -> ReprExceptionInfo:
    """The message without any source of the suite, for the place of pytest's traceback."""
    from quantsuite.conformance.explanation import reason_of

    known = hasattr(error, "reason") or isinstance(error, pytest.fail.Exception)
    first = str(error) if known else f"{type(error).__name__}: {error}"
    lines = "\n".join([first, *getattr(error, "__notes__", ())])
    path, line, _ = report.location
    reason = str(error) if isinstance(error, pytest.fail.Exception) else reason_of(error)
    return one_message(lines, ReprFileLocation(path, (line or 0) + 1, reason))


def one_message(text: str, crash: ReprFileLocation) -> ReprExceptionInfo:
    """A text that pytest shows as it is, and that xdist can send."""
    entry = ReprEntryNative([f"{text}\n"])
    trace = ReprTraceback(reprentries=[entry], extraline=None, style="native")
    return ReprExceptionInfo(reprtraceback=trace, reprcrash=crash)


def property_result(case: CheckCase, report: pytest.TestReport, call: pytest.CallInfo[None]) -> PropertyResult:
    """What a test says of its case."""
    from quantsuite.conformance.cases import CHECK_VERSION
    from quantsuite.environment import describe_environment

    reason = None
    if case.measured is not None:
        outcome = "exact" if case.measured.tightness == 0 else "within bound"
    elif case.not_run is not None:
        outcome, reason = case.not_run
    else:
        failure = _failure(report, call) if case.failure is None or not case.follows else case.failure
        outcome = "known failure" if hasattr(report, "wasxfail") else "fails"
        reason = f"{report.wasxfail}: {failure}" if outcome == "known failure" else failure
    return PropertyResult(
        test=report.nodeid,
        contestant=case.kernel.name,
        operation=case.kernel.operation,
        scheme=str(case.subject),
        property=case.property,
        outcome=outcome,
        factor=None if case.measured is None else case.measured.tightness,
        reason=reason,
        details={} if case.measured is None else case.measured.details,
        version=CHECK_VERSION,
        seed=case.seed,
        follows=case.follows,
        declares=case.declares,
        environment=describe_environment(case.device, case.dtype_name),
    )


def _failure(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    """Why a check has no result: the message of a failed one or of a lost process, else the exception with its name."""
    from quantsuite.checks import CheckFailure

    error = None if call.excinfo is None else call.excinfo.value
    if isinstance(error, CheckFailure):
        return error.reason
    if isinstance(error, pytest.fail.Exception):
        return str(error)
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return str(report.longrepr)
    return crash.message.removesuffix("\n".join(["", *getattr(error, "__notes__", ())]))
