"""Contrasts pair what they should, compare it question by question, and are refused in one line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from meta_tests import command, factories
from meta_tests.factories import DIRECT, GENERATE, PERPLEXITY, changed_choices, choices, record
from quantsuite.contrasts import (
    EXECUTIONS,
    FORMATS,
    RECIPES,
    Contrast,
    ContrastError,
    Selector,
    check_contrasts,
    engine_contrasts,
    find_pairs,
    parse_contrast,
)
from quantsuite.margins import Margins
from quantsuite.records import Record, Run
from quantsuite.reporting import write_report
from quantsuite.reporting.analysis import analyse
from quantsuite.runfile import RunFile

REFERENCE = choices(400, 0.7)
ROWS = [
    record(DIRECT, scheme, execution, items=changed_choices(REFERENCE, lost=lost, gained=2, seed=lost))
    for lost, (scheme, execution) in enumerate(
        (scheme, execution) for scheme in ("int8-row", "fp8-row", "int8-g64") for execution in ("simulated", "real")
    )
]
RUN = [record(DIRECT, items=REFERENCE), *ROWS]


def pairs(contrast: Contrast | str, records: list[Record] = RUN) -> list[tuple[str, str]]:
    """The labels of what is paired."""
    asked = parse_contrast(contrast) if isinstance(contrast, str) else contrast
    return [
        (pair.reference.subject.label, pair.candidate.subject.label) for pair in find_pairs(records, asked, Margins())
    ]


@pytest.mark.parametrize(
    ("contrast", "expected"),
    [
        ("scheme=int8-row vs scheme=fp8-row", ["int8-row-simulated fp8-row-simulated", "int8-row-real fp8-row-real"]),
        ("format=int8 vs format=fp8", ["int8-row-simulated fp8-row-simulated", "int8-row-real fp8-row-real"]),
        (
            "granularity=row vs granularity=g64",
            ["int8-row-simulated int8-g64-simulated", "int8-row-real int8-g64-real"],
        ),
        ("scheme=int8-row execution=real vs scheme=int8-g64 execution=simulated", ["int8-row-real int8-g64-simulated"]),
        (FORMATS, ["int8-row-simulated fp8-row-simulated", "int8-row-real fp8-row-real"]),
        (EXECUTIONS, [f"{name}-simulated {name}-real" for name in ("int8-row", "fp8-row", "int8-g64")]),
    ],
    ids=str,
)
def test_what_differs_in_nothing_else_is_paired(contrast: Contrast | str, expected: list[str]) -> None:
    assert [" ".join(pair) for pair in pairs(contrast)] == expected


def test_activations_are_something_else() -> None:
    quantized = record(DIRECT, "fp8-g64:fp8-token", "real", items=REFERENCE)
    assert pairs("format=int8 granularity=g64 vs format=fp8 granularity=g64", [*RUN, quantized]) == []


def test_the_change_is_that_of_the_questions_that_flipped() -> None:
    lost = [record(DIRECT, "int8-row", "real", items=changed_choices(REFERENCE, lost=30, gained=10)),
            record(DIRECT, "fp8-row", "real", items=REFERENCE)]  # fmt: skip
    (pair,) = find_pairs(lost, parse_contrast("scheme=fp8-row vs scheme=int8-row"), Margins())
    assert pair.comparison and (pair.comparison.lost, pair.comparison.gained) == (30, 10)
    assert pair.comparison.loss.estimate == pytest.approx(20 / 400)


def test_recipes_of_the_same_questions_are_compared_question_by_question() -> None:
    written = changed_choices(REFERENCE, lost=25, gained=5)
    (pair,) = find_pairs([RUN[0], record(GENERATE, items=written)], RECIPES, Margins())
    assert pair.comparison and (pair.comparison.lost, pair.comparison.gained) == (25, 5)


def in_engine(measured: Record, engine: str) -> Record:
    subject = msgspec.structs.replace(measured.subject, engine=engine)
    versions = {"torch": "2.99.0"} if engine != "transformers" else measured.environment.versions
    environment = msgspec.structs.replace(measured.environment, versions=versions)
    return msgspec.structs.replace(measured, subject=subject, environment=environment)


def test_engines_are_compared_with_the_first() -> None:
    records = [*RUN, *(in_engine(each, engine) for engine in ("vllm", "sglang") for each in RUN)]
    found = engine_contrasts(records)
    assert [each.question for each in found] == ["vllm against transformers", "sglang against transformers"]
    compared = find_pairs(records, found[0], Margins())
    assert len(compared) == len(RUN) and all(pair.comparison and pair.comparison.identical for pair in compared)


def test_a_report_shows_engines_apart_and_against_each_other() -> None:
    first, second = analyse([*RUN, *(in_engine(each, "vllm") for each in RUN)], Margins())
    assert (first.model, second.model) == ("tiny (transformers, cpu, bf16)", "tiny (vllm, cpu, bf16)")
    crossing = [each.contrast.question for each in first.contrasts if each.contrast.crosses_settings]
    assert crossing == ["vllm against transformers"]
    assert not any(each.contrast.crosses_settings for each in second.contrasts)


def test_other_questions_are_not_compared() -> None:
    fewer = record(DIRECT, "fp8-row", "real", items=choices(300, 0.7))
    (pair,) = find_pairs([RUN[2], fewer], parse_contrast("scheme=int8-row vs scheme=fp8-row"), Margins())
    assert pair.comparison is None and "dataset is 300 items" in (pair.note or "")


def test_values_of_different_units_are_not_compared() -> None:
    text = record(PERPLEXITY, "int8-row", "real", items=factories.perplexities(400))
    text = msgspec.structs.replace(text, dataset=RUN[2].dataset)
    asked = parse_contrast("task=world/document vs task=world-mmlu/direct")
    (pair,) = find_pairs([text, RUN[2]], asked, Margins())
    assert pair.comparison is None and "are of different units" in (pair.note or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scheme=int8-row", "has not two sides; write 'scheme=int8-row vs scheme=fp8-row'"),
        ("schema=int8-row vs scheme=fp8-row", "unknown field 'schema'; did you mean 'scheme'?"),
        ("int8-row vs fp8-row", "'int8-row' is not FIELD=VALUE; fields are task, "),
        ("scheme=a scheme=b vs scheme=c", "'scheme' is named twice; give one value"),
        ("execution=real vs execution=real", "both sides are real; name what differs"),
        ("scheme='int8 vs scheme=fp8-row", "No closing quotation"),
    ],
)
def test_what_is_no_contrast_is_refused(text: str, message: str) -> None:
    with pytest.raises(ContrastError) as caught:
        parse_contrast(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scheme=int9-row vs scheme=fp8-row", "no measured record has scheme 'int9-row'; they have bf16, int8-row, "),
        ("scheme=bf16 execution=real vs scheme=fp8-row", "is bf16 real in scheme, execution at once"),
        ("scheme=int8-row vs execution=real", "name their execution too"),
        ("format=int8 vs scheme=bf16", "name their scheme or granularity"),
        ("scheme=bf16 vs scheme=fp8-row", "no two records have equal task, head, execution"),
    ],
)
def test_a_contrast_without_a_pair_is_refused(text: str, message: str) -> None:
    with pytest.raises(ContrastError) as caught:
        check_contrasts(RUN, [parse_contrast(text)])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_field_that_differs_cannot_be_matched() -> None:
    sides = {"reference": Selector(fields={"scheme": "int8-row"}), "candidate": Selector(fields={"scheme": "fp8-row"})}
    with pytest.raises(ContrastError, match="'scheme' differs between the sides"):
        Contrast(name="n", question="q", match=("scheme",), **sides)


def test_the_report_shows_a_contrast_with_its_plot(tmp_path: Path) -> None:
    asked = parse_contrast("granularity=row vs granularity=g64")
    write_report(Run(records=RUN), tmp_path, contrasts=[asked])
    for page in ("report.md", "report.html"):
        text = (tmp_path / page).read_text()
        assert text.count("g64 against row") >= 3 and "Row to g64, points" in text
    assert (tmp_path / "report-tiny-1-g64-against-row.svg").exists()


def test_the_command_line_shows_a_contrast_in_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RunFile(Path("run.jsonl")).append(RUN)
    shown = command.quantsuite("report", "run.jsonl", "--contrast", "scheme=int8-row vs scheme=fp8-row")
    assert shown.status == 0 and "tiny world-mmlu/direct: fp8-row against int8-row" in shown.shown
    refused = command.quantsuite("report", "run.jsonl", "--contrast", "scheme=int8-row")
    assert (refused.status, refused.shown.count("\n")) == (2, 1) and "has not two sides" in refused.shown
