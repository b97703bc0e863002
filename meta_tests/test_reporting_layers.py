"""Layers in place are reported as counted: all of them by number, faults by name, and no interval."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from meta_tests.factories import layers
from quantsuite.margins import Margins
from quantsuite.records import Record, Run
from quantsuite.reporting import scheme_line, terminal_summary, write_report

MARGINS = Margins()


def markdown(found: Record, folder: Path) -> str:
    write_report(Run(records=[found]), folder)
    return (folder / "report.md").read_text()


def terminal(found: Record) -> str:
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(terminal_summary([found], MARGINS))
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def test_every_place_shows_how_many_layers_are_as_planned(tmp_path: Path) -> None:
    found = layers({})
    assert "8 of 8" in markdown(found, tmp_path) and "8 of 8" in terminal(found)
    assert scheme_line("int8-row-real", [found], MARGINS).endswith(" in-place 8 of 8, 1.5 s")


def test_a_count_of_all_has_no_interval(tmp_path: Path) -> None:
    assert "[" not in terminal(layers({})) and "100.0" not in terminal(layers({}))
    assert "95% interval |" not in markdown(layers({}), tmp_path)


def test_largest_error_bits_and_kernels_stand_beside_the_count(tmp_path: Path) -> None:
    remark = "error 0.32 of bound, 8 to 8.25 bits, ours-codes in 7, ours-int32 in 1"
    assert remark in terminal(layers({})) and remark in markdown(layers({}), tmp_path)


def test_faults_are_named_once_each(tmp_path: Path) -> None:
    found = layers({2: "lost scales", 5: "other codes"})
    for text in (terminal(found), markdown(found, tmp_path).replace("\\", "")):
        assert "6 of 8" in text
        assert text.count("layers.2.up_proj: lost scales") == text.count("layers.5.up_proj: other codes") == 1


@pytest.mark.parametrize("count", [8, 200])
def test_many_faults_are_counted_beyond_the_first(count: int) -> None:
    text = terminal(layers(dict.fromkeys(range(count), "wrong"), count))
    assert text.count("up_proj: wrong") == 6
    assert f"and {count - 6} more" in text
