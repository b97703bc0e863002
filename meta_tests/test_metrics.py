"""Metrics against numbers worked out by hand, how they are found by name, and one that nothing else has seen."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from meta_tests import factories
from meta_tests.command import quantsuite
from quantsuite.gate import gate
from quantsuite.margins import MarginError, Margins
from quantsuite.metrics import (
    Choices,
    Margin,
    Matches,
    Mean,
    Metric,
    MetricError,
    Scale,
    Truths,
    disagreement,
    metric,
    named_metric,
    registry,
)
from quantsuite.options import RunOptions
from quantsuite.records import Record, Run, TaskLabel
from quantsuite.reporting import gate_summary, terminal_summary, write_report

ENDINGS = Choices(
    group=["a", "a", "b"],
    answer=[1, 0, 4],
    predicted=[0, 1, 4],
    log_likelihoods=[[-4.0, -6.0], [-9.0, -5.0, -7.0], [-8.0, -8.0, -8.0, -8.0, -2.0]],
    lengths=[[2, 6], [9, 5, 2], [4, 4, 4, 4, 1]],
)
"""By a character: -2 and -1; -1, -1 and -3.5; -2 four times and -2."""


def test_accuracy_takes_the_likeliest_of_any_number_of_choices() -> None:
    assert metric("accuracy").value(ENDINGS) == 1 / 3


def test_normalized_accuracy_takes_the_likeliest_of_a_character_and_the_first_of_equals() -> None:
    assert ENDINGS.normalized == [1, 0, 0]
    assert metric("normalized accuracy").value(ENDINGS) == 2 / 3


def test_normalized_accuracy_without_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="without log_likelihoods and lengths have no normalized accuracy"):
        metric("normalized accuracy").value(factories.choices(4, 0.5))


def test_lengths_say_how_many_choices_a_question_has() -> None:
    written = Choices(group=["a"], answer=[5], predicted=[6], lengths=[[1] * 7])
    assert written.choices == [7]
    with pytest.raises(ValueError, match="predicted holds 7, more than 6"):
        msgspec.structs.replace(written, predicted=[7])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lengths": [[2, 6], [9, 5], [4, 4, 4, 4, 1]]}, "lengths holds 2 of a question of 3 choices"),
        ({"lengths": [[2, 0], [9, 5, 2], [4, 4, 4, 4, 1]]}, "lengths holds 0, less than 1"),
        ({"lengths": [[2, 6]]}, "lengths has 1 items, answer has 3"),
    ],
)
def test_lengths_that_cannot_be_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msgspec.structs.replace(ENDINGS, **fields)


TRUTHS = Truths(
    group=["a", "b"],
    truth=[[True, False, True], [False, True]],
    log_likelihoods=[[math.log(0.01), math.log(0.02), math.log(0.01)], [-2000.0, -2000.0 + math.log(3)]],
)


def test_truth_mass_is_the_share_of_the_right_choices() -> None:
    assert metric("truth mass").outcomes(TRUTHS) == pytest.approx([0.5, 0.75])
    assert metric("truth mass").value(TRUTHS) == pytest.approx(0.625)
    assert metric("truth mass").details(TRUTHS, {}) == {"likeliest_true": 0.5}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"truth": [[True, False], [False, True]]}, "log_likelihoods holds 3 of a question of 2 choices"),
        ({"truth": [[True, False, True], [False, False]]}, "without a right choice"),
        ({"log_likelihoods": [[-1.0, -1.0, 0.5], [-1.0, -2.0]]}, "log_likelihoods holds 0.5, more than"),
    ],
)
def test_truths_that_cannot_be_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msgspec.structs.replace(TRUTHS, **fields)


def test_a_match_rate_is_the_share_that_was_matched() -> None:
    assert metric("match rate").value(Matches(matched=[True, False, True, True])) == 0.75


def test_matches_that_were_written_with_a_likelihood_are_read() -> None:
    assert msgspec.convert({"type": "matches", "matched": [True], "nats": None}, Matches) == Matches(matched=[True])


def test_a_match_rate_is_compared_by_what_flipped() -> None:
    change = metric("match rate").compare(Matches(matched=[True] * 50), Matches(matched=[True] * 45 + [False] * 5))
    assert (change.lost, change.gained, change.interval.estimate) == (5, 0, -0.1)


def test_the_names_of_metrics_are_those_that_they_have() -> None:
    assert [metric(name).name for name in registry.BUILT_IN] == list(registry.BUILT_IN)


def test_an_unknown_name_is_answered_with_the_nearest_and_the_way_out() -> None:
    with pytest.raises(MetricError, match=r"unknown metric 'acuracy'; did you mean 'accuracy'\? known: perplexity, "):
        metric("acuracy")


SPREAD = """
from quantsuite.metrics import Choices, Margin, Metric, Scale, metric

ACCURACY = metric("accuracy")
SPREAD = Metric(
    name={name!r},
    items=Choices,
    outcomes=lambda items: [max(row) - min(row) for row in items.log_likelihoods],
    unit="spread",
    better="higher",
    noun="riddles",
    margin=Margin(default=0.5),
    scale=Scale(decimals=2, change_decimals=3, change_unit="spread nats"),
)
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a metric's file, and gives its place; what it loads is forgotten after the test."""
    monkeypatch.setattr(registry, "_OF_PLACES", {})

    def write(file: str = "spread.py", name: str = "spread", content: str = SPREAD) -> str:
        (tmp_path / file).write_text(content.format(name=name))
        return str(tmp_path / file)

    return write


@pytest.mark.parametrize("attribute", ["", ":SPREAD"])
def test_a_metric_of_a_file_is_known_by_its_name_from_then_on(attribute: str, written: Callable[..., str]) -> None:
    with pytest.raises(MetricError, match=r"one of your own is given by its file, --metric \./FILE\.py"):
        named_metric("spread")
    assert metric(written() + attribute) is named_metric("spread")
    assert metric(written() + attribute) is metric("spread")


@pytest.mark.parametrize(
    ("name", "attribute", "message"),
    [
        ("accuracy", "", "is named 'accuracy', as one of quantsuite's own; give it another name"),
        ("spread", ":OTHER", "has SPREAD"),
        ("a:b", "", "a metric is named 'a:b'; use printable letters"),
    ],
)
def test_a_file_without_a_metric_of_its_own_is_refused(
    name: str, attribute: str, message: str, written: Callable[..., str]
) -> None:
    with pytest.raises(MetricError, match=message):
        metric(written(f"{name[0]}{len(attribute)}.py", name) + attribute)


def test_two_files_cannot_give_one_name(written: Callable[..., str]) -> None:
    metric(written("first.py"))
    with pytest.raises(MetricError, match="is named 'spread', as one of another file"):
        metric(written("second.py"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match=r"there is no file .*/none\.py; put the metric's file there"):
        metric(f"{tmp_path}/none.py:X")


def test_a_file_that_fails_is_named_with_its_error(written: Callable[..., str]) -> None:
    with pytest.raises(MetricError, match=r"broken\.py cannot be imported: ZeroDivisionError"):
        metric(written("broken.py", content="1 / 0"))


def test_records_name_no_file() -> None:
    with pytest.raises(MetricError, match=r"unknown metric '\./spread\.py:SPREAD'"):
        named_metric("./spread.py:SPREAD")


def test_an_installed_package_gives_metrics_by_entry_points(
    written: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(written("offered.py", "offered"))
    monkeypatch.syspath_prepend(place.parent)
    entry = EntryPoint(name="offered", value="offered:SPREAD", group=registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == entry.group else [])
    assert named_metric("offered").unit == "spread"
    with pytest.raises(MetricError, match=r"known: .*layers in place, offered;"):
        named_metric("missing")


def scored(seed: int, shift: float = 0.0, count: int = 200) -> Choices:
    """Questions of which each has its own likelihoods, the right one shifted."""
    answer = factories.choices(count, 0.7, seed=1).answer
    noise = factories.autoregressive(4 * count, 0.0, seed)
    rows = [[-3.0 - abs(noise[4 * i + c]) + shift * (c == a) for c in range(4)] for i, a in enumerate(answer)]
    predicted = [row.index(max(row)) for row in rows]
    return Choices(group=["a"] * count, answer=answer, predicted=predicted, log_likelihoods=rows)


def spread_records(name: str) -> list[Record]:
    task = TaskLabel(name="riddles/spread", version=1, metric=name)
    reference = scored(seed=0)
    narrow = [[0.1 * value for value in row] for row in reference.log_likelihoods or ()]
    return [
        factories.record(task, items=reference),
        factories.record(task, "int8-row", "real", items=msgspec.structs.replace(reference, log_likelihoods=narrow)),
        factories.record(task, "fp8-row", "real", items=reference),
    ]


@pytest.fixture
def spreads(written: Callable[..., str]) -> list[Record]:
    """bf16, a scheme that loses nine tenths, and one that loses nothing, of a metric that the suite has never seen."""
    metric(written())
    return spread_records("spread")


@pytest.mark.parametrize(("margins", "passed"), [({}, False), ({"spread": 5.0}, True)])
def test_the_gate_holds_an_unknown_metric_to_its_own_margin(
    margins: dict[str, float], passed: bool, spreads: list[Record]
) -> None:
    candidate, baseline = spreads[1], msgspec.structs.replace(spreads[1], items=spreads[0].items)
    result = gate([candidate], [baseline], margins=Margins(of_names=margins))
    assert result.passed == passed
    assert result.checks[0].comparison and result.checks[0].comparison.margin == margins.get("spread", 0.5)
    console = Console(file=io.StringIO())
    console.print(gate_summary(result))


def test_the_report_shows_an_unknown_metric_in_its_own_words(spreads: list[Record], tmp_path: Path) -> None:
    write_report(Run(records=spreads), tmp_path)
    page = (tmp_path / "report.md").read_text()
    for shown in ("higher is better", "Change from bf16, spread nats", "200 riddles", "margin of 0.5 spread nats"):
        assert shown in page
    assert "Yes, beyond the margin: riddles/spread." in page
    svg = next(tmp_path.glob("*ranking.svg")).read_text()
    assert "loss, spread nats" in svg


def test_the_terminal_shows_an_unknown_metric_in_its_own_words(spreads: list[Record]) -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(terminal_summary(spreads, Margins()))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "spread; change, spread nats" in shown and "(0.5 spread nats)" in shown and "worse" in shown


def test_a_margin_of_a_family_is_that_of_its_metrics() -> None:
    margins = Margins(of_options={"accuracy": 0.02}, of_names={"normalized accuracy": 0.03})
    names = ("accuracy", "normalized accuracy", "match rate", "word perplexity")
    assert [margins.of(metric(name)) for name in names] == [0.02, 0.03, 0.01, 0.01]


def test_a_margin_of_no_metric_of_the_run_is_refused() -> None:
    with pytest.raises(MarginError, match="--margin 'acuracy' names no metric of this run; it has accuracy"):
        Margins(of_names={"acuracy": 0.1}).check([metric("accuracy"), metric("divergence")])


def test_two_margins_of_one_name_are_refused_by_the_commands_too() -> None:
    result = quantsuite("gate", "run.jsonl", "--baseline", "bf16", "--accuracy-margin", "0", "--margin", "accuracy=1")
    assert (result.status, result.shown.count("\n")) == (2, 1)
    assert "--accuracy-margin 0 and --margin accuracy=1 both set the margin of accuracy" in result.shown


def test_a_margin_of_a_family_and_another_of_one_of_its_metrics_are_taken() -> None:
    RunOptions(accuracy_margin=0.02, margin=[("normalized accuracy", 0.03)]).check_margins()


def test_a_metric_of_no_margin_is_not_compared() -> None:
    alone = replace(metric("divergence"), margin=None)
    assert not alone.is_paired
    with pytest.raises(ValueError, match="divergence has no paired comparison"):
        Margins().of(alone)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"name": " "}, "is named ' '"), ({"better": "more"}, "says that 'more' is better"),
     ({"margin": Margin(default=-1.0)}, "the margin of spread is -1.0")],
)  # fmt: skip
def test_a_metric_that_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    whole = {"name": "spread", "items": Choices, "outcomes": len, "unit": "u", "better": "lower",
             "scale": Scale(change_unit="u"), **fields}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Metric(**whole)  # type: ignore[arg-type]


def test_a_metric_whose_value_is_not_finite_is_named() -> None:
    broken = Metric(name="broken", items=Matches, outcomes=lambda items: [math.nan], unit="u", better="lower",
                    scale=Scale(change_unit="u"))  # fmt: skip
    with pytest.raises(ValueError, match="the metric broken gives the value nan"):
        broken.value(Matches(matched=[True]))


def test_a_signed_mean_is_verified_relative_to_its_terms() -> None:
    signed = Metric(name="signed", items=Matches, outcomes=lambda items: [1.0, -1.0], unit="u", better="lower",
                    estimator=Mean(), scale=Scale(change_unit="u"), signed={"value": 1.0})  # fmt: skip
    for size, found in ((1e-15, None), (1e-12, "value")):
        named = disagreement(signed, Matches(matched=[True, True]), size, {})
        assert (named and named[0]) == found


@pytest.mark.parametrize(
    ("outcomes", "reason"),
    [
        (lambda items: [0.5] * (len(items) - 1), "the metric mine gives 2 outcomes of 3 items; give one each"),
        (lambda items: None, "the metric mine gives no outcomes: TypeError: "),
        (lambda items: 1 / 0, "the metric mine gives no outcomes: ZeroDivisionError: "),
    ],
)
def test_a_metric_that_gives_no_outcome_for_each_item_is_named(outcomes: Callable, reason: str) -> None:
    mine = Metric(
        name="mine", items=Choices, outcomes=outcomes, unit="share", better="higher", scale=Scale(change_unit="x")
    )
    for call in (mine.value, mine.interval):
        with pytest.raises(ValueError, match=reason):
            call(ENDINGS)
