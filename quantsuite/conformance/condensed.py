"""The failures of a kernel in the terminal: each property once, with the cases that fail alike.

``-vv`` shows every case by itself, as run files and reports of other plugins hold it anyway.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from _pytest._code.code import ReprFileLocation

from quantsuite.conformance.reports import one_message
from quantsuite.lines import decode_line
from quantsuite.records import RESULT, PropertyResult

FULL = 3
"""Properties of a kernel that are told at length."""
SECTION_LINES, NAMED, WIDTH = 12, 6, 160
"""Lines of a section that are kept, cases that are named, characters of a reason."""


@dataclass(frozen=True)
class Group:
    """Reports of one property of one kernel."""

    reports: Sequence[pytest.TestReport]
    results: Sequence[PropertyResult]

    @property
    def kernel(self) -> str:
        return self.results[0].contestant

    @property
    def reason(self) -> str:
        return self.results[0].reason or ""

    @property
    def name(self) -> str:
        result = self.results[0]
        return f"{result.contestant}/{result.scheme}/{result.environment.dtype}/{result.property}"

    def at_length(self) -> pytest.TestReport:
        """The first report with the other cases named, and the ends of its sections."""
        report = copy.copy(self.reports[0])
        report.sections = [(title, _end(text)) for title, text in report.sections]
        if len(self.results) > 1:
            text = f"{report.longreprtext.rstrip()}\nalso: {self._others()}"
            report.longrepr = one_message(text, self._crash(self.reason))
        return report

    def _others(self) -> str:
        others = [f"{result.scheme} {result.environment.dtype}" for result in self.results[1:]]
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        return f"{', '.join(others[:NAMED])}{more}"

    def _crash(self, message: str) -> ReprFileLocation:
        path, line, _ = self.reports[0].location
        return ReprFileLocation(path, (line or 0) + 1, message)

    def in_one_line(self) -> str:
        return f"{self.results[0].property} ({self._cases()}): {_cut(self.reason)}"

    def _cases(self) -> str:
        return f"{len(self.results)} case{'s' if len(self.results) > 1 else ''}"

    def for_summary(self, config: pytest.Config) -> pytest.TestReport:
        """The first report under its id, with the reason."""
        report = copy.copy(self.reports[0])
        report.nodeid = os.path.relpath(config.invocation_params.dir / self.name, config.rootpath)
        text = f"{self._cases()}: {_cut(self.reason)}" if len(self.results) > 1 else _cut(self.reason)
        report.longrepr = one_message(text, self._crash(text))
        return report

    def of_others(self, groups: Sequence[Group]) -> pytest.TestReport:
        """One report of several groups, a line each."""
        report = copy.copy(self.reports[0])
        path, line, _ = report.location
        report.location = (path, line, f"{self.kernel}: {len(groups)} more properties")
        report.sections = []
        text = "\n".join(group.in_one_line() for group in groups)
        report.longrepr = one_message(text, self._crash(f"{len(groups)} more properties of {self.kernel}"))
        return report


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def _end(text: str) -> str:
    lines = text.splitlines()
    return text if len(lines) <= SECTION_LINES else "\n".join(["...", *lines[-SECTION_LINES:]])


def _groups(reports: Sequence[pytest.TestReport]) -> tuple[list[Group], list[pytest.TestReport]]:
    """Failures of checks by kernel and property, and the reports of other tests."""
    found: dict[tuple[str, str], list[tuple[pytest.TestReport, PropertyResult]]] = {}
    others = []
    for report in reports:
        result = next((decode_line(value) for name, value in report.user_properties if name == RESULT), None)
        if isinstance(result, PropertyResult):
            found.setdefault((result.contestant, result.property), []).append((report, result))
        else:
            others.append(report)
    groups = [Group([report for report, _ in pairs], [result for _, result in pairs]) for pairs in found.values()]
    return groups, others


def _at_length(groups: Sequence[Group]) -> Iterator[pytest.TestReport]:
    for kernel in dict.fromkeys(group.kernel for group in groups):
        own = [group for group in groups if group.kernel == kernel]
        yield from (group.at_length() for group in own[:FULL])
        if rest := own[FULL:]:
            yield rest[0].of_others(rest)


class Failures:
    """Before pytest tells of failures, those of one kernel and property become one; their number stays."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> Iterator[None]:
        reports = terminalreporter.stats.get("failed", [])
        groups, others = _groups(reports)
        if config.option.verbose >= 2 or not groups:
            return (yield)
        terminalreporter.stats["failed"] = [*_at_length(groups), *others]
        try:
            return (yield)
        finally:
            terminalreporter.stats["failed"] = reports


class ShortSummary:
    """After pytest has told of failures and before its short summary, a line for each kernel and property."""

    def __init__(self) -> None:
        self._reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._reports.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        groups, others = _groups([report for report in self._reports if report.when == "call"])
        if config.option.verbose < 2 and groups:
            terminalreporter.stats["failed"] = [*(group.for_summary(config) for group in groups), *others]
