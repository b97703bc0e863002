"""Planned models: each layer gets what it was planned, and a plan that does not fit is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import GPT2Config, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from meta_tests.checkpoints import MIXTURES, PLAIN, build_model
from meta_tests.plans import DOWN, INT4, INT8, STATIC, UP, Q, assert_same_bits, nudged
from quantsuite.bounds import bound_execution
from quantsuite.layer import QuantizedLinear
from quantsuite.linear import MisfitError, matrices, misfits, quantized, unquantized
from quantsuite.methods import make_plan
from quantsuite.parameters import weights_sha256
from quantsuite.parts import build_layer
from quantsuite.plan import LayerPlan, Plan, name_rows
from quantsuite.quantize import dequantize, fake_quantize, quantize
from quantsuite.scheme import EXECUTIONS, REFERENCE, Execution, Scheme

executions = pytest.mark.parametrize("execution", EXECUTIONS)
TOKENS = torch.arange(1, 33).reshape(2, 16)


@pytest.fixture
def model() -> PreTrainedModel:
    return build_model(PLAIN["qwen3-untied"])


@executions
def test_each_layer_gets_the_scheme_that_was_planned_for_it(model: PreTrainedModel, execution: Execution) -> None:
    plan = Plan(
        scheme=INT4, layers={UP: LayerPlan(scheme=INT8), DOWN: LayerPlan(scheme=REFERENCE), Q: LayerPlan(scheme=INT4)}
    )
    down = model.get_submodule(DOWN)
    with quantized(model, plan, execution):
        found = {path: module.scheme for path, module in model.named_modules() if isinstance(module, QuantizedLinear)}
        assert model.get_submodule(DOWN) is down
    names = {name for name, _ in matrices(model)}
    assert found == {name: INT8 if name == UP else INT4 for name in names - {DOWN}}


@executions
@torch.inference_mode()
def test_different_schemes_give_the_product_of_each_layer_quantized_alone(
    model: PreTrainedModel, execution: Execution
) -> None:
    schemes = {UP: INT8, DOWN: INT4}
    for path, scheme in schemes.items():
        model.set_submodule(path, QuantizedLinear.from_linear(model.get_submodule(path), scheme, execution))
    expected = model(input_ids=TOKENS).logits
    fresh = build_model(PLAIN["qwen3-untied"])
    plan = Plan(scheme=REFERENCE, layers={path: LayerPlan(scheme=scheme) for path, scheme in schemes.items()})
    with quantized(fresh, plan, execution):
        assert torch.equal(fresh(input_ids=TOKENS).logits, expected)


@executions
@pytest.mark.parametrize("name", ["int4-g32", "int4-g32-asym", "int3-g16", "int8-row", "int4-row:int8-token"])
def test_codes_that_a_method_chose_are_executed(model: PreTrainedModel, name: str, execution: Execution) -> None:
    scheme = Scheme.parse(name)
    chosen = nudged(quantize(model.get_submodule(UP).weight, scheme.weight))
    with quantized(model, Plan(scheme=REFERENCE, layers={UP: LayerPlan(scheme=scheme, weight=chosen)}), execution):
        layer = model.get_submodule(UP)
        assert torch.equal(layer.effective_weight(), dequantize(chosen))
        x = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(1))
        seen = x if scheme.activation is None else fake_quantize(x, scheme.activation)
        operands = 1 if scheme.activation is None else 2
        bound = bound_execution(seen, dequantize(chosen), torch.float32, quantized_operands=operands)
        assert ((layer(x).double() - seen.double() @ dequantize(chosen).double().T).abs() <= bound).all()


@executions
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@torch.inference_mode()
def test_round_to_nearest_given_as_codes_is_round_to_nearest(
    model: PreTrainedModel, execution: Execution, dtype: torch.dtype
) -> None:
    model = model.to(dtype)
    layers = {n: LayerPlan(scheme=INT4, weight=quantize(w, INT4.weight)) for n, w in matrices(model)}
    with quantized(model, INT4, execution):
        expected = model(input_ids=TOKENS).logits
    with quantized(model, Plan(scheme=INT4, layers=layers), execution):
        assert torch.equal(model(input_ids=TOKENS).logits, expected)


@executions
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_static_scales_are_those_of_the_plan(model: PreTrainedModel, execution: Execution, dtype: torch.dtype) -> None:
    model, outputs = model.to(dtype), []
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    for scale in (torch.tensor(0.02), torch.tensor(0.05)):
        plan = Plan(scheme=REFERENCE, layers={UP: LayerPlan(scheme=STATIC, activation_scale=scale)})
        with quantized(model, plan, execution), torch.inference_mode():
            layer = model.get_submodule(UP)
            codes = (x.double() / scale.double()).round().clamp(-127, 127)
            seen, weight = (codes * scale.double()).to(dtype), layer.effective_weight().to(dtype)
            bound = bound_execution(seen, weight, dtype, quantized_operands=2)
            assert ((layer(x).double() - seen.double() @ weight.double().T).abs() <= bound).all()
            outputs.append(layer(x))
    assert not torch.equal(*outputs)


def test_a_static_scheme_without_a_scale_is_told_before_anything_is_quantized(model: PreTrainedModel) -> None:
    message = re.escape(f"{Q}: {STATIC}: static activation scales need calibration; drop -static")
    with pytest.raises(MisfitError, match=message), quantized(model, STATIC, "simulated"):
        pass


def balanced(model: PreTrainedModel) -> Plan:
    """The input of a layer's projections divided by one factor a channel, their columns multiplied with it."""
    factors = torch.rand(64, generator=torch.Generator().manual_seed(3)) * 4 + 0.25
    norm = "model.layers.0.post_attention_layernorm.weight"
    columns = {f"model.layers.0.mlp.{name}.weight": factors for name in ("gate_proj", "up_proj")}
    parameters = {name: model.get_parameter(name) * each for name, each in columns.items()}
    return Plan(scheme=REFERENCE, parameters={norm: model.get_parameter(norm) / factors, **parameters})


@torch.inference_mode()
def test_equivalent_changes_are_made_and_leave_the_function_as_it_is(model: PreTrainedModel) -> None:
    plan, before = balanced(model), model(input_ids=TOKENS).logits
    with quantized(model, plan, "simulated"):
        assert all(torch.equal(model.get_parameter(name), tensor) for name, tensor in plan.parameters.items())
        after = model(input_ids=TOKENS).logits
    assert not torch.equal(after, before)
    assert torch.allclose(after, before, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_changed_columns_are_what_is_quantized(model: PreTrainedModel) -> None:
    plan = replace(balanced(model), scheme=INT4)
    changed = plan.parameters[f"{UP}.weight"]
    with quantized(model, plan, "real"):
        assert torch.equal(model.get_submodule(UP).effective_weight(), fake_quantize(changed, INT4.weight))


class Interruption(Exception):
    pass


@pytest.mark.parametrize("interrupted", [False, True])
def test_after_the_block_modules_and_parameters_are_the_ones_before(model: PreTrainedModel, interrupted: bool) -> None:
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    bits = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(Interruption), quantized(model, replace(balanced(model), scheme=INT4), "simulated"):
        if interrupted:
            raise Interruption
        assert dict(model.named_modules()) != modules
        raise Interruption
    assert dict(model.named_modules()) == modules
    assert all(each is parameters[name] for name, each in model.named_parameters())
    assert_same_bits(dict(model.state_dict()), bits)


def test_a_plan_that_fails_on_the_way_is_undone(model: PreTrainedModel) -> None:
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    model.get_submodule(DOWN).weight.data[0, 0] = torch.nan
    with (
        pytest.raises(ValueError, match=f"{re.escape(DOWN)}: 1 of"),
        quantized(model, replace(balanced(model), scheme=INT4), "real"),
    ):
        pass
    assert dict(model.named_modules()) == modules
    assert all(each is parameters[name] for name, each in model.named_parameters())


@torch.inference_mode()
def test_a_model_that_shares_parameters_does_not_see_another_models_changes(model: PreTrainedModel) -> None:
    other = build_model(PLAIN["qwen3-untied"])
    for name, parameter in model.named_parameters():
        path, _, last = name.rpartition(".")
        setattr(other.get_submodule(path), last, parameter)
    before = other(input_ids=TOKENS).logits
    with quantized(model, balanced(model), "simulated"):
        assert torch.equal(other(input_ids=TOKENS).logits, before)


@executions
@torch.inference_mode()
def test_matrices_of_experts_are_planned_one_by_one(execution: Execution) -> None:
    model = build_model(MIXTURES["qwen3-moe"])
    path = "model.layers.1.mlp.experts"
    names = dict(matrices(model))
    chosen = nudged(quantize(names[f"{path}.2.gate_proj"], INT4.weight))
    layers = {
        f"{path}.2.gate_proj": LayerPlan(scheme=INT4, weight=chosen),
        f"{path}.2.up_proj": LayerPlan(scheme=REFERENCE),
        f"{path}.5.down_proj": LayerPlan(scheme=INT4),
    }
    with quantized(model, Plan(scheme=INT8, layers=layers), execution):
        experts = model.get_submodule(path).experts
        gate, up, down = experts[2]
        assert torch.equal(gate.effective_weight(), dequantize(chosen))
        assert torch.equal(up.weight, names[f"{path}.2.up_proj"]) and not isinstance(up, QuantizedLinear)
        assert (down.scheme, experts[5][2].scheme, experts[5][0].scheme) == (INT8, INT4, INT8)
        assert isinstance(model.get_submodule("model.layers.0.mlp.experts").experts[0][0], QuantizedLinear)


def test_experts_that_a_plan_leaves_are_the_module_that_they_were() -> None:
    model = build_model(MIXTURES["qwen3-moe"])
    experts = model.model.layers[0].mlp.experts
    with quantized(model, Plan(scheme=REFERENCE, layers={Q: LayerPlan(scheme=INT8)}), "simulated"):
        assert model.model.layers[0].mlp.experts is experts
        assert isinstance(model.get_submodule(Q), QuantizedLinear)


@pytest.fixture
def fused() -> Iterator[PreTrainedModel]:
    """A model whose query, key and value are the rows of one layer, with a bias and a transposed weight."""
    return build_model(GPT2Config(vocab_size=256, n_embd=64, n_layer=2, n_head=4, n_positions=64))


QKV = "transformer.h.0.attn.c_attn"


@executions
@torch.no_grad()
def test_projections_of_a_fused_layer_have_schemes_of_their_own(fused: PreTrainedModel, execution: Execution) -> None:
    layer = fused.get_submodule(QKV)
    assert isinstance(layer, Conv1D)
    weight, bias = layer.weight.T, layer.bias
    schemes = {(0, 64): INT4, (64, 128): REFERENCE, (128, 192): INT8}
    parts = []
    for (start, stop), scheme in schemes.items():
        part = nn.Linear(64, 64)
        part.weight.data, part.bias.data = weight[start:stop], bias[start:stop]
        parts.append(
            part if scheme.is_reference else build_layer(part.weight, part.bias, LayerPlan(scheme=scheme), execution)
        )
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(4))
    layers = {name_rows(QKV, *rows): LayerPlan(scheme=scheme) for rows, scheme in schemes.items()}
    with quantized(fused, Plan(scheme=REFERENCE, layers=layers), execution):
        assert torch.equal(fused.get_submodule(QKV)(x), torch.cat([part(x) for part in parts], dim=-1))
    assert fused.get_submodule(QKV) is layer


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model.layers.0.mlp.upproj"], f"the model has no layer model.layers.0.mlp.upproj; it has for example {UP}"),
        (["lm_head"], "lm_head is the output head; quantize it with --include-head"),
        ([name_rows(UP, 0, 50)], f"{UP}: rows end at 50, the matrix has 96"),
        ([name_rows(UP, 0, 50), name_rows(UP, 60, 96)], f"{UP}: rows 50 to 60 are named in no part"),
        ([name_rows(UP, 0, 50), name_rows(UP, 40, 96)], f"{UP}: rows 40 to 50 are named twice"),
        ([name_rows(UP, 0, 96), UP], f"{UP} is named as a whole and in rows; keep one"),
    ],
)  # fmt: skip
def test_a_name_that_the_model_does_not_have_is_told(model: PreTrainedModel, names: list[str], message: str) -> None:
    plan = Plan(scheme=INT8, layers={name: LayerPlan(scheme=INT8) for name in names})
    assert (misfits(model, plan) or "").startswith(message)
    with pytest.raises(MisfitError, match=re.escape(message)), quantized(model, plan, "simulated"):
        pass


def test_a_weight_or_parameter_of_another_shape_is_told(model: PreTrainedModel) -> None:
    other = LayerPlan(scheme=INT4, weight=quantize(torch.randn(96, 32), INT4.weight))
    message = f"{UP}: the plan's weight is [96, 32], the layer's [96, 64]; plan for this model"
    assert misfits(model, Plan(scheme=INT8, layers={UP: other})) == message
    for name, message in (("model.norm.weight", "is [64], the plan's [3]"), ("model.nom.weight", "no parameter")):
        assert message in misfits(model, Plan(scheme=INT8, parameters={name: torch.ones(3)}))


def test_the_share_that_stays_counts_what_the_plan_leaves() -> None:
    model = build_model(MIXTURES["qwen3-moe"])
    total = sum(parameter.numel() for parameter in model.parameters())
    left = {"model.layers.0.mlp.experts.3.up_proj": 32 * 64, Q: 64 * 64}
    plan = Plan(scheme=INT8, layers={name: LayerPlan(scheme=REFERENCE) for name in left})
    shares = unquantized(model, plan=plan)
    assert shares.pop("layers left by the plan") == pytest.approx(sum(left.values()) / total)
    assert shares == unquantized(model) == unquantized(model, plan=INT8)


def made_from(model: PreTrainedModel, folder: Path) -> Plan:
    """A plan with weights of the model, saved and loaded."""
    make_plan(model, Scheme.parse("int4-g32@clip")).save(folder)
    return Plan.load(folder)


def test_a_plan_of_a_method_is_refused_for_other_weights(model: PreTrainedModel, tmp_path: Path) -> None:
    plan, before = made_from(model, tmp_path), weights_sha256(model)
    with torch.no_grad():
        model.model.norm.weight[3] *= 2
    now = weights_sha256(model)
    message = f"the plan int4-g32@clip was made from weights of sha256 {before[:12]}, the model's are {now[:12]}; plan"
    with pytest.raises(MisfitError, match=message), quantized(model, plan, "real"):
        pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_plan_of_a_method_fits_its_checkpoint_in_another_dtype(
    model: PreTrainedModel, tmp_path: Path, dtype: torch.dtype
) -> None:
    plan = made_from(model.bfloat16().float(), tmp_path)
    assert plan.model_sha256 and misfits(model.to(dtype), plan) is None


def test_a_plan_that_names_no_model_fits_any(model: PreTrainedModel, tmp_path: Path) -> None:
    replace(made_from(model, tmp_path), model_sha256="").save(tmp_path)
    with torch.no_grad():
        model.model.norm.weight[3] *= 2
    assert "model_sha256" not in (tmp_path / "plan.json").read_text()
    assert misfits(model, Plan.load(tmp_path)) is None


def test_round_to_nearest_names_no_model(model: PreTrainedModel) -> None:
    assert make_plan(model, Scheme.parse("int4-g32@rtn")).model_sha256 == ""


def test_the_model_s_hash_is_no_part_of_the_plan_s(model: PreTrainedModel, tmp_path: Path) -> None:
    plan = made_from(model, tmp_path)
    assert replace(plan, model_sha256="").sha256 == plan.sha256
