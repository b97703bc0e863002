"""Plans: each layer gets what it was planned, and a saved plan is the plan."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2Config, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from meta_tests.checkpoints import MIXTURES, PLAIN, build_model
from quantsuite.bounds import bound_execution
from quantsuite.formats import FORMATS
from quantsuite.granularity import PerRow, PerTensor
from quantsuite.layer import QuantizedLinear
from quantsuite.linear import MisfitError, matrices, misfits, quantized, unquantized
from quantsuite.methods import make_plan
from quantsuite.parameters import weights_sha256
from quantsuite.parts import build_layer
from quantsuite.plan import LayerPlan, Plan, PlanError, name_rows, split_rows
from quantsuite.quantize import QuantizedTensor, dequantize, fake_quantize, integer_range, quantize
from quantsuite.scale_formats import SCALE_FORMATS
from quantsuite.scheme import BLOCK_FORMATS, EXECUTIONS, REFERENCE, Execution, Scheme

executions = pytest.mark.parametrize("execution", EXECUTIONS)
TOKENS = torch.arange(1, 33).reshape(2, 16)
UP, DOWN, Q = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj", "model.layers.0.self_attn.q_proj"
INT8, INT4, STATIC = map(Scheme.parse, ("int8-row", "int4-g32", "int8-row:int8-tensor-static"))
PARTS = ("values", "scale", "tensor_scale", "zero_point")

NAMES = [
    *(f"{fmt}-{granularity}" for fmt in FORMATS for granularity in ("tensor", "row", "g16", "b8x16")),
    *(f"{fmt}-g16-s{scale}" for fmt in FORMATS for scale in SCALE_FORMATS if scale != "fp32"),
    *(f"int{bits}-{kind}" for bits in (8, 4, 3, 2) for kind in ("row-asym", "row-full", "g16-asym", "g16-full")),
    *BLOCK_FORMATS,
]  # fmt: skip


@pytest.fixture
def model() -> PreTrainedModel:
    return build_model(PLAIN["qwen3-untied"])


def tensors(weight: QuantizedTensor | None) -> dict[str, Tensor]:
    return {name: tensor for name in PARTS if (tensor := getattr(weight, name, None)) is not None}


def assert_same_bits(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        other = theirs[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
        assert torch.equal(tensor.flatten().view(torch.uint8), other.flatten().view(torch.uint8)), name


def nudged(weight: QuantizedTensor) -> QuantizedTensor:
    """Codes as a method with an eye on errors chooses them: some are the next ones to the nearest."""
    low, high = integer_range(weight.operand)
    codes = weight.values.clone()
    codes[::2, ::3] = torch.where(codes[::2, ::3] < high, codes[::2, ::3] + 1, codes[::2, ::3] - 1)
    assert low <= codes.min() and codes.max() <= high
    return replace(weight, values=codes)


def layer_of(name: str, seed: int = 0) -> LayerPlan:
    scheme = Scheme.parse(name)
    columns = 77 if isinstance(scheme.weight.granularity, PerRow | PerTensor) else 96
    weight = torch.randn(24, columns, generator=torch.Generator().manual_seed(seed))
    weight[3] = 0.0
    return LayerPlan(scheme=scheme, weight=quantize(weight, scheme.weight))


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


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_layer_is_the_same_bit_for_bit(tmp_path: Path, name: str) -> None:
    layer = layer_of(name)
    Plan(scheme=INT8, layers={UP: layer}).save(tmp_path)
    found = Plan.load(tmp_path).layers[UP]
    assert found.scheme == layer.scheme and found.weight.operand == layer.weight.operand
    assert found.weight.shape == layer.weight.shape
    assert_same_bits(tensors(found.weight), tensors(layer.weight))
    assert torch.equal(dequantize(found.weight), dequantize(layer.weight))


def test_a_saved_plan_is_the_same_plan(tmp_path: Path) -> None:
    static = LayerPlan(scheme=STATIC, activation_scale=torch.tensor([0.25]))
    layers = {UP: layer_of("nvfp4"), name_rows(Q, 0, 32): static, DOWN: LayerPlan(scheme=REFERENCE)}
    parameters = {"a.weight": torch.randn(4).bfloat16(), "b.weight": torch.randn(2, 3)}
    plan = Plan(scheme=Scheme.parse("int4-g128@awq"), layers=layers, parameters=parameters)
    plan.save(tmp_path)
    found = Plan.load(tmp_path)
    assert found == plan and found.sha256 == plan.sha256 and str(found) == "int4-g128@awq"
    assert [(n, str(layer.scheme)) for n, layer in sorted(found.layers.items())] == [
        (n, str(layer.scheme)) for n, layer in sorted(layers.items())
    ]
    assert_same_bits(dict(found.parameters), parameters)
    scale = found.layers[name_rows(Q, 0, 32)].activation_scale
    assert_same_bits({"": scale}, {"": static.activation_scale})


def test_codes_below_a_byte_are_stored_packed(tmp_path: Path) -> None:
    Plan(scheme=INT8, layers={UP: layer_of("int4-row")}).save(tmp_path)
    codes = load_file(tmp_path / "plan.safetensors")[f"layers.{UP}.codes"]
    assert codes.dtype == torch.uint8 and codes.shape == (24, 40)


def changed_document(folder: Path, change: dict[str, object]) -> None:
    document = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(document | change))


def changed_code(folder: Path) -> None:
    held = load_file(folder / "plan.safetensors")
    held[f"layers.{UP}.codes"][0, 0] ^= 1
    save_file(held, folder / "plan.safetensors")


def flipped_last_byte(folder: Path) -> None:
    data = bytearray((folder / "plan.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "plan.safetensors").write_bytes(data)


def cut(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])


def pickled(folder: Path) -> None:
    (folder / "plan.safetensors").write_bytes(pickle.dumps({"layers": 1}))


DAMAGE = {
    "a model of another hash": (lambda f: changed_document(f, {"model_sha256": "cd" * 32}), "was changed"),
    "a default of another name": (lambda f: changed_document(f, {"scheme": "int8-tensor"}), "was changed"),
    "a layer of another scheme": (
        lambda f: changed_document(f, {"layers": {UP: {"scheme": "int4-g32", "shape": [24, 96]}}}), "was changed"),
    "a layer that is gone": (lambda f: changed_document(f, {"layers": {}}), "was changed"),
    "a field that is unknown": (lambda f: changed_document(f, {"extra": 1}), "cannot be read"),
    "a newer version": (lambda f: changed_document(f, {"schema_version": 2}), "upgrade quantsuite"),
    "a code": (changed_code, "was changed"),
    "a byte": (flipped_last_byte, "was changed"),
    "half the tensors": (lambda f: cut(f, "plan.safetensors"), "cannot be read"),
    "half the document": (lambda f: cut(f, "plan.json"), "cannot be read"),
    "a pickle": (pickled, "cannot be read"),
    "no tensors": (lambda f: (f / "plan.safetensors").unlink(), "cannot be read"),
    "no document": (lambda f: (f / "plan.json").unlink(), "holds no plan.json"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_plan_that_was_damaged_or_edited_is_refused_in_one_line(tmp_path: Path, damage, message: str) -> None:
    Plan(scheme=INT8, layers={UP: layer_of("int4-g16")}).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(PlanError, match=message) as caught:
        Plan.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_round_to_nearest_is_guarded_too_when_it_is_saved(tmp_path: Path) -> None:
    Plan.of(INT8).save(tmp_path)
    assert Plan.load(tmp_path) == Plan.of(INT8)
    changed_document(tmp_path, {"scheme": "int8-tensor"})
    with pytest.raises(PlanError, match="was changed"):
        Plan.load(tmp_path)


def test_the_hash_is_over_everything_and_empty_for_one_scheme_alone() -> None:
    layer, scale = layer_of("int4-g16"), torch.tensor(0.5)
    plans = [
        Plan(scheme=INT8, layers={UP: layer}),
        Plan(scheme=INT4, layers={UP: layer}),
        Plan(scheme=INT8, layers={DOWN: layer}),
        Plan(scheme=INT8, layers={UP: replace(layer, weight=nudged(layer.weight))}),
        Plan(scheme=INT8, layers={UP: replace(layer, weight=replace(layer.weight, scale=layer.weight.scale * 2))}),
        Plan(scheme=INT8, layers={UP: LayerPlan(scheme=layer.scheme)}),
        Plan(scheme=INT8, layers={UP: LayerPlan(scheme=STATIC, activation_scale=scale)}),
        Plan(scheme=INT8, layers={UP: LayerPlan(scheme=STATIC, activation_scale=scale * 2)}),
        Plan(scheme=INT8, parameters={"norm": torch.ones(2)}),
        Plan(scheme=INT8, parameters={"norm": torch.ones(2).bfloat16()}),
    ]
    assert len({plan.sha256 for plan in plans}) == len(set(plans)) == len(plans)
    assert Plan.of(INT8).sha256 == "" and Plan.of(INT8) == Plan(scheme=INT8) != Plan.of(INT4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: LayerPlan(scheme=INT8, weight=w), "a weight of int4-g32 under int8-row"),
        (lambda w: LayerPlan(scheme=Scheme.parse("int4-g32@awq")), "drop .*@method"),
        (lambda w: LayerPlan(scheme=INT4, weight=replace(w, values=w.values + 0.5)), "is none of int4-g32"),
        (lambda w: LayerPlan(scheme=INT4, weight=replace(w, values=w.values - 8)), "is none of int4-g32, from -7 to 7"),
        (lambda w: LayerPlan(scheme=INT4, weight=replace(w, values=w.values.half())), "values of int4-g32 is"),
        (lambda w: LayerPlan(scheme=INT4, weight=replace(w, scale=w.scale[:1])), "scale of int4-g32 is"),
        (lambda w: LayerPlan(scheme=INT4, weight=replace(w, scale=w.scale * torch.nan)), "NaN or infinite"),
        (lambda w: LayerPlan(scheme=INT4, activation_scale=torch.ones(1)), "takes no activation scale"),
        (lambda w: LayerPlan(scheme=STATIC, activation_scale=-torch.ones(1)), "positive"),
        (lambda w: Plan(scheme=INT4, parameters={"norm": torch.tensor([torch.inf])}), "norm: a parameter"),
        (lambda w: Plan(scheme=INT4, layers={name_rows(UP, 4, 4): LayerPlan(scheme=INT4)}), "names no rows"),
        (lambda w: Plan.of(Scheme.parse("int4-g32@awq")), "a method makes the plan first"),
    ],
)  # fmt: skip
def test_a_plan_that_contradicts_itself_is_refused(make, message: str) -> None:
    weight = quantize(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), INT4.weight)
    with pytest.raises(PlanError, match=message):
        make(weight)


def test_names_of_rows_are_read_back() -> None:
    assert split_rows(name_rows(UP, 3, 17)) == (UP, (3, 17))
    assert split_rows(UP) == (UP, None)
