"""Paired comparisons, verdicts and ranks against what they claim."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_tests import factories
from quantsuite import intervals, statistics
from quantsuite.intervals import FEWEST_ITEMS, Interval
from quantsuite.margins import Margins
from quantsuite.metrics import Choices, Items, Metric, Truths, metric
from quantsuite.statistics import Verdict

ACCURACY, PERPLEXITY, TRUTH_MASS, DIVERGENCE = map(metric, ("accuracy", "perplexity", "truth mass", "divergence"))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.030, -0.020, "equivalent or better"),
        (-0.005, 0.005, "equivalent or better"),
        (0.002, 0.008, "equivalent or better"),
        (0.002, 0.010, "equivalent or better"),
        (0.002, 0.011, "undecided"),
        (-0.030, 0.011, "undecided"),
        (0.010, 0.020, "undecided"),
        (0.011, 0.020, "worse"),
    ],
)
def test_the_verdict_is_where_the_interval_lies_against_a_margin_of_one_point(
    low: float, high: float, expected: Verdict
) -> None:
    assert statistics.verdict(Interval(estimate=(low + high) / 2, low=low, high=high), 0.01) == expected


@given(lost=st.integers(0, 200), gained=st.integers(0, 200))
def test_the_items_to_decide_decide_if_the_change_stays(lost: int, gained: int) -> None:
    """Bonett and Price add a pseudo-count to each cell, which moves the centre: a tenth more is enough."""
    reference = factories.choices(1000, 0.7)
    change = factories.changed_choices(reference, lost=lost, gained=gained)
    comparison = statistics.compare(ACCURACY, reference, change, Margins())
    if (items := comparison.items_to_decide) is None:
        assert comparison.verdict != "undecided" or comparison.loss.estimate == comparison.margin
    else:
        more = 1.1 * items / 1000
        interval = intervals.paired_proportion_difference(round(gained * more), round(lost * more), round(1000 * more))
        assert statistics.verdict(interval, comparison.margin) != "undecided"


@given(lost=st.integers(0, 300), gained=st.integers(0, 200))
def test_a_change_of_accuracy_is_that_of_its_flips(lost: int, gained: int) -> None:
    reference = factories.choices(500, 0.6)
    candidate = factories.changed_choices(reference, lost=lost, gained=gained)
    comparison = statistics.compare(ACCURACY, reference, candidate, Margins())
    assert (comparison.lost, comparison.gained) == (lost, gained)
    assert comparison.change.estimate == (gained - lost) / 500
    assert comparison.loss == Interval(
        estimate=-comparison.change.estimate, low=-comparison.change.high, high=-comparison.change.low
    )


def test_a_change_of_perplexity_is_that_of_its_logarithm() -> None:
    reference = factories.perplexities(100)
    candidate = factories.changed_perplexities(reference, change=0.02)
    comparison = statistics.compare(PERPLEXITY, reference, candidate, Margins())
    values = [math.exp(sum(items.nats) / sum(items.units)) for items in (reference, candidate)]
    assert comparison.change.estimate == pytest.approx(math.log(values[1] / values[0]), rel=1e-9)
    assert comparison.loss == comparison.change


def test_a_perplexity_is_inside_its_interval() -> None:
    items = factories.perplexities(100)
    interval = PERPLEXITY.interval(items)
    assert interval.low < PERPLEXITY.value(items) < interval.high
    assert interval.estimate == pytest.approx(PERPLEXITY.value(items), rel=1e-12)


def truths(count: int) -> Truths:
    rows = [[-1.0, -1.0 - 0.1 * index] for index in range(count)]
    return Truths(group=["all"] * count, truth=[[True, False]] * count, log_likelihoods=rows)


def test_identical_outcomes_are_no_change() -> None:
    items = factories.perplexities(60)
    comparison = statistics.compare(PERPLEXITY, items, items, Margins())
    assert comparison.identical and comparison.p_value == 1


@pytest.mark.parametrize(
    ("measure", "items", "noun"),
    [(PERPLEXITY, factories.perplexities, "windows"), (TRUTH_MASS, truths, "questions")],
    ids=["perplexity", "mean"],
)
def test_below_ten_items_a_comparison_is_undecided_with_the_reason(
    measure: Metric, items: Callable[[int], Items], noun: str
) -> None:
    few, enough = (
        statistics.compare(measure, items(count), items(count), Margins()) for count in (FEWEST_ITEMS - 1, FEWEST_ITEMS)
    )
    assert (few.verdict, enough.verdict) == ("undecided", "equivalent or better")
    assert few.too_few == f"too few {noun}: 9, an interval takes 10; raise --limit"
    assert not enough.too_few


def test_a_change_of_too_few_items_is_still_estimated() -> None:
    reference = factories.perplexities(4)
    comparison = statistics.compare(
        PERPLEXITY, reference, factories.changed_perplexities(reference, change=0.5, noise=0), Margins()
    )
    assert comparison.change.estimate == pytest.approx(0.5)
    assert (comparison.p_value, comparison.items_to_decide) == (1, None)


def test_a_perplexity_of_too_few_items_is_unbounded() -> None:
    items = factories.perplexities(FEWEST_ITEMS - 1)
    interval = PERPLEXITY.interval(items)
    assert not interval.is_bounded
    assert interval.estimate == pytest.approx(PERPLEXITY.value(items))


def test_a_proportion_of_few_items_has_its_interval() -> None:
    comparison = statistics.compare(ACCURACY, factories.choices(4, 1), factories.choices(4, 0), Margins())
    assert comparison.verdict == "worse" and not comparison.too_few
    assert ACCURACY.interval(factories.choices(4, 0.5)).is_bounded


@pytest.mark.parametrize(
    ("measure", "reference", "candidate", "message"),
    [
        (ACCURACY, factories.choices(100, 0.5), factories.choices(99, 0.5), "measure both on the same items"),
        (
            ACCURACY,
            factories.choices(100, 0.5),
            factories.perplexities(100),
            "100 Choices cannot be paired with 100 Perplex",
        ),
        (
            PERPLEXITY,
            factories.perplexities(100),
            factories.perplexities(100, seed=1),
            "measure both with the same tokenizer",
        ),
        (
            replace(DIVERGENCE, margin=None),
            factories.divergences(100),
            factories.divergences(100),
            "divergence has no paired comparison",
        ),
    ],
    ids=["number", "kind", "units", "drift"],
)
def test_what_is_not_of_the_same_items_is_not_compared(
    measure: Metric, reference: Items, candidate: Items, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        statistics.compare(measure, reference, candidate, Margins())


def answers(correct: Sequence[bool]) -> Choices:
    return Choices(group=["all"] * len(correct), answer=[0] * len(correct), predicted=[0 if c else 1 for c in correct])


@st.composite
def candidates(draw: st.DrawFn) -> list[Choices]:
    """Up to six candidates on the same few questions, often with equal accuracies."""
    count = draw(st.integers(8, 40))
    row = st.lists(st.booleans(), min_size=count, max_size=count)
    return [answers(correct) for correct in draw(st.lists(row, min_size=1, max_size=6))]


@given(items=candidates(), data=st.data())
def test_ranks_do_not_depend_on_the_order_given(items: list[Choices], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(items))))
    ranks = statistics.shared_ranks(ACCURACY, items)
    assert statistics.shared_ranks(ACCURACY, [items[i] for i in order]) == [ranks[i] for i in order]


@given(items=candidates())
def test_ranks_are_one_more_than_the_number_of_candidates_in_better_groups(items: list[Choices]) -> None:
    ranks = statistics.shared_ranks(ACCURACY, items)
    assert all(rank == 1 + sum(other < rank for other in ranks) for rank in ranks)


@given(items=candidates())
def test_no_candidate_ranks_before_one_with_more_right_answers(items: list[Choices]) -> None:
    by_rank = sorted(zip(statistics.shared_ranks(ACCURACY, items), [-sum(i.correct) for i in items], strict=True))
    assert all(a[0] == b[0] or a[1] <= b[1] for a, b in itertools.pairwise(by_rank))


@pytest.mark.parametrize(
    ("measure", "items"),
    [(ACCURACY, factories.choices(50, 0.7)), (PERPLEXITY, factories.perplexities(50))],
    ids=["choices", "text"],
)
def test_identical_outcomes_share_the_first_rank(measure: Metric, items: Items) -> None:
    assert statistics.shared_ranks(measure, [items] * 4) == [1, 1, 1, 1]


def test_well_separated_accuracies_have_ranks_of_their_own() -> None:
    items = [factories.choices(1000, accuracy) for accuracy in (0.5, 0.9, 0.3, 0.7)]
    assert statistics.shared_ranks(ACCURACY, items) == [3, 1, 4, 2]


def test_well_separated_perplexities_have_ranks_of_their_own() -> None:
    reference = factories.perplexities(100)
    items = [factories.changed_perplexities(reference, change=change) for change in (0.1, 0.0, 0.3, 0.2)]
    assert statistics.shared_ranks(PERPLEXITY, items) == [2, 1, 4, 3]


def test_what_cannot_be_told_from_the_first_of_its_group_shares_its_rank() -> None:
    reference = factories.choices(1000, 0.7)
    items = [factories.changed_choices(reference, lost=lost, gained=10) for lost in (10, 14, 80, 84)]
    assert statistics.shared_ranks(ACCURACY, items) == [1, 1, 3, 3]


def test_too_few_items_share_the_first_rank() -> None:
    reference = factories.perplexities(FEWEST_ITEMS - 1)
    items = [factories.changed_perplexities(reference, change=change) for change in (0.1, 0.0, 0.3, 0.2)]
    assert statistics.shared_ranks(PERPLEXITY, items) == [1, 1, 1, 1]
