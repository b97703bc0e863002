"""Rows of requirements: read, refused in one line, matched with cells, and held or not by what was measured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from meta_tests import factories
from meta_tests.command import ROOT
from meta_tests.factories import DIRECT, DRIFT, PERPLEXITY, changed_choices, changed_perplexities, layers, record
from quantsuite.cells import Cell
from quantsuite.margins import Margins
from quantsuite.options import RunOptions
from quantsuite.reading import read_run
from quantsuite.records import Record
from quantsuite.requirements.cases import Finding, Requirement, requirements_of
from quantsuite.requirements.names import check_rows, with_own_tasks
from quantsuite.requirements.patterns import SchemePattern, matches_model
from quantsuite.requirements.plugin import rows_of
from quantsuite.requirements.rows import OF_ANY_MODEL, SHIPPED, RequirementError, Row, load_rows
from quantsuite.scheme import Variant, parse_variants
from quantsuite.tasks import shipped_tasks
from quantsuite.tiny import embedded_baseline

TASKS = {task.name: task.label.metric for task in shipped_tasks().values()}
TEXT, ANSWERS = factories.perplexities(200), factories.choices(1000, 0.8)
BF16 = [record(PERPLEXITY, items=TEXT), record(DIRECT, items=ANSWERS)]


def row(**keys: object) -> Row:
    return msgspec.convert({"model": "tiny", "scheme": "w8", "reason": "it is so", **keys}, Row)


def cells_of(records: list[Record]) -> list[Cell]:
    return [Cell(task=shipped_tasks()[each.task.name], variant=each.subject.variant) for each in records]


def asked(required: Row, records: list[Record]) -> list[Requirement]:
    return requirements_of({"row": required}, cells_of(records))[0]


def judged(required: Row, records: list[Record]) -> Finding:
    """What is found of the one requirement that there is."""
    (requirement,) = asked(required, records)
    return requirement.judge(records, Margins())


def texts(change: float, scheme: str = "int8-row", execution: str = "real", count: int = 200) -> list[Record]:
    """bf16, and a scheme that loses ``change`` nats a token."""
    reference = factories.perplexities(count)
    changed = changed_perplexities(reference, change=change)
    return [record(PERPLEXITY, items=reference), record(PERPLEXITY, scheme, execution, items=changed)]


def answers(lost: int, gained: int = 0) -> list[Record]:
    return [BF16[1], record(DIRECT, "int8-row", "real", items=changed_choices(ANSWERS, lost=lost, gained=gained))]


def drift(mean: float) -> list[Record]:
    return [record(DRIFT, "int8-row", "real", items=factories.divergences(2000, mean))]


def two_schemes(change: float, first: tuple[str, str], second: tuple[str, str]) -> list[Record]:
    """Two schemes, of which the second loses ``change`` nats a token more."""
    return [
        record(PERPLEXITY, *first, items=TEXT),
        record(PERPLEXITY, *second, items=changed_perplexities(TEXT, change=change)),
    ]


FINER = row(scheme="granularity=g64", against="granularity=row", loss="at most the margin")
SAME = row(scheme="execution=real", against="execution=simulated", difference="at most 0.01 ln PPL")
BETWEEN = row(loss="at least 0.01 ln PPL and at most 0.05 ln PPL")
ROW_G64, EXECUTIONS = [("int8-row", "real"), ("int8-g64", "real")], [("int8-row", "simulated"), ("int8-row", "real")]


@pytest.mark.parametrize(
    ("required", "records", "status"),
    [
        (row(loss="at most 0.002 ln PPL"), texts(0.0), "met"),
        (row(loss="at most 0.002 ln PPL"), texts(-0.01), "met"),
        (row(loss="at most 0.002 ln PPL"), texts(0.006), "missed"),
        (BETWEEN, texts(0.03), "met"),
        (BETWEEN, texts(0.0), "missed"),
        (BETWEEN, texts(0.1), "missed"),
        (row(loss="at most 2 points"), answers(3, 3), "met"),
        (row(loss="at most 1 point"), answers(60), "missed"),
        (row(loss="at most the margin"), answers(60), "missed"),
        (row(value="at most 1.8 perplexity"), texts(0.0)[1:], "met"),
        (row(value="at most 1.5 perplexity"), texts(0.0)[1:], "missed"),
        (row(value="at least 75 %"), answers(0)[1:], "met"),
        (row(value="at least 85 %"), answers(0)[1:], "missed"),
        (row(value="at most 0.002 nats", metric="divergence"), drift(0.001), "met"),
        (row(value="at most 0.0005 nats", metric="divergence"), drift(0.001), "missed"),
        (FINER, two_schemes(0.0, *ROW_G64), "met"),
        (FINER, two_schemes(-0.05, *ROW_G64), "met"),
        (FINER, two_schemes(0.05, *ROW_G64), "missed"),
        (SAME, two_schemes(0.0, *EXECUTIONS), "met"),
        (SAME, two_schemes(0.05, *EXECUTIONS), "missed"),
        (SAME, two_schemes(-0.05, *EXECUTIONS), "missed"),
    ],
)
def test_each_kind_of_row_is_met_by_what_holds_and_missed_by_what_does_not(
    required: Row, records: list[Record], status: str
) -> None:
    assert judged(required, records).status == status


def test_what_is_missed_names_value_bound_reason_and_way_out_in_one_line() -> None:
    text = judged(row(loss="at most 0.002 ln PPL"), texts(0.006)).text
    assert text.startswith("int8-row-real world/document: loss +0.005") and "] ln PPL against bf16" in text
    assert "required at most 0.002 ln PPL: it is so; layers/in-place of the run" in text and "\n" not in text


def test_what_is_undecided_says_how_many_items_would_decide() -> None:
    finding = judged(row(loss="at most 1 point"), answers(25, 12))
    assert finding.status == "undecided" and finding.items and finding.items > 1000
    assert f"undecided by 1,000 questions, about {finding.items:,} would decide; raise --limit" in finding.text


@pytest.mark.parametrize(("loss", "status"), [(0.0, "undecided"), (0.02, "missed")])
def test_an_estimate_beyond_its_bound_misses_a_row_that_says_so(loss: float, status: str) -> None:
    lost = round(1000 * loss)
    finding = judged(row(loss="at most 1 point", undecided="estimate"), answers(30 + lost, 30))
    assert finding.status == status and ("the estimate is beyond" in finding.text) == (status == "missed")


def test_of_too_few_items_nothing_is_decided() -> None:
    finding = judged(row(loss="at most 0.002 ln PPL"), texts(5.0, count=9))
    assert finding.status == "undecided" and finding.items is None
    assert "too few documents: 9, an interval takes 10" in finding.text


@pytest.mark.parametrize(("least", "status"), [(100, "met"), (0, "met"), (100.5, "missed")])
def test_of_layers_that_were_all_looked_at_a_share_is_decided(least: float, status: str) -> None:
    assert judged(row(value=f"at least {least} %", task="layers/in-place"), [layers({})]).status == status


@pytest.mark.parametrize(
    ("outcome", "status"), [("failed", "failed"), ("error", "failed"), ("unsupported", "absent"), ("skipped", "absent")]
)
@pytest.mark.parametrize("scheme", ["int8-row", "bf16"])
def test_a_cell_that_was_not_measured_meets_nothing(scheme: str, outcome: str, status: str) -> None:
    records = [
        msgspec.structs.replace(each, outcome=outcome, reason="a reason") if each.subject.scheme == scheme else each
        for each in texts(0.0)
    ]
    finding = judged(row(loss="at most 0.002 ln PPL"), records)
    assert finding.status == status and "a reason" in finding.text


def test_a_cell_without_a_record_meets_nothing() -> None:
    records = texts(0.0)
    (requirement,) = asked(row(loss="at most 0.002 ln PPL"), records)
    assert requirement.judge(records[:1], Margins()).status == "absent"


VARIANTS = parse_variants(
    ["int8-row", "int8-g64", "fp8-row", "int4-g64", "int8-row:int8-token", "int8-row@clip", "mxfp8"], ["real"]
)


@pytest.mark.parametrize(
    ("pattern", "schemes"),
    [
        ("w8", "int8-row int8-g64 fp8-row mxfp8"),
        ("w4", "int4-g64"),
        ("w8a8", "int8-row:int8-token"),
        ("int8-row", "int8-row"),
        ("int8-*", "int8-row int8-g64 int8-row:int8-token int8-row@clip"),
        ("granularity=row rest=", "int8-row fp8-row"),
        ("format=int* granularity=g64", "int8-g64 int4-g64"),
        ("execution=simulated", ""),
    ],
)
def test_a_pattern_is_of_these_schemes(pattern: str, schemes: str) -> None:
    found = [str(each.scheme) for each in VARIANTS if SchemePattern(pattern).matches(each)]
    assert " ".join(found) == schemes


@pytest.mark.parametrize(
    ("pattern", "model", "expected"),
    [
        ("Qwen3-1.7B", "Qwen/Qwen3-1.7B", True),
        ("Qwen3-1.7B", "./models/qwen3-1.7b", True),
        ("Qwen/*", "Qwen/Qwen3-1.7B", True),
        ("Qwen3-1.7B", "Qwen/Qwen3-1.7B-Base", False),
        ("tiny", "tiny", True),
        ("tiny", "tiny-outliers", False),
        ("tiny", "./tiny", False),
        ("*", "./tiny", True),
    ],
)
def test_a_model_is_meant_by_its_name_or_its_last_part(pattern: str, model: str, expected: bool) -> None:
    assert matches_model(pattern, model) == expected


def test_two_sets_are_compared_where_all_that_neither_names_is_equal() -> None:
    variants = parse_variants(["int8-tensor", "int8-row", "int8-g64", "fp8-row", "fp8-g64"], ["simulated", "real"])
    cells = [Cell(task=shipped_tasks()["world/document"], variant=each) for each in variants]
    found, _ = requirements_of({"finer": FINER}, cells)
    assert [str(each).removeprefix("finer-world/document-") for each in found] == [
        f"{form}-g64-{execution}-vs-{form}-row-{execution}"
        for form in ("int8", "fp8")
        for execution in ("simulated", "real")
    ]


def test_what_both_sides_name_alike_is_equal_of_a_pair() -> None:
    sides = {"scheme": "granularity=g64 format=*8", "against": "granularity=row format=*8"}
    variants = parse_variants(["int8-row", "fp8-g64", "int4-g64", "int4-row", "fp8-row"], ["real"])
    cells = [Cell(task=shipped_tasks()["world/document"], variant=each) for each in variants]
    (requirement,), _ = requirements_of({"finer": row(loss="at most the margin", **sides)}, cells)
    assert str(requirement).endswith("fp8-g64-real-vs-fp8-row-real")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"task": "wikitext2", "loss": "at most the margin"}, "no task of this run is wikitext2"),
        ({"scheme": "w4", "loss": "at most the margin"}, "no scheme of this run is w4"),
        ({"execution": "simulated", "loss": "at most the margin"}, "no scheme of this run is w8 in simulated"),
        ({"against": "w4", "loss": "at most the margin"}, "has one that is w4, all else equal"),
    ],
)
def test_a_row_that_is_on_no_cell_says_why(keys: dict[str, str], reason: str) -> None:
    found, unmatched = requirements_of({"name": row(**keys)}, cells_of(texts(0.0)))
    assert not found and reason in unmatched["name"]


def test_the_reference_is_held_to_values_and_not_to_losses() -> None:
    records = texts(0.0)
    assert [each.candidate for each in asked(row(scheme="*", loss="at most the margin"), records)] == [
        Variant(records[1].subject.variant.scheme, "real")
    ]
    assert len(asked(row(scheme="*", value="at most 9 perplexity"), records)) == 2


ROW = '[name]\nmodel = "tiny"\nscheme = "w8"\nreason = "r"\n'
LOSS = 'loss = "at most the margin"\n'


def read(path: Path) -> None:
    rows, own = with_own_tasks(path, load_rows(path))
    check_rows(path, rows, TASKS | own)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows; a row begins with [NAME]"),
        ("[name", "is no TOML"),
        ('model = "tiny"', "stands outside a row"),
        ('["a b"]', "row 'a b' has a name of other letters"),
        (ROW + LOSS + 'losss = "x"', "row name: unknown key 'losss'; did you mean 'loss'?"),
        (LOSS.join(["[name]\n", 'model = "tiny"\nscheme = "w8"']), "row name: the key reason is missing"),
        (ROW, "row name: loss: give one of loss, difference and value"),
        (ROW + LOSS + 'value = "at most 1 nats"', "loss and value: give one of"),
        (ROW.replace('"r"', '" "') + LOSS, "row name: reason: it is empty"),
        (ROW.replace('"w8"', "[]") + LOSS, "row name: scheme: it names nothing"),
        (ROW + 'loss = "under 3"', "row name: loss: 'under 3' is no bound; write for example 'at most 0.002 ln PPL'"),
        (ROW + 'loss = "at most 3"', "'at most 3' is no bound"),
        (ROW + 'loss = "at most 1 point and at most 2 points"', "says 'at most' twice"),
        (ROW + 'loss = "at least 2 points and at most 1 point"', "holds for nothing: 2 is more than 1; exchange them"),
        (ROW + 'loss = "at most 1e999 points"', "holds for everything: 1e999 is more than any number"),
        (ROW + 'difference = "at most -1 point"', "row name: difference: it is a size, which is never at most -1"),
        (ROW.replace("w8", "bf16") + LOSS, "row name: scheme: bf16 is what a loss is against"),
        (ROW + 'value = "at most the margin"', "row name: value: the margin is one of losses"),
        (ROW + 'difference = "at least 1 point"', "row name: difference: it is a size"),
        (ROW + 'value = "at most 1 nats"\nagainst = "w4"', "row name: against: a value is compared with nothing"),
        (ROW + LOSS + 'undecided = "maybe"', "row name: undecided: unknown value 'maybe'; known: fail, pass, estimate"),
        (ROW + LOSS + 'execution = "reel"', "row name: execution: unknown value 'reel'; did you mean 'real'?"),
        (ROW + LOSS + "task = 3", "row name: task: Expected"),
        (ROW.replace("w8", "int9-row") + LOSS, "row name: scheme: unknown scheme 'int9-row'"),
        (ROW.replace("w8", "itn8-*") + LOSS, "unknown number format 'itn8'; did you mean 'int8'?"),
        (ROW.replace("w8", "fromat=int8") + LOSS, "unknown field 'fromat'; did you mean 'format'?"),
        (ROW.replace("w8", "format=itn8") + LOSS, "unknown format 'itn8'; did you mean 'int8'?"),
        (ROW.replace("w8", "granularity=rwo") + LOSS, "row name: scheme: unknown granularity 'rwo'"),
        (ROW.replace("w8", "execution=rael") + LOSS, "unknown execution 'rael'; did you mean 'real'?"),
        (ROW + LOSS + 'against = "int9-row"', "row name: against: unknown scheme 'int9-row'"),
        (ROW + LOSS + 'task = "world/documnet"', "row name: task: unknown task 'world/documnet'; did you mean"),
        (ROW + LOSS + 'metric = "acuracy"', "row name: metric: unknown metric 'acuracy'; did you mean 'accuracy'?"),
        (ROW + LOSS + 'metric = "accuracy"\ntask = "world/document"', "is measured by document perplexity, not by"),
        (ROW + LOSS + 'task = "layers"', "layers has no paired comparison; require a value"),
        (ROW + 'loss = "at most 1 point"\ntask = "world/document"', "world/document is in ln PPL, not in point"),
        (ROW + LOSS + 'task = "./nowhere.toml"', "row name: task: there is no task"),
        (ROW + 'loss = "at least 1 ln PPL and at most 2 points"\ntask = "world"', "ln PPL, ln KL, not in points"),
        (ROW + 'value = "at least 0.6 acc"\ntask = "world-mmlu"', "world-mmlu is in %, not in acc"),
    ],
)  # fmt: skip
def test_what_is_no_requirement_is_refused_by_file_row_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RequirementError) as caught:
        read(path)
    said = str(caught.value)
    assert str(path) in said and message in said and "\n" not in said


def test_a_task_of_ones_own_is_named_by_its_file_beside_the_rows() -> None:
    path = ROOT / "examples" / "task" / "rows.toml"
    required = {"name": row(task="./capitals.toml", loss="at most 1 point")}
    rows, metrics = with_own_tasks(path, required)
    assert rows["name"].tasks == ["capitals"] and metrics == {"capitals": "accuracy"}
    check_rows(path, rows, TASKS | metrics)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequirementError, match=r"nowhere\.toml: No such file or directory; name a TOML file"):
        load_rows(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("path", [SHIPPED, OF_ANY_MODEL], ids=lambda path: path.stem)
def test_what_is_shipped_is_of_tasks_and_units_that_there_are(path: Path) -> None:
    rows = load_rows(path)
    check_rows(path, rows, TASKS)
    assert len(rows) >= 1


def test_the_shipped_baseline_meets_the_shipped_rows_of_its_model() -> None:
    records = read_run(embedded_baseline("tiny")).records
    cells = cells_of(records)
    found, _ = requirements_of(rows_of(RunOptions(), cells), cells)
    names = {each.name for each in found}
    assert {"w8-keeps-perplexity", "w8-keeps-accuracy", "finer-than-row-is-not-worse", "real-equals-simulated"} <= names
    assert [
        each.judge(records, Margins()).text for each in found if each.judge(records, Margins()).status != "met"
    ] == []


@pytest.mark.parametrize("model", ["Qwen/Qwen3-1.7B", "./Qwen2.5-1.5B", "tiny-outliers"])
def test_a_model_with_shipped_rows_is_held_to_real_equals_simulated_too(model: str) -> None:
    rows = rows_of(RunOptions(model=model), [])
    assert "real-equals-simulated" in rows and len(rows) > 1


def test_a_users_file_replaces_what_is_shipped(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(ROW + LOSS)
    assert list(rows_of(RunOptions(requirements=path), [])) == ["name"]
    assert rows_of(RunOptions(model="other", requirements=path), []) == {}
