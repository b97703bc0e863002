"""Power stated in closed form is that of simulated runs."""

import numpy as np
import pytest

from meta_tests.factories import changed_choices, changed_perplexities, choices, perplexities
from meta_tests.interval_coverage import DISTRIBUTIONS
from quantsuite.intervals import block_mean, paired_proportion_difference
from quantsuite.metrics import metric
from quantsuite.power import Flips, Spread, design_of, equivalent, items_needed, smallest_seen

MARGIN = 0.01
PERPLEXITY = metric("perplexity")
FIVE_PERCENT = Flips(share=0.05)


def simulated_flips(share: float, loss: float, items: int, runs: int = 10_000) -> tuple[float, float]:
    """Shares of runs whose interval lies above the margin, and not above it at all."""
    shares = [(share + loss) / 2, (share - loss) / 2, 1 - share]
    found, times = np.unique(
        np.random.default_rng(0).multinomial(items, shares, runs)[:, :2], axis=0, return_counts=True
    )
    worse = equal = 0
    for (lost, gained), count in zip(found.tolist(), times.tolist(), strict=True):
        change = paired_proportion_difference(lost, gained, items)
        worse += count * (-change.high > MARGIN)
        equal += count * (-change.low <= MARGIN)
    return worse / runs, equal / runs


def simulated_means(draw: str, loss: float, items: int, runs: int = 4000) -> tuple[float, float]:
    """The same of means of items whose deviation is 0.05."""
    losses = loss + 0.05 * DISTRIBUTIONS[draw](np.random.default_rng(1), (runs, items))
    found = [block_mean(row, np.ones(items))[0] for row in losses]
    return sum(each.low > MARGIN for each in found) / runs, sum(each.high <= MARGIN for each in found) / runs


def test_at_five_percent_flips_and_a_thousand_questions_two_points_are_seen_in_27_percent_of_runs() -> None:
    assert FIVE_PERCENT.beyond(0.02, MARGIN, 1000) == pytest.approx(0.27, abs=0.01)


def test_at_five_percent_flips_and_a_thousand_questions_71_percent_of_lossless_runs_are_undecided() -> None:
    decided = equivalent(FIVE_PERCENT, MARGIN, 1000) + FIVE_PERCENT.beyond(0, MARGIN, 1000)
    assert 1 - decided == pytest.approx(0.71, abs=0.01)


@pytest.mark.parametrize(
    ("share", "loss", "items"), [(0.05, 0.02, 1000), (0.02, 0.0, 1000), (0.3, 0.1, 200), (0.05, 0.05, 40)]
)
def test_the_power_of_a_proportion_is_that_of_simulated_runs(share: float, loss: float, items: int) -> None:
    worse, equal = simulated_flips(share, loss, items)
    design = Flips(share=share)
    found = design.beyond(loss, MARGIN, items), equivalent(design, MARGIN, items, loss=loss)
    assert found == pytest.approx((worse, equal), abs=0.02)


@pytest.mark.parametrize("items", [30, 148, 1000])
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.03])
def test_the_power_of_a_mean_is_that_of_simulated_runs(items: int, loss: float) -> None:
    length = np.ceil(np.cbrt(items))
    design = Spread(error=0.05 / items**0.5, items=items, blocks=items / length)
    found = design.beyond(loss, MARGIN, items), equivalent(design, MARGIN, items, loss=loss)
    assert found == pytest.approx(simulated_means("independent, normal", loss, items), abs=0.04)


def test_the_design_of_questions_is_the_share_of_them_that_flips() -> None:
    before = choices(400, 0.8)
    design = design_of(metric("accuracy"), before, changed_choices(before, lost=14, gained=6))
    assert design == Flips(share=21 / 402)


@pytest.mark.parametrize(("correlation", "tolerance"), [(0.0, 0.1), (0.6, 0.2)])
def test_the_design_of_a_long_text_foretells_the_interval_of_a_longer_one(correlation: float, tolerance: float) -> None:
    def error(items: int) -> tuple[Spread, float]:
        before = perplexities(items)
        after = changed_perplexities(before, change=0.0, noise=0.01, correlation=correlation, seed=3)
        design = design_of(PERPLEXITY, before, after)
        assert isinstance(design, Spread)
        return design, design.error

    short, error_of_short = error(2000)
    assert error_of_short / 2 == pytest.approx(error(8000)[1], rel=tolerance)
    loss = smallest_seen(short, 0.0, 8000)
    assert loss == pytest.approx(2.8 * error_of_short / 2, rel=0.02)


def test_half_of_runs_see_a_loss_as_large_as_half_their_interval() -> None:
    before = perplexities(400)
    after = changed_perplexities(before, change=0.0, noise=0.01)
    design, interval = design_of(PERPLEXITY, before, after), PERPLEXITY.compare(before, after).interval
    assert design is not None
    half = (interval.high - interval.low) / 2
    assert smallest_seen(design, 0.0, 400, 0.5) == pytest.approx(half, rel=0.02)


def test_fewer_windows_than_an_interval_takes_show_nothing() -> None:
    design = Spread(error=0.001, items=100, blocks=20)
    assert design.beyond(1.0, MARGIN, 9) == 0 < design.beyond(1.0, MARGIN, 10)


def test_too_few_windows_have_no_design() -> None:
    before = perplexities(9)
    assert design_of(PERPLEXITY, before, changed_perplexities(before, change=0.1)) is None


@pytest.mark.parametrize("design", [FIVE_PERCENT, Spread(error=0.004, items=100, blocks=20)])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_smallest_loss_seen_is_seen_as_often_as_asked(design: Flips | Spread, power: float) -> None:
    loss = smallest_seen(design, MARGIN, 500, power)
    assert loss is not None and loss > MARGIN
    assert design.beyond(loss, MARGIN, 500) == pytest.approx(power, abs=1e-6)


@pytest.mark.parametrize("design", [FIVE_PERCENT, Spread(error=0.004, items=100, blocks=20)])
@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_the_items_needed_decide_as_often_as_asked_and_fewer_do_not(design: Flips | Spread, loss: float) -> None:
    def decided(items: int) -> float:
        return design.beyond(loss, MARGIN, items) if loss else equivalent(design, MARGIN, items)

    items = items_needed(design, loss, MARGIN, 0.8)
    assert items is not None
    assert decided(items) >= 0.8 > decided(round(0.97 * items))


def test_two_points_take_four_thousand_questions() -> None:
    assert items_needed(FIVE_PERCENT, 0.02, MARGIN, 0.8) == pytest.approx(3900, rel=0.03)


def test_a_loss_on_the_margin_is_decided_by_no_number_of_items() -> None:
    with pytest.raises(ValueError, match=r"lies on the margin of 0\.01"):
        items_needed(FIVE_PERCENT, MARGIN, MARGIN)


def test_what_takes_more_items_than_there_are_has_no_number() -> None:
    assert items_needed(FIVE_PERCENT, 0.010001, MARGIN) is None


def test_identical_answers_are_equivalent_only_where_there_are_enough() -> None:
    assert [equivalent(Flips(share=0), MARGIN, items) for items in (40, 1000)] == [0, 1]


def test_so_few_questions_show_no_loss_at_all() -> None:
    assert smallest_seen(FIVE_PERCENT, MARGIN, 2) is None
