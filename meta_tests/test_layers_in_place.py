"""The check of a model's layers in place finds every wrong layer by its cause."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from meta_tests.layer_faults import FAULTS, Fault
from meta_tests.layer_models import FEW, LayerModels, faults
from meta_tests.plans import nudged
from quantsuite.adapters.backend import TransformersBackend
from quantsuite.cells import Cell
from quantsuite.checks.in_place import Execute
from quantsuite.checks.nearest import check_nearest
from quantsuite.checks.outcome import CheckFailure
from quantsuite.evaluate.layers import check_layers
from quantsuite.kernels import ours, stored
from quantsuite.layer import UnsupportedError
from quantsuite.linear import quantized
from quantsuite.parts import RowParts
from quantsuite.plan import LayerPlan, Plan, name_rows
from quantsuite.quantize import QuantizedTensor, dequantize, quantize
from quantsuite.scheme import EXECUTIONS, REFERENCE, Execution, Operand, Scheme, Variant
from quantsuite.session import Session
from quantsuite.tasks import Sources
from quantsuite.tasks.registry import select_tasks

ROOT = Path(__file__).parents[1]
Q = "model.layers.0.self_attn.q_proj"
STATIC = Scheme.parse("int8-row:int8-tensor-static")

pytestmark = pytest.mark.usefixtures("layer_kernels")


def assert_each_begins(found: list[str], beginning: str) -> None:
    assert found and {fault[: len(beginning)] for fault in found} == {beginning}, found


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_wrong_layer_is_found_by_its_cause(
    fault: Fault, layer_models: LayerModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault.plant(monkeypatch)
    assert_each_begins(faults(layer_models.check(fault.model, fault.scheme, fault.execution)), fault.finds)


def test_a_fault_of_one_layer_is_found_in_no_other(layer_models: LayerModels, monkeypatch: pytest.MonkeyPatch) -> None:
    next(fault for fault in FAULTS if fault.name == "one linear unquantized").plant(monkeypatch)
    found = layer_models.check("tiny", "int8-row", "real")
    assert [name for name, fault in zip(found.names, found.faults, strict=True) if fault] == [f"model.{FEW[2]}"]


def test_a_head_that_was_not_asked_for_is_found(layer_models: LayerModels) -> None:
    found = layer_models.check(
        "tiny", "int8-row", "real", include_head=True, shown_head=False, only=("lm_head", FEW[0])
    )
    assert faults(found) == ["not as planned: is quantized to int8-row, the plan leaves it as it is"]


def in_eight_bits(weight: torch.Tensor) -> torch.nn.Parameter:
    values = dequantize(quantize(weight, Operand.parse("int8-tensor")), weight.dtype)
    return torch.nn.Parameter(values, requires_grad=False)


def norms(model: PreTrainedModel) -> None:
    model.model.norm.weight = in_eight_bits(model.model.norm.weight.detach())


def embeddings(model: PreTrainedModel) -> None:
    model.model.embed_tokens.weight = in_eight_bits(model.model.embed_tokens.weight.detach())


def head(model: PreTrainedModel) -> None:
    model.lm_head.weight = in_eight_bits(model.lm_head.weight.detach())


def attention(model: PreTrainedModel) -> None:
    model.model.layers[0].self_attn.scaling *= 1.01


def hooked(model: PreTrainedModel) -> None:
    model.model.norm.register_forward_hook(lambda module, given, y: 1.01 * y)


def overridden(model: PreTrainedModel) -> None:
    model.model.norm.forward = lambda x: x


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (norms, "not as planned: has other values of weight than were loaded"),
        (embeddings, "not as planned: has other values of weight than were loaded"),
        (head, "not as planned: has other values of weight than were loaded"),
        (attention, "not as planned: has scaling of 0."),
        (hooked, "not as planned: has hooks other than were loaded"),
        (overridden, "not as planned: has a forward of its own, which was not loaded"),
    ],
)
def test_what_no_plan_names_stays_as_it_was_loaded(
    change: Callable[[PreTrainedModel], None],
    message: str,
    execution: Execution,
    layer_models: LayerModels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def meddled(*given: Any, **named: Any) -> Iterator[PreTrainedModel]:
        with quantized(*given, **named) as model:
            change(model)
            yield model

    monkeypatch.setattr("quantsuite.adapters.backend.quantized", meddled)
    only = (FEW[0], "norm", "embed_tokens", "lm_head", "layers.0.self_attn")
    assert_each_begins(faults(layer_models.check("tiny", "int8-row", execution, only=only)), message)


def test_layers_that_nothing_is_multiplied_by_are_found(
    layer_models: LayerModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def bypassed(model: PreTrainedModel, *given: Any, **named: Any) -> Iterator[PreTrainedModel]:
        mlp = copy.deepcopy(model.model.layers[0].mlp)
        with quantized(model, *given, **named) as changed:
            changed.model.layers[0].mlp.forward = mlp.forward
            yield changed

    monkeypatch.setattr("quantsuite.adapters.backend.quantized", bypassed)
    found = layer_models.check("tiny", "int8-row", "real", only=(FEW[0], "layers.0.mlp.up_proj"))
    assert_each_begins(faults(found), "not as planned: nothing is multiplied by it")


def test_layers_that_are_taken_for_routers_are_found(
    layer_models: LayerModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantsuite.coverage._is_router", lambda path, *sizes: "layers.0.mlp.gate_proj" in path)
    found = layer_models.check("tiny", "int8-row", "real", only=(FEW[0], "layers.0.mlp.gate_proj"))
    assert faults(found) == ["not as planned: is a linear layer for which nothing is planned"]


def test_a_plan_that_leaves_layers_of_a_scheme_out_is_found(
    layer_models: LayerModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = LayerPlan(scheme=REFERENCE)
    monkeypatch.setattr(Plan, "layer", lambda plan, name: left if name.endswith("o_proj") else plan.default)
    found = faults(layer_models.check("tiny", "int8-row", "real", only=(FEW[0], "o_proj")))
    assert_each_begins(found, "not as planned: is planned as bf16, the run says int8-row")


def test_codes_other_than_a_method_chose_are_found(layer_models: LayerModels, monkeypatch: pytest.MonkeyPatch) -> None:
    int8 = Scheme.parse("int8-row")
    weight = nudged(quantize(layer_models.weight("tiny", Q), int8.weight))
    plan = Plan(scheme=REFERENCE, layers={Q: LayerPlan(scheme=int8, weight=weight)})
    assert faults(layer_models.check("tiny", plan, "real", only=(Q,))) == []

    def pack(quantized: QuantizedTensor, scheme: Scheme) -> stored.StoredWeight:
        return stored.pack_weight(dequantize(quantized), scheme)

    monkeypatch.setattr(ours._StoredProduct, "pack_quantized", staticmethod(pack))
    message = "codes and scales: is not what the method chose"
    assert_each_begins(faults(layer_models.check("tiny", plan, "real", only=(Q,))), message)


def test_codes_that_are_nothing_like_the_weight_are_found(layer_models: LayerModels) -> None:
    weight = quantize(layer_models.weight("tiny", Q).roll(1, 0), Operand.parse("int8-row"))
    plan = Plan(scheme=REFERENCE, layers={Q: LayerPlan(scheme=Scheme.parse("int8-row"), weight=weight)})
    found = faults(layer_models.check("tiny", plan, "real", only=(Q,)))
    assert_each_begins(found, "codes and scales: what the method chose gives products 1.")


def test_rows_in_another_order_are_found(layer_models: LayerModels, monkeypatch: pytest.MonkeyPatch) -> None:
    int8 = LayerPlan(scheme=Scheme.parse("int8-row"))
    plan = Plan(scheme=REFERENCE, layers={name_rows(Q, 0, 128): int8, name_rows(Q, 128, 512): int8})
    assert faults(layer_models.check("tiny", plan, "real", only=("]",))) == []
    monkeypatch.setattr(RowParts, "forward", lambda self, x: torch.cat([p(x) for p in [*self.parts][::-1]], dim=-1))
    found = faults(layer_models.check("tiny", plan, "real", only=("]",)))
    assert_each_begins(found, "products of activations: rows ")


def test_a_static_scale_that_is_not_used_is_found(layer_models: LayerModels, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(scheme=REFERENCE, layers={Q: LayerPlan(scheme=STATIC, activation_scale=torch.tensor(0.07))})
    assert faults(layer_models.check("tiny", plan, "real", only=(Q,))) == []
    dynamic = Operand.parse("int8-tensor")
    monkeypatch.setattr(ours, "_tokens", lambda x, packed, scale: quantize(x, dynamic))
    assert_each_begins(faults(layer_models.check("tiny", plan, "real", only=(Q,))), "products of activations: ")


def test_a_scale_other_than_was_given_is_found() -> None:
    x, operand = torch.linspace(-1, 1, 64).reshape(4, 16), Operand.parse("int8-tensor-static")
    given = torch.tensor(0.01)
    quantized = quantize(x, operand, scale=given)
    check_nearest(x, quantized, torch.arange(4), given_scale=given)
    with pytest.raises(CheckFailure, match=r"scale \[0, 0\] is 0.00999999978, given is 0.0199999996"):
        check_nearest(x, quantized, torch.arange(4), given_scale=2 * given)


def test_another_kernel_than_the_run_names_is_found(layer_models: LayerModels) -> None:
    found = layer_models.check("tiny", "int8-row", "real", kernel="rounds-scales", named="mine")
    assert_each_begins(faults(found), "not as planned: is multiplied by rounds-scales, the run says mine")


def test_scales_that_are_rounded_without_a_word_are_found(layer_models: LayerModels) -> None:
    assert_each_begins(faults(layer_models.check("tiny", "int8-row", "real", kernel="rounds-silently")), "weights as")


def test_a_kernel_that_raises_is_found_with_its_first_line(layer_models: LayerModels) -> None:
    message = "execution: raises.linear of [2, 512] raised RuntimeError: an illegal instruction"
    found = faults(layer_models.check("tiny", "int8-row", "real", kernel="raises"))
    assert_each_begins(found, message)
    assert "\n" not in found[0]


def test_a_kernel_that_takes_no_single_token_is_checked_without(layer_models: LayerModels) -> None:
    found = layer_models.check("tiny", "int8-row", "real", kernel="prefills")
    assert faults(found) == []
    assert min(found.factors) > 0


@pytest.mark.parametrize("fraction", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("name", ["int4-row-clip", "int4-g32-clip"])
def test_a_clipped_scale_that_is_not_the_best_is_found(name: str, fraction: float) -> None:
    operand, weight = Operand.parse(name), torch.randn(16, 256, generator=torch.Generator().manual_seed(0))
    whole = quantize(weight, replace(operand, clip=False))
    worse = quantize(weight, replace(operand, clip=False, dynamic=False), scale=whole.scale * fraction)
    check_nearest(weight, quantize(weight, operand), torch.arange(16))
    with pytest.raises(CheckFailure, match="the best that is searched"):
        check_nearest(weight, replace(worse, operand=operand), torch.arange(16))


def test_an_engine_that_multiplies_by_none_of_its_layers_is_told(layer_models: LayerModels) -> None:
    backend, scheme = layer_models.backend("tiny"), Scheme.parse("int8-row")
    with backend.engine(REFERENCE, None) as reference, backend.engine(scheme, "real") as shown:
        matrices = backend.matrices(shown, scheme)[:1]
        with pytest.raises(ValueError, match="multiplied by none of the layers that it shows"):
            check_layers(reference, matrices, list(range(20)), Execute(execution="real"))


def test_a_text_of_one_token_is_refused(layer_models: LayerModels) -> None:
    with pytest.raises(ValueError, match="1 token is no text to run the layers on; use a text of two tokens or more"):
        layer_models.check("tiny", REFERENCE, None, text="The")


def test_a_text_of_two_tokens_is_enough(layer_models: LayerModels) -> None:
    found = layer_models.check("tiny", "int8-row", "real", text="The old")
    assert faults(found) == [] and min(found.factors) > 0


def test_a_model_without_linear_layers_is_refused(layer_models: LayerModels) -> None:
    with pytest.raises(ValueError, match="no linear layer that could be checked"):
        layer_models.check("tiny", REFERENCE, None, only=("no such layer",))


class Hidden(TransformersBackend):
    """A backend that shows no layers."""

    matrices = None


def test_an_engine_that_shows_no_layers_skips_the_task_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantsuite.loaded.open_backend", lambda engine, *given, **named: Hidden(*given, **named))
    session = Session("tiny", device="cpu", sources=Sources())
    (task,) = select_tasks(["layers"])
    with pytest.raises(
        UnsupportedError, match="the engine transformers shows no layers that could be checked in place"
    ):
        session.measure(Cell(task=task, variant=Variant(REFERENCE)), "test")
    session.close()
