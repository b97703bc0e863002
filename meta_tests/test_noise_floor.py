"""The noise floor of drift, and what of two runs' drifts is told apart beyond it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import msgspec
import pytest
import torch
from torch import Tensor

from meta_tests import drift_gate, factories
from meta_tests.factories import DRIFT, record
from quantsuite.accuracy.test_drift import rounding
from quantsuite.accuracy.test_drift import test_real_is_near_to_simulated as near_to_simulated
from quantsuite.adapters.backend import TransformersBackend
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.cells import Cell, make_cells
from quantsuite.contrasts import EXECUTIONS
from quantsuite.engine import ScoreRequest, ScoreResult
from quantsuite.evaluate.drift import drift
from quantsuite.evaluate.engines import Held, OneByOne
from quantsuite.evaluate.windows import TextItem
from quantsuite.gate import Check, gate
from quantsuite.layer import QuantizedLinear
from quantsuite.margins import Margins
from quantsuite.metrics import Divergences, metric
from quantsuite.pairs import noise_floor
from quantsuite.records import Record
from quantsuite.reporting.analysis import contrasts_of
from quantsuite.reporting.contrasts import finding
from quantsuite.reporting.rows import ranked, rows_of
from quantsuite.reporting.wording import noise_floor_sentence
from quantsuite.requirements.cases import Requirement
from quantsuite.requirements.rows import OF_ANY_MODEL, load_rows
from quantsuite.scheme import REFERENCE, Scheme, Variant, parse_variants
from quantsuite.session import Session
from quantsuite.statistics import compare, shared_ranks
from quantsuite.tasks import Sources, select_tasks

INT8 = Scheme.parse("int8-row")
TEXTS = 60
FLOOR = 1e-6
DIVERGENCE = metric("divergence")


def drifted(scheme: str, execution: str | None, mean: float, seed: int = 0) -> Record:
    return record(DRIFT, scheme, execution, items=factories.divergences(400, mean, seed=seed))


def times(record: Record, factor: float) -> Record:
    items = msgspec.structs.replace(record.items, kl=[factor * kl for kl in record.items.kl])
    return msgspec.structs.replace(record, items=items, value=DIVERGENCE.value(items), details={})


REAL = drifted("int8-row", "real", 1e-4)
BF16 = drifted("bf16", None, FLOOR)


def test_values_nearer_than_the_floor_share_a_rank() -> None:
    near = [REAL.items, times(REAL, 1.005).items]
    assert shared_ranks(DIVERGENCE, near) == [1, 2]
    assert shared_ranks(DIVERGENCE, near, floor=FLOOR) == [1, 1]


def test_values_further_apart_than_the_floor_have_ranks_of_their_own() -> None:
    assert shared_ranks(DIVERGENCE, [REAL.items, times(REAL, 1.05).items], floor=FLOOR) == [1, 2]


def nearer(factor: float, *others: Record) -> str:
    simulated = msgspec.structs.replace(
        times(REAL, factor), subject=msgspec.structs.replace(REAL.subject, execution="simulated")
    )
    [found] = contrasts_of([REAL, simulated, *others], [EXECUTIONS], Margins())
    return finding(found, found.pairs[0])


def test_an_execution_that_drifts_less_by_less_than_the_floor_is_not_called_better() -> None:
    assert nearer(1.005, BF16) == "not distinguishable: nearer than the noise floor"
    assert nearer(1.005) == nearer(1.05, BF16) == "real better"


def test_a_run_without_a_floor_says_so() -> None:
    assert noise_floor_sentence(DIVERGENCE, None) == "noise floor: not measured; add bf16 to --scheme"
    assert noise_floor_sentence(DIVERGENCE, BF16.value).startswith(f"noise floor: {BF16.value:.2g} nats")


def test_the_floor_of_a_task_is_that_of_another_on_the_same_text() -> None:
    label = msgspec.structs.replace(REAL.task, name="world/execution-drift")
    own = msgspec.structs.replace(REAL, task=label)
    assert noise_floor(own, [own, BF16]) == BF16.value
    other = msgspec.structs.replace(BF16, dataset=factories.dataset(7))
    assert noise_floor(own, [own, other]) is None


def test_no_change_from_the_reference_is_shown_of_what_is_one() -> None:
    rows = ranked(rows_of([REAL, BF16], Margins()))
    assert [(row.record, row.comparison, row.rank) for row in rows] == [(BF16, None, 1), (REAL, None, 2)]


def checked(candidate: Record, *others: Record, floor: float = FLOOR) -> Check:
    [check] = gate([candidate, *others], [REAL]).checks
    return check


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.85, 1.2, 2.0])
def test_another_drift_than_the_baselines_fails_in_either_direction(factor: float) -> None:
    check = checked(times(REAL, factor))
    assert check.status == "other"
    assert check.reason.startswith(f"{factor:.3g} times the drift [")


@pytest.mark.parametrize("factor", [0.92, 1.0, 1.08])
def test_a_drift_within_the_band_passes(factor: float) -> None:
    assert checked(times(REAL, factor)).status == "pass"


def test_a_larger_noise_floor_widens_the_band() -> None:
    noisy = times(BF16, 10)
    assert checked(times(REAL, 1.15)).status == "other"
    assert checked(times(REAL, 1.15), noisy).status == "pass"
    assert checked(times(REAL, 1.4), noisy).status == "other"


def test_the_margin_option_sets_the_band() -> None:
    other = times(REAL, 1.2)
    assert gate([other], [REAL], margins=Margins(of_names={"divergence": 0.3})).passed


def test_a_ratio_has_the_interval_of_what_differs_item_by_item() -> None:
    """Noise of one per cent an item on a mean of factor 1.3; what both share cancels."""
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0)).tolist()
    kl = [1.3 * kl * (1 + 0.01 * each) for kl, each in zip(REAL.items.kl, noise, strict=True)]
    found = compare(DIVERGENCE, REAL.items, msgspec.structs.replace(REAL.items, kl=kl), Margins()).change
    assert found.low < math.log(1.3) < found.high
    assert found.high - found.low == pytest.approx(2 * 1.97 * 0.01 * math.sqrt(2 / 400), rel=0.3)


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return TransformersBackend("tiny", device="cpu", dtype="bf16")


@cache
def texts() -> list[TextItem]:
    [task] = select_tasks(["world/drift"])
    backend = TransformersBackend("tiny", device="cpu", dtype="bf16")
    return task.prepare(backend.tokenizer, Sources(), 2048).texts[:TEXTS]


def first_texts(record: Record) -> Record:
    items = drift_gate.drawn(record.items, range(TEXTS), 1.0)
    return msgspec.structs.replace(record, items=items, value=DIVERGENCE.value(items), details={})


BASELINE = {label: first_texts(each) for label, each in drift_gate.baseline().items()}


@pytest.fixture(scope="module")
def reference(backend: TransformersBackend) -> Iterator[Held]:
    with backend.engine(REFERENCE, None) as engine:
        yield Held(engine)


def verdict(found: Divergences, label: str = "int8-row-simulated") -> str:
    floor = BASELINE["bf16"].value
    return compare(DIVERGENCE, BASELINE[label].items, found, Margins(), floor=floor).verdict


def test_the_floor_is_above_zero_and_below_what_roundings_explain(reference: Held) -> None:
    floor = drift(reference, OneByOne(reference._engine), texts())
    assert 0 < DIVERGENCE.value(floor) <= rounding("bf16")
    assert DIVERGENCE.value(floor) < 0.2 * BASELINE["int8-row-simulated"].value


@pytest.mark.parametrize("batch_tokens", [1, 700, 20_000])
@pytest.mark.parametrize("threads", [1, 2])
def test_right_code_in_other_batches_and_threads_drifts_as_the_baseline(
    backend: TransformersBackend, reference: Held, batch_tokens: int, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with backend.engine(INT8, "simulated") as engine:
            found = drift(reference, TransformersEngine(engine.model, batch_tokens=batch_tokens), texts())
    finally:
        torch.set_num_threads(before)
    assert verdict(found) == "equivalent or better"


def truncated(values: Tensor) -> Tensor:
    return values.trunc()


def six_bits(values: Tensor) -> Tensor:
    return 4 * (values / 4).round()


def by_code(round_to: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def changed(weight: Tensor) -> Tensor:
        step = weight.float().abs().amax(1, keepdim=True) / 127
        return (round_to(weight.float() / step) * step).to(weight.dtype)

    return changed


WEIGHTS = {
    "right": (by_code(torch.round), "equivalent or better"),
    "truncation": (by_code(truncated), "other"),
    "6 bits": (by_code(six_bits), "other"),
    "all bf16": (lambda weight: weight, "other"),
}


@pytest.mark.parametrize(("change", "expected"), WEIGHTS.values(), ids=list(WEIGHTS))
def test_a_planted_fault_is_other_than_the_shipped_baseline(
    backend: TransformersBackend, reference: Held, change: Callable[[Tensor], Tensor], expected: str
) -> None:
    with backend.engine(INT8, "simulated") as engine:
        original = dict(reference._engine.model.named_parameters())
        for name, module in engine.model.named_modules():
            if isinstance(module, QuantizedLinear):
                module.weight = torch.nn.Parameter(change(original[f"{name}.weight"].detach()), requires_grad=False)
        found = drift(reference, engine, texts())
    assert verdict(found) == expected


def execution_drift(real: float) -> list[Record]:
    simulated = drifted("int8-row", "simulated", 1e-4)
    label = msgspec.structs.replace(DRIFT, name="world/execution-drift")
    return [simulated, record(label, "int8-row", "real", items=times(simulated, real).items)]


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0])
def test_real_execution_that_rounds_otherwise_is_near_to_simulated(factor: float) -> None:
    near_to_simulated(execution_drift(factor))


def test_real_execution_of_another_scheme_is_not_near_to_simulated() -> None:
    with pytest.raises(AssertionError, match=r"int8-row-real is 1\.74 times as far from its simulated execution"):
        near_to_simulated(execution_drift(1.74))


def test_real_execution_that_drifts_as_another_scheme_does_fails_without_a_baseline() -> None:
    simulated = drifted("int8-row", "simulated", 1e-4)
    ((name, row),) = load_rows(OF_ANY_MODEL).items()
    real, other = REAL.subject.variant, simulated.subject.variant
    asked = Requirement(name=name, row=row, task="world/drift", candidate=real, reference=other)
    for factor, status in ((1.02, "met"), (0.0, "missed"), (1.4, "missed")):
        assert asked.judge([simulated, times(REAL, factor)], Margins()).status == status


def test_what_is_compared_with_simulated_execution_is_measured_of_real_execution_alone() -> None:
    tasks = select_tasks(["world/drift", "world/execution-drift"])
    cells = make_cells(tasks, parse_variants(["bf16", "int8-row"], ["simulated", "real"]))
    assert [str(cell) for cell in cells] == [
        "world/drift-bf16",
        "world/drift-int8-row-simulated",
        "world/drift-int8-row-real",
        "world/execution-drift-int8-row-real",
    ]


def test_one_pass_of_a_text_serves_its_perplexity_and_its_drift(
    monkeypatch: pytest.MonkeyPatch, backend: TransformersBackend
) -> None:
    passes, score = [], TransformersEngine.score

    def counted(engine: TransformersEngine, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        passes.extend([len(requests)] if len(requests) > 1 else [])
        return score(engine, requests)

    monkeypatch.setattr(TransformersEngine, "score", counted)
    session = Session("tiny", device="cpu", sources=Sources(limit=12))
    document, drift_task = select_tasks(["world/document", "world/drift"])
    variant = Variant(INT8, "simulated")
    alone = session.measure(Cell(task=document, variant=variant), "test")
    session.close()
    session.prepare(drift_task)
    both = [session.measure(Cell(task=task, variant=variant), "test") for task in (document, drift_task)]
    session.close()
    assert passes == [12, 12, 12]
    assert both[0].items.nats == pytest.approx(alone.items.nats, rel=1e-12)
    assert 0 < both[1].value < 1e-3


def test_two_right_executions_are_hardly_ever_other_and_factors_of_the_known_bugs_always() -> None:
    for scheme in ("int8-row", "fp8-row"):
        assert drift_gate.alarms(drift_gate.baseline(), scheme, 240, 1.0, draws=100) <= 0.05
        for factor in (0.0, 1.4, 2.0):
            assert drift_gate.alarms(drift_gate.baseline(), scheme, 240, factor, draws=100) >= 0.95
