"""What a run could have seen stands beside what it saw."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from meta_tests.factories import (
    DIRECT,
    PERPLEXITY,
    changed_choices,
    changed_perplexities,
    choices,
    perplexities,
    record,
)
from quantsuite.__main__ import main
from quantsuite.intervals import FEWEST_ITEMS
from quantsuite.lines import encode_line
from quantsuite.margins import Margins
from quantsuite.power import Flips, equivalent, items_needed, smallest_seen
from quantsuite.records import SCHEMA_VERSION, Record, Run
from quantsuite.reporting import terminal_summary, write_report
from quantsuite.reporting.power import sight_of
from quantsuite.reporting.rows import rows_of
from quantsuite.reporting.wording import approximately

MARGINS = Margins()
BEFORE = choices(1000, 0.8)
FLIPS = Flips(share=51 / 1002)
TEXT = perplexities(200)


def lossless(*flips: int) -> list[Record]:
    """A reference, and schemes that lose as many answers as they gain."""
    schemes = ("int8-row", "fp8-row", "int4-row")
    changed = (changed_choices(BEFORE, lost=number, gained=number) for number in flips)
    candidates = (record(DIRECT, *pair[:1], "real", items=pair[1]) for pair in zip(schemes, changed, strict=False))
    return [record(DIRECT, items=BEFORE), *candidates]


def text(count: int = 200) -> list[Record]:
    before = perplexities(count)
    after = changed_perplexities(before, change=0.0, noise=0.01)
    return [record(PERPLEXITY, items=before), record(PERPLEXITY, "int8-row", "real", items=after)]


def run_file(folder: Path, records: list[Record]) -> str:
    path = folder / "run.jsonl"
    lines = [f'{{"schema_version":{SCHEMA_VERSION}}}', *(encode_line(each).decode() for each in records)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_the_page_says_above_a_table_what_loss_could_have_been_seen(tmp_path: Path) -> None:
    write_report(Run(records=lossless(25)), tmp_path)
    told, worse = (smallest_seen(FLIPS, margin, 1000) or 0.0 for margin in (0.0, 0.01))
    sentence = (
        f"In 80% of runs a loss of {100 * told:.2f} points is told from none, and one of {100 * worse:.2f} points "
        f"found worse; what loses nothing is called equivalent in {equivalent(FLIPS, 0.01, 1000):.0%} "
        "(1,000 questions, of which 5.1 % change)."
    )
    for name in ("report.md", "report.html"):
        page = (tmp_path / name).read_text()
        assert sentence in page
        assert page.index(sentence) < page.index("Change from bf16")


def test_the_terminal_says_what_loss_each_task_could_have_seen() -> None:
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(terminal_summary([*lossless(25), *text()], MARGINS))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    worse = smallest_seen(FLIPS, 0.01, 1000)
    assert worse and f"(worse: {100 * worse:.2f} points)" in shown
    assert shown.count("80% power at a loss of") == 2 and "ln PPL (worse: " in shown


def test_the_median_variant_tells_what_a_task_could_have_seen() -> None:
    sight = sight_of(rows_of(lossless(100, 25, 5), MARGINS))
    assert sight is not None and sight.design == FLIPS


def test_a_variant_that_changes_nothing_tells_of_the_others_nothing() -> None:
    sight = sight_of(rows_of(lossless(0, 0, 25), MARGINS))
    assert sight is not None and sight.design == FLIPS


def test_too_few_texts_promise_nothing(tmp_path: Path) -> None:
    assert sight_of(rows_of(text(FEWEST_ITEMS - 1), MARGINS)) is None
    assert sight_of(rows_of(text(FEWEST_ITEMS), MARGINS)) is not None


def needed(loss: float) -> list[str]:
    numbers = [items_needed(FLIPS, loss, 0.01, power) for power in (0.5, 0.8, 0.95)]
    return [approximately(number) for number in numbers if number]


@pytest.mark.parametrize(("loss", "found"), [(0.02, "worse"), (0.0, "ok")])
def test_power_tells_how_many_items_decide_a_loss(
    loss: float, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(tmp_path, lossless(25))
    for command in (["power", str(loss), path], ["report", path, "--power", str(loss), "--output", str(tmp_path)]):
        assert main(command) == 0
        shown = capsys.readouterr().out
        (line,) = [line.split() for line in shown.splitlines() if {found, *needed(loss)} <= set(line.split())]
        assert line[-5:-3] == ["%", "1,000"]


def test_power_without_a_run_takes_stated_assumptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", "0.02", "--flips", "0.05", "--items", "1000"]) == 0
    shown = capsys.readouterr().out
    assert "1,000 questions find it worse in 27% of runs." in shown
    assert "called equivalent in 28%, undecided in 72%" in shown


def test_power_of_a_loss_on_the_margin_is_undecided(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", "0.01"]) == 0
    assert "undecided" in capsys.readouterr().out
    assert main(["power", "0.01", "--accuracy-margin", "0.005"]) == 0
    assert "worse" in capsys.readouterr().out.splitlines()[4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["2"], "a loss of 2 of all items is none; use a fraction, 0.02 of 2 points"),
        (["nan"], "a loss of nan is none"),
        (["0.02", "--flips", "5"], "a share of 5 items changes; use a number from 0 to 1"),
        (["0.02", "--items", "0"], "0 items show nothing; use 1 or more"),
        (["0.02", "RUN", "--flips", "0.1"], "give them or run files, not both"),
        (["0.02", "RUN"], "no task of this run has a scheme that differs from its reference; state --flips"),
    ],
)
def test_power_of_nonsense_is_refused_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(tmp_path, lossless())
    assert main(["power", *(path if each == "RUN" else each for each in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
