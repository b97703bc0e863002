"""The gate's error rates under planted regressions, and the reasons with which it fails."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from meta_tests import factories
from meta_tests.gated import CHOICES, WORSE, cell, failures, replaced
from meta_tests.tolerance import fewest, most
from quantsuite import intervals
from quantsuite.gate import gate, gate_against_reference
from quantsuite.margins import MODES, Margins, Mode
from quantsuite.metrics import Items, registry
from quantsuite.records import Outcome, Record, TaskLabel

MARGIN = 0.01
Z = float(stats.norm.ppf(0.5 + intervals.CONFIDENCE / 2))
CHANCE = (1 - intervals.CONFIDENCE) / 2
"""Of the verdict worse for a loss exactly at the margin: one tail of the interval."""
POWER = 0.9
"""With which the gate must catch a loss several standard errors beyond the margin."""


def status(candidate: Items, baseline: Items, task: TaskLabel) -> str:
    return gate([cell(candidate, task)], [cell(baseline, task)]).checks[0].status


def count_worse_accuracy(items: int, p_lost: float, p_gained: float, simulations: int) -> int:
    """Of simulated candidates, each question lost or gained by chance, how many the gate finds worse."""
    baseline = factories.choices(items, 0.5)
    draws = np.random.default_rng(0).multinomial(items, [p_lost, p_gained, 1 - p_lost - p_gained], simulations)
    return sum(
        status(factories.changed_choices(baseline, lost=int(lost), gained=int(gained)), baseline, factories.DIRECT)
        == "worse"
        for lost, gained, _ in draws
    )


@pytest.mark.parametrize(
    ("items", "p_lost", "p_gained"),
    [(1000, 0.05, 0.01), (1000, 0.06, 0.02), (4000, 0.09, 0.05), (14042, 0.12, 0.08), (14042, 0.06, 0.04)],
)
def test_a_planted_loss_of_accuracy_is_caught_as_often_as_theory_says(
    items: int, p_lost: float, p_gained: float
) -> None:
    """Normal theory: the loss beyond the margin in standard errors of a paired difference, less z."""
    simulations, loss = 200, p_lost - p_gained
    error = math.sqrt((p_lost + p_gained - loss**2) / items)
    power = float(stats.norm.cdf((loss - MARGIN) / error - Z))
    assert power >= POWER
    caught = count_worse_accuracy(items, p_lost, p_gained, simulations)
    assert caught >= max(POWER * simulations, fewest(simulations, power))


@pytest.mark.parametrize(("items", "discordant"), [(1000, 0.05), (1000, 0.2), (14042, 0.05)])
def test_a_difference_without_loss_is_hardly_ever_worse(items: int, discordant: float) -> None:
    simulations = 1000 if items == 1000 else 200
    assert count_worse_accuracy(items, discordant / 2, discordant / 2, simulations) <= most(simulations, CHANCE)


@pytest.mark.parametrize(("items", "discordant"), [(1000, 0.05), (1000, 0.2), (4000, 0.05)])
def test_a_loss_of_exactly_the_margin_is_worse_in_one_tail_of_the_interval(items: int, discordant: float) -> None:
    simulations = 1000
    p_lost, p_gained = (discordant + MARGIN) / 2, (discordant - MARGIN) / 2
    worse = count_worse_accuracy(items, p_lost, p_gained, simulations)
    assert fewest(simulations, CHANCE) <= worse <= most(simulations, CHANCE)


WINDOWS, NOISE, CORRELATION, BLOCK = 146, 0.05, 0.3, 6
"""As many windows as WikiText-2 has, noise of a window's nats a token; blocks have 146 ** (1/3) items, rounded up."""
SIMULATIONS = 500
BASELINE = factories.perplexities(WINDOWS)


def mean_error(lags: int, taper: bool) -> float:
    """Standard error of the mean change per token, from its covariances up to a lag.

    With the taper of moving blocks, ``1 - lag / lags``, it is the error that blocks of
    ``lags`` items see; without it, and with all lags, the true one.
    """
    sizes = np.array(BASELINE.units, dtype=float)
    lag = np.abs(np.subtract.outer(np.arange(WINDOWS), np.arange(WINDOWS)))
    covariance = np.where(lag < lags, CORRELATION**lag * (1 - lag / lags if taper else 1), 0)
    return NOISE * math.sqrt(sizes @ covariance @ sizes) / sizes.sum()


def rate_worse_perplexity(loss: float) -> float:
    """Student's t of the blocks, with the interval as wide as they see it and the mean as variable as it is."""
    true, seen = mean_error(WINDOWS, taper=False), mean_error(BLOCK, taper=True)
    freedom = WINDOWS / BLOCK - 1
    quantile = stats.t.ppf(1 - CHANCE, freedom) * seen / true
    return float(stats.nct.sf(quantile, freedom, (loss - MARGIN) / true))


def count_worse_perplexity(loss: float) -> int:
    return sum(
        status(
            factories.changed_perplexities(BASELINE, change=loss, noise=NOISE, correlation=CORRELATION, seed=seed),
            BASELINE,
            factories.PERPLEXITY,
        )
        == "worse"
        for seed in range(SIMULATIONS)
    )


def test_a_planted_loss_of_perplexity_is_caught_as_often_as_theory_says() -> None:
    power = rate_worse_perplexity(0.035)
    assert power >= POWER
    caught = count_worse_perplexity(0.035)
    assert caught >= max(POWER * SIMULATIONS, fewest(SIMULATIONS, power))


def test_correlated_noise_without_loss_is_hardly_ever_worse() -> None:
    assert count_worse_perplexity(0.0) <= most(SIMULATIONS, CHANCE)


def test_a_perplexity_exactly_at_the_margin_is_worse_as_often_as_theory_says() -> None:
    """More often than one tail, since blocks of six windows miss some of their correlation."""
    assert CHANCE < rate_worse_perplexity(MARGIN) < 2 * CHANCE
    assert count_worse_perplexity(MARGIN) <= most(SIMULATIONS, rate_worse_perplexity(MARGIN))


UNDECIDED = factories.changed_choices(CHOICES, lost=30, gained=15)


@pytest.mark.parametrize("mode", MODES)
def test_equal_outcomes_pass(mode: Mode) -> None:
    result = gate([cell(CHOICES)], [cell(CHOICES)], mode=mode)
    assert result.passed
    assert result.summary == "gate passed: 1 of 1 cells compared, none worse"


@pytest.mark.parametrize("mode", MODES)
def test_a_worse_cell_fails_and_says_by_how_much(mode: Mode) -> None:
    [(found, reason)] = failures(gate([cell(WORSE)], [cell(CHOICES)], mode=mode))
    assert found == "worse"
    assert reason.startswith("loss +0.0700 [+0.05")
    assert reason.endswith("against a margin of 0.01")


def test_an_undecided_cell_passes() -> None:
    result = gate([cell(UNDECIDED)], [cell(CHOICES)])
    assert result.passed
    assert result.checks[0].status == "undecided"


def test_an_undecided_cell_fails_in_strict_mode_and_says_how_many_items_would_decide() -> None:
    [(found, reason)] = failures(gate([cell(UNDECIDED)], [cell(CHOICES)], mode="strict"))
    assert found == "undecided"
    assert "items would decide, there are 1,000" in reason


@given(lost=st.integers(0, 200), more=st.integers(0, 100))
def test_an_improvement_never_fails(lost: int, more: int) -> None:
    assert gate([cell(factories.changed_choices(CHOICES, lost=lost, gained=lost + more))], [cell(CHOICES)]).passed


@pytest.mark.parametrize("mode", MODES)
def test_a_better_perplexity_passes(mode: Mode) -> None:
    better = cell(factories.changed_perplexities(BASELINE, change=-0.1), factories.PERPLEXITY)
    assert gate([better], [cell(BASELINE, factories.PERPLEXITY)], mode=mode).passed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", [-0.2, 0.0, 0.5])
def test_too_few_windows_never_pass_and_name_the_way_out(change: float, mode: Mode) -> None:
    few = factories.perplexities(4)
    changed = cell(factories.changed_perplexities(few, change=change, noise=0), factories.PERPLEXITY)
    assert failures(gate([changed], [cell(few, factories.PERPLEXITY)], mode=mode)) == [
        ("not comparable", "too few documents: 4, an interval takes 10; raise --limit")
    ]


def test_a_wider_margin_lets_a_loss_pass() -> None:
    assert gate([cell(WORSE)], [cell(CHOICES)], margins=Margins(of_options={"accuracy": 0.1})).passed


@pytest.mark.parametrize("outcome", ["skipped", "error", "failed", "xfailed", "unsupported"])
def test_a_cell_without_items_fails_with_its_own_reason(outcome: Outcome) -> None:
    missing = cell(None, outcome=outcome, reason="no dataset")
    assert failures(gate([missing], [cell(CHOICES)])) == [("not measured", f"{outcome}: no dataset")]


def test_a_cell_that_failed_its_own_test_fails_with_its_items() -> None:
    failed = cell(CHOICES, reason="it is no number")
    assert failures(gate([replaced(failed, outcome="failed")], [failed])) == [
        ("not measured", "failed: it is no number")
    ]


def test_layers_are_held_to_their_own_test() -> None:
    right, wrong = factories.layers({}), factories.layers({3: "a fault"})
    records = [cell(CHOICES), right]
    assert gate(records, records).passed
    assert failures(gate([cell(CHOICES), wrong], records))[0][0] == "not measured"


def test_a_baseline_without_items_fails() -> None:
    baseline = cell(None, outcome="skipped", reason="no dataset")
    expected = [("not measured", "the baseline itself: skipped: no dataset")]
    assert failures(gate([cell(CHOICES)], [baseline])) == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task__version": 2}, "task version is 2, not 1"),
        ({"task__sha256": "ab" * 32}, "task file is abababababab, not "),
        ({"subject__engine": "vllm"}, "engine is vllm, not transformers"),
        ({"environment__device": "NVIDIA H200"}, "device is NVIDIA H200, not cpu"),
        ({"environment__dtype": "fp16"}, "dtype is fp16, not bf16"),
        ({"environment__versions": {"torch": "2.14.0"}}, "torch is 2.14, not 2.13"),
        ({"subject__model_sha256": "cd" * 32}, "model sha256 is cdcdcdcdcdcd, not abababababab; the weights"),
        ({"subject__model_sha256": "cd" * 32}, "are others: measure the baseline again"),
        ({"dataset__sha256": "00"}, "items of world (sha256 00, "),
        ({"dataset__seed": 1}, "seed 1), not "),
        ({"dataset__limit": 7_000}, "limit 7000, seed 42), not "),
        ({"environment__dtype": "fp16", "environment__device": "cuda"}, "device is cuda, not cpu; dtype is fp16"),
    ],
    ids=lambda changes: "-".join(changes) if isinstance(changes, dict) else "",
)
def test_another_condition_is_not_comparable(changes: dict[str, object], reason: str) -> None:
    [(found, given_reason)] = failures(gate([replaced(cell(CHOICES), **changes)], [cell(CHOICES)]))
    assert found == "not comparable"
    assert reason in given_reason


def test_another_dtype_is_not_said_to_be_another_model() -> None:
    other = replaced(cell(CHOICES), environment__dtype="fp16", subject__model_sha256="cd" * 32)
    assert failures(gate([other], [cell(CHOICES)])) == [("not comparable", "dtype is fp16, not bf16")]


def test_a_baseline_of_unknown_weights_is_compared() -> None:
    assert gate([cell(CHOICES)], [replaced(cell(CHOICES), subject__model_sha256="")]).passed


@pytest.mark.parametrize("changes", [{"environment__versions": {"torch": "2.13.1+cu130"}}, {"seconds": 99.0}], ids=str)
def test_a_condition_that_changes_no_outcome_is_comparable(changes: dict[str, object]) -> None:
    assert gate([replaced(cell(CHOICES), **changes)], [cell(CHOICES)]).passed


@pytest.mark.parametrize("records", [[], [cell(CHOICES)]], ids=["empty run", "a run"])
def test_an_empty_baseline_is_no_evidence(records: list[Record]) -> None:
    result = gate(records, [])
    assert not result.passed
    assert result.summary == "gate failed: nothing was compared; an empty comparison is no evidence"


@pytest.mark.parametrize("bad", range(3))
def test_one_bad_cell_of_several_fails(bad: int) -> None:
    schemes = ["int8-row", "fp8-row", "fp8-g128"]
    run = [cell(WORSE if index == bad else CHOICES, scheme=name) for index, name in enumerate(schemes)]
    result = gate(run, [cell(CHOICES, scheme=name) for name in schemes])
    assert [check.label for check in result.failures] == [f"{schemes[bad]}-simulated"]
    assert result.summary == "gate failed: 1 of 3 cells"


def test_against_the_reference_each_quantized_cell_is_compared_with_bf16_of_its_own_metric() -> None:
    generated = factories.choices(1000, 0.4, seed=1)
    run = [cell(CHOICES, scheme="bf16"), cell(generated, factories.GENERATE, scheme="bf16")]
    run += [cell(WORSE), cell(generated, factories.GENERATE)]
    result = gate_against_reference(run)
    assert [(check.label, check.task, check.status) for check in result.checks] == [
        ("int8-row-simulated", "world-mmlu/direct", "worse"),
        ("int8-row-simulated", "world-mmlu/generate", "pass"),
    ]


def test_against_the_reference_a_run_without_it_fails() -> None:
    reason = "the run has no bf16 of this model and task; add bf16 to --scheme"
    assert failures(gate_against_reference([cell(CHOICES)])) == [("absent", reason)]


def test_against_the_reference_a_run_of_nothing_else_is_no_evidence() -> None:
    assert not gate_against_reference([cell(CHOICES, scheme="bf16")]).passed


def test_a_run_in_two_dtypes_is_compared_in_that_of_the_baseline() -> None:
    ours, other = cell(CHOICES), replaced(cell(CHOICES), environment__dtype="fp32")
    for run in ([ours, other], [other, ours]):
        assert gate(run, [ours]).passed and gate(run, [other]).passed


def test_against_the_reference_each_dtype_has_its_own() -> None:
    def in_dtype(dtype: str) -> list[Record]:
        return [replaced(cell(CHOICES, scheme=name), environment__dtype=dtype) for name in ("bf16", "int8-row")]

    assert gate_against_reference([*in_dtype("bf16"), *in_dtype("fp32")]).passed
    assert not gate_against_reference([*in_dtype("bf16"), *in_dtype("fp32")[1:]]).passed


def test_outcomes_without_a_paired_comparison_are_not_comparable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILT_IN, "divergence", replace(registry.DIVERGENCE, margin=None))
    drifted = factories.record(factories.DRIFT, "int8-row", "simulated", items=factories.divergences(20))
    result = gate([drifted], [drifted])
    assert [check.status for check in result.checks] == ["not comparable"]
    assert not result.passed


def test_a_cell_is_compared_with_the_record_of_its_own_kernel() -> None:
    run = [cell(CHOICES), replaced(cell(WORSE), subject__kernel="mine")]
    baselines = [replaced(cell(CHOICES), subject__kernel="mine"), cell(CHOICES)]
    assert [check.status for check in gate(run, baselines).checks] == ["worse", "pass"]


def test_a_kernel_without_a_baseline_of_its_own_is_held_to_the_cells() -> None:
    mine, bad = (replaced(cell(items), subject__kernel=name) for name, items in (("mine", CHOICES), ("bad", WORSE)))
    assert gate([mine], [cell(CHOICES)]).passed
    result = gate([cell(CHOICES), mine, bad], [cell(CHOICES)])
    assert [(check.label, check.status) for check in result.checks] == [
        ("int8-row-simulated", "pass"),
        ("int8-row-simulated by mine", "pass"),
        ("int8-row-simulated by bad", "worse"),
    ]


def test_a_kernel_whose_file_changed_is_held_to_the_baseline_of_its_name() -> None:
    before, after = (replaced(cell(CHOICES), subject__kernel="mine", subject__kernel_sha256=h) for h in ("ab", "cd"))
    assert [check.status for check in gate([after], [before]).checks] == ["pass"]


def test_a_record_stands_in_for_one_baseline_alone() -> None:
    baselines = [cell(CHOICES), replaced(cell(CHOICES), subject__kernel="mine")]
    assert [status for status, _ in failures(gate([cell(CHOICES)], baselines))] == ["absent"]
    other = replaced(cell(CHOICES), subject__kernel="other")
    assert [status for status, _ in failures(gate([other], baselines))] == ["absent"]


def test_records_of_no_baseline_are_counted() -> None:
    other = replaced(cell(WORSE), environment__dtype="fp32")
    assert gate([cell(CHOICES), other], [cell(CHOICES)]).summary == (
        "gate passed: 1 of 1 cells compared, none worse; 1 of the run have no baseline"
    )


def test_another_metric_of_a_task_is_not_comparable() -> None:
    other = replaced(cell(CHOICES), task__metric="normalized accuracy")
    assert failures(gate([other], [cell(CHOICES)]))[0][0] == "not comparable"


def test_a_bad_baseline_of_one_kernel_excuses_no_other() -> None:
    bad, other = (replaced(cell(WORSE), subject__kernel=name) for name in ("bad", "other"))
    baselines = [bad, cell(CHOICES)]
    for order in (baselines, baselines[::-1]):
        found = {check.label: check.status for check in gate([cell(CHOICES), bad, other], order).checks}
        assert found["int8-row-simulated by other"] == "worse"


def test_a_kernel_s_baseline_is_missed_by_a_run_without_it() -> None:
    baseline = replaced(cell(CHOICES), subject__kernel="mine")
    assert [status for status, _ in failures(gate([cell(CHOICES)], [baseline]))] == ["absent"]
