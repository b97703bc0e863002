"""The report's section on arithmetic: what a cell says, why, and the error tables."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from meta_tests import factories
from quantsuite.reading import read_run, read_runs
from quantsuite.records import ErrorPoint, Finding, PropertyResult, RecordError, Run
from quantsuite.reporting import write_report
from quantsuite.reporting.numerics import Topic, numerics_section
from quantsuite.runfile import write_run


def result(
    contestant: str,
    scheme: str,
    name: str,
    outcome: Finding,
    factor: float | None = None,
    reason: str | None = None,
    **details: float,
) -> PropertyResult:
    return PropertyResult(
        test=f"test_contestants.py::test[{contestant}-{scheme}-{name}]",
        contestant=contestant,
        operation="linear",
        scheme=scheme,
        property=name,
        outcome=outcome,
        factor=factor,
        reason=reason,
        details=details,
        environment=factories.environment(),
    )


def point(series: str, x: float, measured: float, predicted: float | None) -> ErrorPoint:
    return ErrorPoint(
        study="group size",
        quantity="elementwise relative mean absolute error",
        series=series,
        scheme=f"{series}-g{x:.0f}",
        x=x,
        shape=[8, 64],
        measured=measured,
        predicted=predicted,
        seed=0,
    )


RESULTS = [
    result("mine", "int8-row", "product", "within bound", 0.25),
    result("mine", "fp8-row", "product", "within bound", 0.75),
    result("mine", "int8-row", "zeros", "exact", 0.0),
    result("mine", "fp8-row", "zeros", "not supported", reason="no FP8 here"),
    result("theirs", "int8-row", "product", "fails", reason="3 times the bound"),
    msgspec.structs.replace(
        result("theirs", "int8-row", "product", "fails", reason="3 times the bound"),
        environment=msgspec.structs.replace(factories.environment(), dtype="float32"),
    ),
    result("theirs", "fp8-row", "product", "within bound", 0.5),
    result("theirs", "int8-row", "zeros", "not supported", reason="no zeros here"),
    result("theirs", "fp8-row", "integers", "not applicable", reason="floats"),
    result("theirs", "int8-row", "integers", "exact", 0.0),
    result("mine", "fp8-row", "integers", "not applicable", reason="floats"),
    result("known", "int8-row", "product", "known failure", reason="truncates: issue 7"),
    result("known", "int8-row", "accumulator", "exact", 0.0, bits=14.0, promotion=128.0),
]


def topics(results: list[PropertyResult] = RESULTS, errors: tuple[ErrorPoint, ...] = ()) -> dict[str, Topic]:
    section = numerics_section(results, list(errors))
    assert section is not None
    return {topic.heading: topic for topic in section.topics}


def rows_of(topic: Topic) -> dict[str, dict[str, str]]:
    (table,) = topic.tables
    return {row[0]: dict(zip(table.heads, row, strict=True)) for row in table.rows}


@pytest.mark.parametrize(
    ("contestant", "name", "cell"),
    [
        ("mine", "product", "within 0.750"),
        ("mine", "zeros", "exact"),
        ("theirs", "product", "fails (1 of 2)"),
        ("theirs", "zeros", "not supported here"),
        ("theirs", "integers", "exact"),
        ("mine", "integers", "n/a"),
        ("known", "product", "known failure (1 of 1)"),
        ("known", "zeros", "-"),
    ],
)
def test_a_cell_says_the_worst_of_its_schemes(contestant: str, name: str, cell: str) -> None:
    assert rows_of(topics()["Kernels: linear"])[contestant][name] == cell


def test_a_row_counts_the_schemes_that_ran() -> None:
    rows = rows_of(topics()["Kernels: linear"])
    assert [rows[name]["Schemes"] for name in ("mine", "theirs", "known")] == ["2", "2", "1"]


def test_a_row_shows_what_the_kernel_declares() -> None:
    declared = msgspec.structs.replace(RESULTS[0], declares={"dtypes": "float32", "accumulator_bits": "14"})
    rows = rows_of(topics([declared, *RESULTS[4:]])["Kernels: linear"])
    assert rows["mine"]["Declares"] == "dtypes: float32; accumulator bits: 14"
    assert rows["theirs"]["Declares"] == "-"


def test_a_row_counts_the_properties_that_were_never_checked() -> None:
    rows = rows_of(topics()["Kernels: linear"])
    assert [rows[name]["Not checked"] for name in ("mine", "theirs", "known")] == ["0 of 2", "1 of 3", "0 of 2"]


def test_what_follows_from_broken_hygiene_is_noted_as_that() -> None:
    following = msgspec.structs.replace(RESULTS[4], follows="product_repeatable")
    (table,) = topics([following])["Failures and what is not supported"].tables
    assert table.rows == (("theirs", "int8-row", "product", "fails", "follows from product repeatable"),)


def planted(name: str, category: str, *caught_by: str) -> list[PropertyResult]:
    outcomes: list[tuple[str, Finding]] = [(check, "fails") for check in caught_by] + [("others", "exact")]
    return [
        msgspec.structs.replace(
            result(name, "int8-row", check, outcome, None if outcome == "fails" else 0.0, reason="found"),
            planted=category,
        )
        for check, outcome in outcomes
    ]


def test_the_score_counts_planted_and_caught_faults_by_category() -> None:
    faults = [*planted("a", "tails", "x", "y", "z"), *planted("b", "tails", "x"), *planted("c", "races")]
    topic = topics([*faults, *RESULTS])["Planted faults"]
    scores, weak = topic.tables
    assert scores.rows == (
        ("tails", "2", "2", "100.0%", "2", "1"),
        ("races", "1", "0", "0.0%", "-", "0"),
        ("all", "3", "2", "66.7%", "2", "1"),
    )
    assert weak.rows == (("c", "races", "none"), ("b", "tails", "x"))


def test_planted_faults_are_no_kernels_of_the_report() -> None:
    found = topics([*planted("a", "tails", "x"), *RESULTS])
    assert "a" not in rows_of(found["Kernels: linear"])
    (table,) = found["Failures and what is not supported"].tables
    assert "a" not in {row[0] for row in table.rows}


def test_every_reason_is_listed_with_its_scheme() -> None:
    (table,) = topics()["Failures and what is not supported"].tables
    assert ("theirs", "int8-row", "product", "fails", "3 times the bound") in table.rows
    assert ("mine", "fp8-row", "zeros", "not supported", "no FP8 here") in table.rows
    assert ("known", "int8-row", "product", "known failure", "truncates: issue 7") in table.rows
    assert [row[3] for row in table.rows] == ["fails", "known failure", "not supported", "not supported"]


def test_an_accumulator_shows_its_bits_and_its_partial_sums() -> None:
    (table,) = topics()["Accumulator width"].tables
    assert table.rows == (("known", "bf16", "int8-row", "14", "128"),)


def test_an_error_table_has_a_row_for_each_size_and_the_prediction_beside_it() -> None:
    errors = (
        point("int8", 32, 0.005, 0.0051),
        point("int8", 64, 0.006, 0.0061),
        point("nf4", 32, 0.08, None),
        point("nf4", 64, 0.09, None),
    )
    (table,) = topics([], errors)["Quantization error by group size"].tables
    assert table.heads == ("Group size", "Shape", "int8: measured", "predicted", "nf4: measured")
    assert table.rows == (
        ("32", "8 x 64", "0.00500", "0.00510", "0.08000"),
        ("64", "8 x 64", "0.00600", "0.00610", "0.09000"),
    )


def test_an_error_table_of_single_points_has_a_row_for_each_in_ascending_order_and_no_plot() -> None:
    errors = (point("int8", 8.25, 0.005, 0.0051), point("mxfp4", 4.25, 0.09, 0.092), point("nf4", 4.25, 0.08, None))
    topic = topics([], errors)["Quantization error by group size"]
    (table,) = topic.tables
    assert table.heads == ("Scheme", "Group size", "Shape", "measured", "predicted")
    assert table.rows == (
        ("nf4", "4.250", "8 x 64", "0.08000", "-"),
        ("mxfp4", "4.250", "8 x 64", "0.09000", "0.09200"),
        ("int8", "8.250", "8 x 64", "0.00500", "0.00510"),
    )
    assert topic.plots == ()


def test_both_pages_hold_the_section_and_its_plots(tmp_path: Path) -> None:
    errors = [point("int8", 32, 0.005, 0.0051), point("int8", 64, 0.006, 0.0061)]
    files = write_report(Run(records=factories.matrix()[:3], properties=RESULTS, errors=errors), tmp_path)
    assert "report-errors-group-size.svg" in {path.name for path in files}
    markdown, html = ((tmp_path / name).read_text() for name in ("report.md", "report.html"))
    for page in (markdown, html):
        assert "13 checks of 3 kernels; 2 errors of random tensors." in page
        assert "fails (1 of 2)" in page and "within 0.750" in page
    assert "![Error by group size](report-errors-group-size.svg)" in markdown
    assert 'href="#arithmetic"' in html


def test_a_run_without_arithmetic_has_no_such_section(tmp_path: Path) -> None:
    write_report(Run(records=factories.matrix()[:3]), tmp_path)
    assert "Arithmetic" not in (tmp_path / "report.md").read_text()


def test_runs_are_read_together_and_the_later_check_counts(tmp_path: Path) -> None:
    write_run(tmp_path / "a.jsonl", factories.matrix()[:2], properties=RESULTS)
    better = result("theirs", "int8-row", "product", "within bound", 0.9)
    write_run(tmp_path / "b.jsonl", properties=[better], errors=[point("int8", 32, 0.005, None)])
    run = read_runs([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert (len(run.records), len(run.properties), len(run.errors)) == (2, len(RESULTS), 1)
    assert better in run.properties
    assert read_run(tmp_path / "b.jsonl").records == []


def test_an_empty_run_is_no_report(tmp_path: Path) -> None:
    write_run(tmp_path / "empty.jsonl")
    with pytest.raises(RecordError, match="no records in"):
        read_runs([tmp_path / "empty.jsonl"])
