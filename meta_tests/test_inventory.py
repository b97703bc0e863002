"""An identity is counted from the modules of a model, and sees what poses as something else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from meta_tests.checkpoints import MIXTURES, PLAIN, build_model
from meta_tests.command import accuracy
from quantsuite import coverage
from quantsuite.coverage import matrices
from quantsuite.in_place import placed
from quantsuite.inventory import identify
from quantsuite.kernels import dispatch
from quantsuite.linear import quantized
from quantsuite.plan import LayerPlan, Plan
from quantsuite.provenance import Identity
from quantsuite.reading import read_run
from quantsuite.scheme import EXECUTIONS, REFERENCE, Execution, Scheme, Variant, parse_variants
from quantsuite.session import Session
from quantsuite.tasks import Sources

INT8, INT4 = Scheme.parse("int8-row"), Scheme.parse("int4-g32")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Of 14 matrices in bf16."""
    return build_model(PLAIN["qwen3-tied"]).to(torch.bfloat16)


def identity(model: nn.Module, plan: Plan | Scheme, execution: Execution = "real") -> Identity:
    changed = copy.deepcopy(model)
    with quantized(changed, plan, execution):
        return identify(placed(model, changed, plan), sum(p.numel() for p in model.parameters()))


@pytest.mark.parametrize(
    ("name", "execution", "storage", "bits"),
    [
        ("int8-g32", "real", "int8", 9.0),
        ("int8-row", "simulated", "bfloat16", 16.0),
        ("fp8-g32", "real", "float8_e4m3fn", 9.0),
        ("int4-g32", "real", "uint8", 5.0),
        ("int4-g32-asym", "simulated", "bfloat16", 16.0),
    ],
)
def test_storage_and_bits_are_those_of_the_tensors(
    name: str, execution: Execution, storage: str, bits: float, model: nn.Module
) -> None:
    found = identity(model, Scheme.parse(name), execution)
    assert found.schemes == {name: 14} and found.storage == {storage: 14}
    assert found.bits == bits


def test_the_share_is_that_of_all_parameters(model: nn.Module) -> None:
    weights = sum(weight.numel() for _, weight in matrices(model))
    assert identity(model, INT8).share == weights / sum(p.numel() for p in model.parameters())


def test_a_mixed_plan_is_counted_by_scheme(model: nn.Module) -> None:
    schemes = {"up_proj": INT4, "gate_proj": Scheme()}
    layers = {f"model.layers.0.mlp.{name}": LayerPlan(scheme=scheme) for name, scheme in schemes.items()}
    found = identity(model, Plan(scheme=INT8, layers=layers))
    assert found.schemes == {"int4-g32": 1, "int8-row": 12}
    assert found.storage == {"bfloat16": 1, "int8": 12, "uint8": 1}


def test_each_matrix_of_each_expert_counts() -> None:
    model = build_model(MIXTURES["mixtral"])
    found = identity(model, INT8)
    assert found.matrices == len(list(matrices(model)))


def test_a_model_as_it_was_loaded_has_nothing_quantized(model: nn.Module) -> None:
    assert identify(placed(model, model, REFERENCE), 100) == Identity(storage={"bfloat16": 14}, share=0.0)


def test_the_dtype_of_a_model_as_it_was_loaded_is_told(model: nn.Module) -> None:
    wide = copy.deepcopy(model).float()
    assert identify(placed(model, wide, REFERENCE)).storage == {"float32": 14}


def test_a_model_posing_as_quantized_has_nothing_quantized(model: nn.Module) -> None:
    assert identify(placed(model, model, INT8)).matrices == 0


def test_a_quantized_model_posing_as_the_reference_is_seen(model: nn.Module) -> None:
    changed = copy.deepcopy(model)
    with quantized(changed, INT8, "real"):
        assert identify(placed(model, changed, REFERENCE)).schemes == {"int8-row": 14}


def test_one_matrix_left_as_it_was_is_seen(model: nn.Module) -> None:
    changed = copy.deepcopy(model)
    with quantized(changed, INT8, "real"):
        changed.model.layers[1].mlp.down_proj = nn.Linear(96, 64, dtype=torch.bfloat16)
        found = identify(placed(model, changed, INT8), 1_000_000)
    assert found.schemes == {"int8-row": 13} and found.storage == {"bfloat16": 1, "int8": 13}


def test_kernels_of_many_tokens_and_of_one_are_told_apart(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (dispatch.Rule(scheme="*", kernel=f"ours-{name}") for name in ("codes", "dequantized"))
    one = dispatch.Rule(scheme="*", kernel="ours-dequantized", rows=(1, 1))
    assert identity(model, INT8).decode == {}
    monkeypatch.setattr(dispatch, "read_table", lambda: [one, first, second])
    dispatch.choose.cache_clear()
    try:
        found = identity(model, INT8)
    finally:
        dispatch.choose.cache_clear()
    assert (found.kernels, found.decode) == ({"ours-codes": 14}, {"ours-dequantized": 14})


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session("tiny", device="cpu", sources=Sources())
    yield made
    made.close()


def test_each_variant_of_a_session_has_its_own(session: Session) -> None:
    found = {variant.label: session.model.identity(variant) for variant in parse_variants(["int8-g64"], EXECUTIONS)}
    assert [each.matrices for each in found.values()] == [0, 21, 21]
    assert [[*each.storage] for each in found.values()] == [["bfloat16"], ["bfloat16"], ["int8"]]


def test_an_engine_that_does_not_show_its_layers_has_none(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(type(session.model.backend), "matrices")
    assert session.model.identity(Variant(INT8, "real")) is None


RUN = ["--task", "world-mmlu/direct", "--limit", "12", "--device", "cpu", "--scheme", "int8-row", "--execution", "real"]


def test_a_run_silently_in_bf16_fails_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = tmp_path / "right.jsonl", tmp_path / "wrong.jsonl"
    assert accuracy(*RUN, "--output", str(right)).status == 0
    assert [record.identity.matrices for record in read_run(right).records] == [0, 21]
    again = ["--baseline", str(right), "--gate=worse", "--output"]
    assert accuracy(*RUN, *again, str(tmp_path / "again.jsonl")).status == 0
    build = coverage.build_layer
    plain = LayerPlan(scheme=Scheme())
    monkeypatch.setattr(coverage, "build_layer", lambda weight, bias, *_: build(weight, bias, plain, "real"))
    result = accuracy(*RUN, *again, str(wrong))
    assert result.status == 1 and "gate failed: 1 of 2 cells" in result.shown
    assert "no matrix is quantized" in result.shown
