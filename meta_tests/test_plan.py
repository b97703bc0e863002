"""Plans: a saved plan is the plan, and one that contradicts itself or was damaged is refused."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from meta_tests.plans import DOWN, INT4, INT8, STATIC, UP, Q, assert_same_bits, nudged
from quantsuite.formats import FORMATS
from quantsuite.granularity import PerRow, PerTensor
from quantsuite.plan import LayerPlan, Plan, PlanError, name_rows, split_rows
from quantsuite.quantize import QuantizedTensor, dequantize, quantize
from quantsuite.scale_formats import SCALE_FORMATS
from quantsuite.scheme import BLOCK_FORMATS, REFERENCE, Scheme

PARTS = ("values", "scale", "tensor_scale", "zero_point")

NAMES = [
    *(f"{fmt}-{granularity}" for fmt in FORMATS for granularity in ("tensor", "row", "g16", "b8x16")),
    *(f"{fmt}-g16-s{scale}" for fmt in FORMATS for scale in SCALE_FORMATS if scale != "fp32"),
    *(f"int{bits}-{kind}" for bits in (8, 4, 3, 2) for kind in ("row-asym", "row-full", "g16-asym", "g16-full")),
    *BLOCK_FORMATS,
]  # fmt: skip


def tensors(weight: QuantizedTensor | None) -> dict[str, Tensor]:
    return {name: tensor for name in PARTS if (tensor := getattr(weight, name, None)) is not None}


def layer_of(name: str, seed: int = 0) -> LayerPlan:
    scheme = Scheme.parse(name)
    columns = 77 if isinstance(scheme.weight.granularity, PerRow | PerTensor) else 96
    weight = torch.randn(24, columns, generator=torch.Generator().manual_seed(seed))
    weight[3] = 0.0
    return LayerPlan(scheme=scheme, weight=quantize(weight, scheme.weight))


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


def test_both_files_of_a_plan_have_the_mode_of_new_files(tmp_path: Path) -> None:
    Plan(scheme=INT8, layers={UP: layer_of("int8-row")}).save(tmp_path / "plan")
    (tmp_path / "new").touch()
    expected = (tmp_path / "new").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "plan").iterdir()} == {expected}


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
