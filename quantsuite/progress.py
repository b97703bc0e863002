"""What a person sees of a run of cells: a bar, a line as each scheme finishes, the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from tqdm import tqdm

from quantsuite.collector import Collector
from quantsuite.options import RunOptions
from quantsuite.scheme import REFERENCE_VARIANT

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from quantsuite.cells import Cell


class TerminalFile:
    """What writes to the terminal also while pytest captures output."""

    def __init__(self, reporter: TerminalReporter) -> None:
        self._reporter = reporter
        self._capture = reporter.config.pluginmanager.getplugin("capturemanager")

    def write(self, text: str) -> int:
        with self._capture.global_and_fixture_disabled() if self._capture else nullcontext():
            self._reporter.write(text, flush=True)
        return len(text)

    def flush(self) -> None:
        self._reporter.flush()

    def isatty(self) -> bool:
        return bool(self._reporter.isatty)


class Progress:
    """Follows the cells of a run, on the controller under xdist.

    pytest's own letters and file names are left away for cells, whose tests alternate between files, but for ``-v``.
    """

    def __init__(self, config: pytest.Config, options: RunOptions, collector: Collector) -> None:
        self._config, self._options, self._collector = config, options, collector
        self._labels: dict[str, str] = {}
        self._left: Counter[str] = Counter()
        self._waiting: list[str] = []
        self._bar: tqdm | None = None
        self._interrupted = False

    @property
    def expects_cells(self) -> bool:
        return bool(self._labels)

    def expect(self, cells: Mapping[str, str]) -> None:
        """Announce the tests of cells, by id, with the labels of their schemes."""
        self._labels = dict(cells)
        self._left = Counter(self._labels.values())

    @property
    def _reporter(self) -> TerminalReporter | None:
        return self._config.pluginmanager.getplugin("terminalreporter")

    @property
    def _quiet(self) -> bool:
        """Whether pytest would show a letter a test: neither ``-v`` nor ``-p no:terminal`` is given."""
        return self._reporter is not None and self._config.option.verbose <= 0

    def show(self, cell: Cell, done: int, total: int) -> None:
        """Move the bar of a cell; it goes when the cell is done, and is drawn on a terminal only."""
        if self._reporter is None:
            return
        if self._bar is None:
            file = TerminalFile(self._reporter)
            label = self._options.dtype if cell.variant == REFERENCE_VARIANT else cell.label
            place = f"{sum(self._left.values())} left"
            self._bar = tqdm(
                total=total,
                desc=f"{label} {cell.task.name} ({place})",
                file=file,
                leave=False,
                disable=not file.isatty(),
            )
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logstart(self, nodeid: str) -> Any:
        if nodeid not in self._labels or not self._quiet:
            return (yield)
        shown, self._reporter.showfspath = self._reporter._showfspath, False
        try:
            return (yield)
        finally:
            self._reporter.showfspath = shown

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        if report.nodeid not in self._labels or not self._quiet or report.when == "teardown":
            return None
        if report.when == "setup" and report.passed:
            return None
        outcome = "error" if report.failed and report.when == "setup" else report.outcome
        return outcome, "", ""

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say what a scheme costs once all of its cells are done, and once bf16 is."""
        if report.nodeid not in self._labels or report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        self._close_bar()
        label = self._labels[report.nodeid]
        self._left[label] -= 1
        if self._left[label] == 0:
            self._waiting.append(label)
        if self._left[REFERENCE_VARIANT.label] <= 0:
            for finished in self._waiting:
                self._say(finished)
            self._waiting.clear()

    def _say(self, label: str) -> None:
        from quantsuite.reporting import scheme_line

        shown = (REFERENCE_VARIANT.label, label)
        records = [record for record in self._collector.records.values() if record.subject.label in shown]
        own = [record for record in records if record.subject.label == label]
        if self._reporter is not None and own:
            reused = ", reused" if all(map(self._collector.is_reused, own)) else ""
            self._reporter.write_line(scheme_line(label, records, self._options.margins) + reused)

    def pytest_keyboard_interrupt(self) -> None:
        self._close_bar()
        self._interrupted = True

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        if not self._collector.records and self._collector.gate is None:
            return
        from rich.console import Console

        from quantsuite.reporting import gate_summary, terminal_summary

        console = Console(file=TerminalFile(terminalreporter), width=terminalreporter._tw.fullwidth, markup=False)
        place = {name: index for index, name in enumerate(self._labels)}
        records = sorted(self._collector.records.values(), key=lambda record: place.get(record.test, -1))
        if records:
            console.print(terminal_summary(records, self._options.margins))
        for note in self._collector.notes():
            terminalreporter.write_line(note)
        if self._interrupted:
            done = f"{len(records)} of {len(self._labels)} cells"
            terminalreporter.write_line(f"interrupted after {done}: repeat the command to go on")
        if self._collector.gate is not None:
            console.print(gate_summary(self._collector.gate))
