"""The command line: ``python -m quantsuite run``, ``report``, ``gate``, ``power``, ``convert``, ``reproduce``."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from rich.console import Console

from quantsuite.contrasts import ContrastError, check_contrasts, parse_contrast
from quantsuite.convert import convert
from quantsuite.facets import FIELDS
from quantsuite.gate import gate, gate_against_reference
from quantsuite.margins import MODES, MarginError, Margins
from quantsuite.metrics import MetricError, metric
from quantsuite.options import RunOptions, add_options
from quantsuite.reading import read_run, read_runs, require_finished
from quantsuite.records import RecordError, Run
from quantsuite.reporting import (
    assumed,
    assumed_power,
    gate_summary,
    power_summary,
    terminal_summary,
    write_report,
)
from quantsuite.scheme import REFERENCE_NAME

SUITES = ("accuracy", "numerics", "conformance")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantsuite", description="Runs, and reports and gates of them.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help=f"[{'|'.join(SUITES)}] [options]: as pytest --pyargs quantsuite.accuracy")
    report = commands.add_parser("report", help="write report.md and report.html")
    report.add_argument("--output", type=Path, default=Path("reports"), help="folder (default: reports)")
    report.add_argument(
        "--contrast",
        action="append",
        default=[],
        metavar="'A vs B'",
        help="compare pair by pair, such as 'scheme=int8-row vs scheme=fp8-row'; fields: "
        f"{', '.join(FIELDS)}; may be repeated",
    )
    report.add_argument(
        "--power", type=float, metavar="LOSS", help="say how many items such a loss takes, as the command power does"
    )
    power = commands.add_parser(
        "power", help="how many items a loss takes, by the changes of a run's own items or by stated assumptions"
    )
    power.add_argument("loss", type=float, help="as the margins: 0.02 is 2 points of accuracy, and 0.02 of ln PPL")
    power.add_argument("--flips", type=float, metavar="SHARE", help="of questions that change (default: 0.05)")
    power.add_argument("--items", type=int, metavar="N", help="questions of a run (default: 1000)")
    check = commands.add_parser("gate", help="compare a run with baselines; exit 1 unless it passes")
    check.add_argument(
        "--baseline", required=True, help="run file of reviewed records, or bf16: the run's own reference"
    )
    check.add_argument("--mode", choices=MODES, default="worse", help="strict also fails on undecided cells")
    change = commands.add_parser("convert", help="write run files of older versions as one of this")
    change.add_argument("old", type=Path, nargs="+", help="run files")
    change.add_argument("new", type=Path, help="run file that is not there yet")
    again = commands.add_parser("reproduce", help="run one check of a kernel in this process, for a debugger")
    again.add_argument("id", help="of the test: kernel/scheme/dtype/property")
    add_options(again.add_argument, only=("kernel", "seed", "device"))
    for command in (report, power, check):
        command.add_argument("runs", type=Path, nargs="*" if command is power else "+", help="run files")
        add_options(command.add_argument, only=("accuracy_margin", "perplexity_margin", "margin"))
    for command in (report, power, check, change):
        command.add_argument(
            "--metric",
            action="append",
            default=[],
            metavar="FILE.py",
            help="of your own, that records name: file.py, file.py:NAME or package.module:NAME; may be repeated",
        )
    add_options(check.add_argument, only=("gate_complete",))
    return parser


def _run(arguments: list[str]) -> int:
    """``run [SUITE] [pytest's and the run's options]``; a suite is the first word or left away.

    No ``conftest.py`` of the folder that it is called in is imported.
    """
    import pytest

    suite = arguments.pop(0) if arguments and not arguments[0].startswith("-") else SUITES[0]
    if suite not in SUITES:
        print(f"unknown suite {suite!r}; use {', '.join(SUITES)}, then options", file=sys.stderr)
        return int(pytest.ExitCode.USAGE_ERROR)
    known = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"  # That of this package, for this call.
    return int(pytest.main(["--noconftest", "--pyargs", f"quantsuite.{suite}", "-W", known, *arguments]))


def _reproduce(options: argparse.Namespace) -> int:
    """Raises whatever the kernel raises."""
    from quantsuite.conformance.reproduction import find_case, reproduce

    given = RunOptions.read(options)
    try:
        case = find_case(options.id, given.kernel, device=given.device, seed=given.seed)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return reproduce(case)


def _report(run: Run, options: argparse.Namespace, margins: Margins) -> int:
    """Raises ContrastError if a contrast is none, or has no pair in the run; PowerError as :func:`_power`."""
    contrasts = [parse_contrast(text) for text in options.contrast]
    check_contrasts(run.records, contrasts)
    if run.records:
        Console().print(terminal_summary(run.records, margins, contrasts))
    if options.power is not None:
        _power(run, options.power, margins)
    for path in write_report(run, options.output, margins=margins, contrasts=contrasts):
        print(path)
    return 0


class PowerError(ValueError):
    """A question of power that has no answer."""


def _power(run: Run, loss: float, margins: Margins) -> int:
    """Raises PowerError if the loss is none, or nothing in the run was compared."""
    try:
        Console().print(power_summary(run.records, margins, _checked(loss)))
    except ValueError as error:
        raise PowerError(f"power: {error}") from error
    return 0


def _assumed_power(options: argparse.Namespace, margins: Margins) -> int:
    """Raises PowerError if an assumption is none."""
    flips = 0.05 if options.flips is None else options.flips
    items = 1000 if options.items is None else options.items
    try:
        sight = assumed(metric("accuracy"), flips, items, margins)
        Console().print(assumed_power(sight, _checked(options.loss)))
    except ValueError as error:
        raise PowerError(f"power: {error}") from error
    return 0


def _checked(loss: float) -> float:
    if not 0 <= loss < math.inf:
        raise ValueError(f"a loss of {loss:g} is none; use a number from 0, such as 0.02 of 2 points")
    return loss


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 if a gate or check failed, 2 on bad input, pytest's for ``run``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["run"]:
        return _run(arguments[1:])
    options = _parser().parse_args(arguments)
    if options.command == "reproduce":
        return _reproduce(options)
    given = RunOptions.read(options)
    margins = given.margins
    try:
        given.check_margins()
        for place in options.metric:
            metric(place)
        if options.command == "convert":
            print(f"{options.new}: {convert(options.old, options.new):,} records")
            return 0
        if options.command == "power":
            if not options.runs:
                return _assumed_power(options, margins)
            if options.flips is not None or options.items is not None:
                raise PowerError("power: --flips and --items stand for a run; give them or run files, not both")
        run = read_runs(options.runs)
        if run.records:
            margins.check(record.metric for record in run.records)
        if options.command == "report":
            return _report(run, options, margins)
        if options.command == "power":
            return _power(run, options.loss, margins)
        require_finished(options.runs)
        if options.baseline == REFERENCE_NAME:
            result = gate_against_reference(run.records, mode=options.mode, margins=margins)
        else:
            baseline = read_run(Path(options.baseline), purpose="baseline").records
            result = gate(run.records, baseline, mode=options.mode, margins=margins, complete=given.gate_complete)
    except (RecordError, ContrastError, MarginError, MetricError, PowerError) as error:
        print(error, file=sys.stderr)
        return 2
    Console().print(gate_summary(result))
    return 0 if result.passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
