"""``python -m quantsuite report RUN...`` and ``python -m quantsuite gate RUN... --baseline FILE``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from quantsuite.gate import MODES, gate, gate_against_reference
from quantsuite.margins import Margins, add_margin_options
from quantsuite.reading import read_run, read_runs
from quantsuite.records import RecordError
from quantsuite.reporting import gate_summary, terminal_summary, write_report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantsuite", description="Reports and gates from run files.")
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="write report.md and report.html")
    report.add_argument("--output", type=Path, default=Path("reports"), help="folder (default: reports)")
    check = commands.add_parser("gate", help="compare a run with baselines; exit 1 unless it passes")
    check.add_argument(
        "--baseline", required=True, help="run file of reviewed records, or bf16: the run's own reference"
    )
    check.add_argument("--mode", choices=MODES, default="worse", help="strict also fails on undecided cells")
    for command in (report, check):
        command.add_argument("runs", type=Path, nargs="+", help="run files")
        add_margin_options(command.add_argument)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 if a gate failed, 2 on bad input."""
    options = _parser().parse_args(arguments)
    margins = Margins(accuracy=options.accuracy_margin, log_perplexity=options.perplexity_margin)
    console = Console()
    try:
        run = read_runs(options.runs)
        if options.command == "report":
            if run.records:
                console.print(terminal_summary(run.records, margins))
            for path in write_report(run, options.output, margins=margins):
                print(path)
            return 0
        if options.baseline == "bf16":
            result = gate_against_reference(run.records, mode=options.mode, margins=margins)
        else:
            baseline = read_run(Path(options.baseline), purpose="baseline").records
            result = gate(run.records, baseline, mode=options.mode, margins=margins)
    except RecordError as error:
        print(error, file=sys.stderr)
        return 2
    console.print(gate_summary(result))
    return 0 if result.passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
