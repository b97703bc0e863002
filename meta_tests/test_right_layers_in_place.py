"""The check of a model's layers in place finds nothing wrong with what is right in another way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from meta_tests.layer_models import TEXT, LayerModels, faults
from meta_tests.layer_steps import half_up, packs
from meta_tests.plans import nudged
from quantsuite.checks.in_place import Execute
from quantsuite.evaluate.layers import check_layers
from quantsuite.kernels.registry import register_from, unregister
from quantsuite.plan import LayerPlan, Plan, name_rows
from quantsuite.quantize import quantize
from quantsuite.scheme import CATALOGUE, EXECUTIONS, REFERENCE, Execution, Scheme

ROOT = Path(__file__).parents[1]
Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"
INT8 = Scheme.parse("int8-row")
EXOTIC = (
    *("int8-row-asym", "int4-g32-asym", "int8-row-full", "int4-g32-clip", "int8-row-clip", "int8-tensor-clip"),
    *("int3-g64", "int2-row", "nf4-g64", "fp4-g32", "fp6e3m2-g32", "fp8e5m2-row", "int8-g128-sbf16"),
    *("mxfp4", "mxfp8", "mxint8", "nvfp4", "int8-b64x64", "fp8-b128x128:fp8-g128"),
    *("int8-row:int8-token", "int8-tensor:int8-tensor", "int4-row:int8-token", "int8-row-full:int8-token-full"),
    *("fp8-row:fp8-token", "fp8-tensor:fp8-tensor", "mxfp4:mxfp8", "nvfp4:nvfp4"),
    "int8-row-asym:int8-token-asym",
)
executions = pytest.mark.parametrize("execution", EXECUTIONS)

pytestmark = pytest.mark.usefixtures("layer_kernels")


@executions
@pytest.mark.parametrize("scheme", [*map(str, CATALOGUE), *EXOTIC])
def test_every_scheme_holds(scheme: str, execution: Execution, layer_models: LayerModels) -> None:
    assert faults(layer_models.check("tiny", scheme, execution)) == []


@executions
@pytest.mark.parametrize("scheme", ["int8-row", "int4-g32", "int8-row:int8-token", "fp8-row:fp8-token", "mxfp4:mxfp8"])
@pytest.mark.parametrize("model", ["qwen2", "gpt2", "qwen3-moe", "qwen2-moe", "mixtral"])
def test_every_architecture_holds(model: str, scheme: str, execution: Execution, layer_models: LayerModels) -> None:
    assert faults(layer_models.check(model, scheme, execution)) == []


@executions
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("scheme", ["int8-row", "fp8-g32", "int4-g32-asym", "int8-row:int8-token", "nvfp4"])
def test_every_dtype_holds(scheme: str, dtype: str, execution: Execution, layer_models: LayerModels) -> None:
    assert faults(layer_models.check("tiny", scheme, execution, dtype=dtype)) == []
    assert faults(layer_models.check("qwen2", scheme, execution, dtype=dtype, only=("0.self_attn.q_proj",))) == []


@pytest.mark.parametrize("model", ["tiny", "qwen2", "gpt2"])
def test_a_model_as_it_was_loaded_holds(model: str, layer_models: LayerModels) -> None:
    assert faults(layer_models.check(model, REFERENCE, None)) == []


@executions
@pytest.mark.parametrize("model", ["tied", "qwen2"])
def test_a_head_that_was_asked_for_holds(model: str, execution: Execution, layer_models: LayerModels) -> None:
    found = layer_models.check(model, "int8-row", execution, include_head=True)
    assert faults(found) == []
    assert "lm_head" in found.names


@executions
def test_plans_hold(execution: Execution, layer_models: LayerModels) -> None:
    """Chosen codes, static scales of a tensor and of groups, rows in parts, layers left as they are."""
    weight = nudged(quantize(layer_models.weight("tiny", Q), INT8.weight))
    scales = 0.02 + 0.1 * torch.rand(8, 1, generator=torch.Generator().manual_seed(0))
    layers = {
        Q: LayerPlan(scheme=INT8, weight=weight),
        name_rows(UP, 0, 300): LayerPlan(scheme=INT8),
        name_rows(UP, 300, 1024): LayerPlan(scheme=Scheme.parse("int4-g32")),
        Q.replace("q_", "k_"): LayerPlan(
            scheme=Scheme.parse("int8-row:int8-tensor-static"), activation_scale=torch.tensor(0.05)
        ),
        Q.replace("q_", "v_"): LayerPlan(scheme=Scheme.parse("int8-row:int8-g64-static"), activation_scale=scales),
        Q.replace("0", "1"): LayerPlan(
            scheme=Scheme.parse("fp8-row:fp8-tensor-static"), activation_scale=torch.tensor(0.013)
        ),
    }
    found = layer_models.check("tiny", Plan(scheme=REFERENCE, layers=layers), execution, only=("",))
    assert faults(found) == []
    assert set(layers) <= set(found.names)


@pytest.mark.parametrize("kernel", ["reciprocal", "rounds-scales"])
@pytest.mark.parametrize("model", ["tiny", "qwen2"])
def test_a_kernel_of_other_roundings_holds(kernel: str, model: str, layer_models: LayerModels) -> None:
    assert faults(layer_models.check(model, INT8, "real", kernel=kernel)) == []


def test_the_kernel_of_the_example_holds(layer_models: LayerModels) -> None:
    (kernel,) = register_from(str(ROOT / "examples" / "kernel" / "my_kernel.py"))
    try:
        assert faults(layer_models.check("qwen2", INT8, "real", kernel=kernel.name)) == []
    finally:
        unregister(kernel)


@pytest.mark.parametrize(
    ("kernel", "scheme"), [("torch-int8pack", "int8-row"), ("torch-int-mm", "int8-row:int8-token")]
)
def test_kernels_of_torch_hold(kernel: str, scheme: str, layer_models: LayerModels) -> None:
    assert faults(layer_models.check("tiny", scheme, "real", kernel=kernel)) == []


def test_ties_may_go_either_way(layer_models: LayerModels, monkeypatch: pytest.MonkeyPatch) -> None:
    packs(half_up)(monkeypatch)
    assert faults(layer_models.check("tiny", INT8, "real")) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads: int, layer_models: LayerModels) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = faults(layer_models.check("tiny", INT8, "real"))
    finally:
        torch.set_num_threads(before)
    assert found == []


@pytest.mark.slow
def test_a_compiled_layer_holds(layer_models: LayerModels) -> None:
    backend = layer_models.backend("tiny")
    with backend.engine(INT8, "simulated") as engine:
        engine.model.get_submodule(Q).compile(dynamic=True)
        matrices = [placed for placed in backend.matrices(engine, INT8) if placed.name == Q]
        tokens = backend.tokenizer(TEXT)["input_ids"]
        assert faults(check_layers(engine, matrices, tokens, Execute(execution="simulated"))) == []
