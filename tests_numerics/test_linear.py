"""The quantized layer: simulated against real, training against inference, exchange in a model."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from quantsuite import reference
from quantsuite.bounds import bound_execution
from quantsuite.linear import QuantizedLinear, UnsupportedError, quantized, weight_bytes
from quantsuite.scheme import CATALOGUE, Scheme

schemes = pytest.mark.parametrize("scheme", CATALOGUE, ids=str)
dtypes = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)


def make_linear(dtype: torch.dtype, rows: int = 37, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1024, rows, bias=bias, dtype=dtype)


def activations(tokens: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(tokens, 1024, generator=torch.Generator().manual_seed(tokens)).to(dtype)


@schemes
@dtypes
@pytest.mark.parametrize("tokens", [1, 17, 33])
def test_simulated_and_real_agree_within_the_bound(scheme: Scheme, dtype: torch.dtype, tokens: int) -> None:
    linear, x = make_linear(dtype), activations(tokens, dtype)
    simulated = QuantizedLinear.from_linear(linear, scheme, "simulated")(x)
    real_layer = QuantizedLinear.from_linear(linear, scheme, "real")
    difference = (simulated.double() - real_layer(x).double()).abs()
    assert (difference <= bound_execution(x, real_layer.effective_weight(), dtype)).all()


@schemes
@dtypes
def test_the_real_product_is_that_of_the_float64_reference(scheme: Scheme, dtype: torch.dtype) -> None:
    layer, x = QuantizedLinear.from_linear(make_linear(dtype), scheme, "real"), activations(17, dtype)
    exact = reference.linear(x, layer.effective_weight())
    assert ((layer(x).double() - exact).abs() <= bound_execution(x, layer.effective_weight(), dtype)).all()


@schemes
@pytest.mark.parametrize("execution", ["simulated", "real"])
def test_the_bias_is_added(scheme: Scheme, execution: str) -> None:
    linear = make_linear(torch.float32, bias=True)
    layer = QuantizedLinear.from_linear(linear, scheme, execution)
    at_zero = layer(torch.zeros(2, 1024))
    assert torch.equal(at_zero, linear.bias.expand(2, -1))


@schemes
def test_real_storage_is_one_byte_a_weight_and_its_scales(scheme: Scheme) -> None:
    linear = make_linear(torch.bfloat16)
    layer = QuantizedLinear.from_linear(linear, scheme, "real")
    scales = {"tensor": 1, "row": 37}.get(str(scheme.weight.granularity))
    if scales is None:
        scales = 37 * 1024 // scheme.weight.granularity.size
    assert weight_bytes(layer) == weight_bytes(linear) // 2 + 4 * scales


@schemes
def test_training_and_inference_compute_the_same(scheme: Scheme) -> None:
    x = activations(17, torch.bfloat16)
    layer = QuantizedLinear.from_linear(make_linear(torch.bfloat16), scheme, "simulated")
    in_training = layer(x)
    assert layer.weight.requires_grad
    assert torch.equal(layer.freeze()(x), in_training)
    assert not layer.weight.requires_grad


@schemes
def test_gradients_are_those_of_a_layer_with_the_effective_weight(scheme: Scheme) -> None:
    x = activations(17, torch.float32).requires_grad_()
    layer = QuantizedLinear.from_linear(make_linear(torch.float32), scheme, "simulated")
    layer(x).square().sum().backward()
    weight = layer.effective_weight().detach().requires_grad_()
    other = x.detach().clone().requires_grad_()
    functional.linear(other, weight).square().sum().backward()
    assert torch.equal(x.grad, other.grad)
    assert torch.equal(layer.weight.grad, weight.grad)


@pytest.fixture
def model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config).eval()


def layer_kinds(model: nn.Module) -> dict[str, type]:
    return {name: type(module) for name, module in model.named_modules()}


@pytest.mark.parametrize("execution", ["simulated", "real"])
def test_a_model_is_as_it_was_after_the_block(model: Qwen3ForCausalLM, execution: str) -> None:
    before, kinds = {k: v.clone() for k, v in model.state_dict().items()}, layer_kinds(model)
    with quantized(model, Scheme.parse("int8-row"), execution):
        assert sum(kind is QuantizedLinear for kind in layer_kinds(model).values()) == 2 * 7
    assert layer_kinds(model) == kinds
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("include_head", [False, True])
def test_the_head_is_quantized_only_if_asked_and_embeddings_never(model: Qwen3ForCausalLM, include_head: bool) -> None:
    embeddings = model.get_input_embeddings().weight.clone()
    with quantized(model, Scheme.parse("int8-row"), "simulated", include_head=include_head):
        assert isinstance(model.lm_head, QuantizedLinear) is include_head
        assert torch.equal(model.get_input_embeddings().weight, embeddings)


def test_a_weight_that_is_not_finite_is_named_and_the_model_restored(model: Qwen3ForCausalLM) -> None:
    kinds = layer_kinds(model)
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    with (
        pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj: 1 of 8192 values are NaN"),
        quantized(model, Scheme.parse("int8-row"), "real"),
    ):
        pass
    assert layer_kinds(model) == kinds


@pytest.mark.parametrize(
    ("name", "execution", "way_out"),
    [
        ("int4-g64", "real", "run it with --execution simulated"),
        ("int8-row-asym", "real", "run it with --execution simulated"),
        ("int8-row:int8-token", "real", "run it with --execution simulated"),
        ("int8-row:int8-token-static", "simulated", "drop -static"),
        ("int8-row@awq", "simulated", "drop @awq"),
        ("bf16+kv-int8-token", "simulated", r"drop \+kv-int8-token"),
    ],
)
def test_what_cannot_be_executed_says_what_can(
    model: Qwen3ForCausalLM, name: str, execution: str, way_out: str
) -> None:
    with pytest.raises(UnsupportedError, match=way_out), quantized(model, Scheme.parse(name), execution):
        pass


def test_quantized_activations_change_the_product() -> None:
    x = activations(17, torch.float32)
    weight_only = QuantizedLinear.from_linear(make_linear(torch.float32), Scheme.parse("int8-row"), "simulated")
    both = QuantizedLinear.from_linear(make_linear(torch.float32), Scheme.parse("int8-row:int8-token"), "simulated")
    assert not torch.equal(weight_only(x), both(x))
