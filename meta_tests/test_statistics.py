"""Intervals, tests and verdicts against published values, other implementations and their own claims."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import contingency_tables, proportion

from meta_tests import factories
from meta_tests.tolerance import FALSE_ALARM, fewest
from quantsuite import intervals, statistics
from quantsuite.intervals import CONFIDENCE, Interval
from quantsuite.margins import Margins
from quantsuite.metrics import Choices, Items, Metric, metric
from quantsuite.statistics import Verdict

ACCURACY, PERPLEXITY, DIVERGENCE = map(metric, ("accuracy", "perplexity", "divergence"))
SIMULATIONS = 300
RESAMPLES = 300
"""Of each simulated interval: coverage is averaged over simulations, so that fewer than in a report do."""


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_those_of_newcombe_1998(successes: int, trials: int, low: float, high: float) -> None:
    """Statistics in Medicine 17, 857-872, table I, method 3, printed to four digits."""
    interval = intervals.wilson(successes, trials)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@given(trials=st.integers(1, 20_000), share=st.floats(0, 1))
def test_wilson_intervals_are_those_of_statsmodels(trials: int, share: float) -> None:
    successes = round(share * trials)
    interval = intervals.wilson(successes, trials)
    expected = proportion.proportion_confint(successes, trials, 1 - CONFIDENCE, method="wilson")
    assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_proportion_of_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="no trials"):
        intervals.wilson(0, 0)


@given(lost=st.integers(0, 300), gained=st.integers(0, 300))
def test_mcnemar_is_the_exact_test_of_statsmodels(lost: int, gained: int) -> None:
    expected = contingency_tables.mcnemar([[50, lost], [gained, 50]], exact=True).pvalue
    assert intervals.mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)


def coverage(p_lost: float, p_gained: float, trials: int) -> float:
    """The exact probability that the interval of a change covers it, summed over what can be drawn."""
    covered = 0.0
    for lost in range(trials + 1):
        chance = stats.binom.pmf(lost, trials, p_lost)
        gains = stats.binom.pmf(np.arange(trials - lost + 1), trials - lost, p_gained / (1 - p_lost)) * chance
        for gained in np.flatnonzero(gains > 1e-9):
            interval = intervals.paired_proportion_difference(lost, int(gained), trials)
            covered += gains[gained] * (interval.low <= p_gained - p_lost <= interval.high)
    return float(covered)


@pytest.mark.parametrize(
    ("p_lost", "p_gained", "trials"),
    [(0.05, 0.05, 100), (0.1, 0.02, 100), (0.2, 0.1, 50), (0.02, 0.02, 300), (0.06, 0.02, 300)],
)
def test_the_interval_of_a_paired_change_covers_it_as_often_as_it_claims(
    p_lost: float, p_gained: float, trials: int
) -> None:
    assert coverage(p_lost, p_gained, trials) >= CONFIDENCE


@pytest.mark.parametrize("trials", [100, 300, 1000])
@pytest.mark.parametrize("p_lost", [0.01, 0.03, 0.1, 0.3])
def test_the_interval_of_a_change_without_gains_falls_little_short_of_its_claim(p_lost: float, trials: int) -> None:
    """It is an approximation, and this its hardest case: 93.8% for a tenth of 100 items is the least of this grid."""
    assert coverage(p_lost, 0.0, trials) >= 0.937


def covers_zero(series: Sequence[float]) -> bool:
    return intervals.block_bootstrap(series, np.ones(len(series)))[0].covers_zero


CORRELATION, LENGTH, BLOCK = 0.5, 100, 5
"""Blocks of 100 items have round(100 ** (1/3)) = 5."""


@pytest.fixture(scope="module")
def correlated_series() -> list[list[float]]:
    return [factories.autoregressive(LENGTH, CORRELATION, seed) for seed in range(SIMULATIONS)]


def expected_coverage(variance_seen: float) -> float:
    """Of the mean of an AR(1) series, by an interval that sees ``variance_seen`` instead of (1 + r) / (1 - r)."""
    variance = (1 + CORRELATION) / (1 - CORRELATION)
    return 2 * float(stats.norm.cdf(stats.norm.ppf(0.5 + CONFIDENCE / 2) * math.sqrt(variance_seen / variance))) - 1


def test_blocks_cover_the_mean_of_correlated_items_as_often_as_theory_says(
    correlated_series: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of length b see the variance 1 + 2 sum (1 - k/b) r^k (Künsch, 1989)."""
    monkeypatch.setattr(intervals, "RESAMPLES", RESAMPLES)
    seen = 1 + 2 * sum((1 - lag / BLOCK) * CORRELATION**lag for lag in range(1, BLOCK))
    covered = sum(map(covers_zero, correlated_series))
    assert covered >= fewest(SIMULATIONS, expected_coverage(seen))


def test_blocks_cover_more_often_than_the_independent_bootstrap(
    correlated_series: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same values in random order are resampled as if they were independent; a one-sided sign test."""
    monkeypatch.setattr(intervals, "RESAMPLES", RESAMPLES)
    generator = np.random.default_rng(0)
    blocks = [covers_zero(series) for series in correlated_series]
    independent = [covers_zero(generator.permutation(series)) for series in correlated_series]
    only_blocks = sum(b and not i for b, i in zip(blocks, independent, strict=True))
    only_independent = sum(i and not b for b, i in zip(blocks, independent, strict=True))
    assert stats.binomtest(only_blocks, only_blocks + only_independent, alternative="greater").pvalue < FALSE_ALARM


def test_the_bootstrap_repeats_itself() -> None:
    series = factories.autoregressive(40, 0.5, seed=1)
    assert intervals.block_bootstrap(series, [1] * 40) == intervals.block_bootstrap(series, [1] * 40)


@pytest.mark.parametrize(("correlation", "longer"), [(0.0, False), (0.8, True)])
def test_strong_correlation_takes_longer_blocks(correlation: float, longer: bool) -> None:
    least = round(200 ** (1 / 3))
    lengths = [
        intervals._block_length(np.array(factories.autoregressive(200, correlation, seed))) for seed in range(100)
    ]
    assert min(lengths) >= least
    assert (np.median(lengths) > least) == longer


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("items", range(2, 2 * intervals.FEWEST_CORRELATED))
def test_few_items_have_an_interval_too(items: int) -> None:
    interval, _ = intervals.block_bootstrap(factories.autoregressive(items, 0.5, seed=items), np.ones(items))
    assert interval.low < interval.estimate < interval.high


@given(seed=st.integers(0, 1000), change=st.floats(-0.3, 0.3))
def test_the_p_value_of_zero_belongs_to_the_interval(seed: int, change: float) -> None:
    """Up to the interpolation of the quantiles and the one resample that is added to both sides."""
    series = np.array(factories.autoregressive(60, 0.3, seed)) + change
    interval, p_value = intervals.block_bootstrap(series, np.ones(60))
    inclusive = 4 / intervals.RESAMPLES
    assert interval.covers_zero or p_value <= 1 - CONFIDENCE + inclusive
    assert not interval.covers_zero or p_value >= 1 - CONFIDENCE - inclusive


def test_identical_outcomes_give_no_evidence_of_a_change() -> None:
    assert intervals.block_bootstrap(np.zeros(60), np.ones(60))[1] == 1
    items = factories.perplexities(60)
    comparison = statistics.compare(PERPLEXITY, items, items, Margins())
    assert comparison.identical and comparison.p_value == 1


def test_one_item_cannot_be_resampled() -> None:
    with pytest.raises(ValueError, match="1 item cannot be resampled; raise --limit"):
        intervals.block_bootstrap([1.0], [1])


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
        (DIVERGENCE, factories.divergences(100), factories.divergences(100), "divergence has no paired comparison"),
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
