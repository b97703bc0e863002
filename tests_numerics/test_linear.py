"""The quantized layer: simulated against real, training against inference, exchange in a model."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from quantsuite import reference
from quantsuite.bounds import bound_execution
from quantsuite.kernels import dispatch, ours
from quantsuite.linear import QuantizedLinear, UnsupportedError, quantized, weight_bytes
from quantsuite.quantize import dequantize, fake_quantize, quantize
from quantsuite.scheme import CATALOGUE, EXECUTIONS, Execution, Scheme

PACKED = [Scheme.parse(name) for name in ("int4-g128", "int3-g64", "nf4-g64", "fp4-row", "fp6e3m2-g128")]
BLOCKS = [
    Scheme.parse(name)
    for name in ("mxfp8", "mxfp4", "mxint8", "nvfp4", "int8-row-full", "int8-g128-sbf16", "fp8-row-se4m3")
]
ASYMMETRIC = [Scheme.parse(name) for name in ("int8-row-asym", "int4-g128-asym")]
BOTH = [
    Scheme.parse(name)
    for name in (
        "int8-row:int8-token",
        "int8-tensor:int8-tensor",
        "int4-row:int8-token",
        "int8-row-full:int8-token-full",
        "fp8-row:fp8-token",
        "fp8-row:int8-token",
        "fp8-b37x128:fp8-g128",
        "int8-row:int8-token-asym",
        "mxfp4:mxfp8",
    )
]
STORED = [*CATALOGUE, *PACKED, *BLOCKS, *ASYMMETRIC, *BOTH]
schemes = pytest.mark.parametrize("scheme", STORED, ids=str)
dtypes = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
executions = pytest.mark.parametrize("execution", EXECUTIONS)


biases = pytest.mark.parametrize("bias", [0.0, 1000.0], ids=["no bias", "large bias"])


def make_linear(dtype: torch.dtype, bias: float = 0.0) -> nn.Linear:
    """A layer of 37 rows, an odd number; ``bias`` is the deviation of its bias, which 0 leaves out."""
    torch.manual_seed(0)
    linear = nn.Linear(512, 37, bias=bias > 0, dtype=dtype)
    if bias > 0:
        nn.init.normal_(linear.bias, std=bias)
    return linear


def activations(tokens: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(tokens, 512, generator=torch.Generator().manual_seed(tokens)).to(dtype)


def effective_activations(x: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    return x if scheme.activation is None else dequantize(quantize(x, scheme.activation))


def bound(
    x: torch.Tensor, weight: torch.Tensor, scheme: Scheme, dtype: torch.dtype, bias: torch.Tensor | None = None
) -> torch.Tensor:
    operands = 1 if scheme.activation is None else 2
    return bound_execution(effective_activations(x, scheme), weight, dtype, bias, quantized_operands=operands)


@schemes
@dtypes
@biases
@pytest.mark.parametrize("tokens", [1, 17])
def test_simulated_and_real_agree_within_the_bound(
    scheme: Scheme, dtype: torch.dtype, bias: float, tokens: int
) -> None:
    linear, x = make_linear(dtype, bias), activations(tokens, dtype)
    simulated = QuantizedLinear.from_linear(linear, scheme, "simulated")(x)
    real_layer = QuantizedLinear.from_linear(linear, scheme, "real")
    difference = (simulated.double() - real_layer(x).double()).abs()
    assert (difference <= bound(x, real_layer.effective_weight(), scheme, dtype, linear.bias)).all()


@schemes
@dtypes
@biases
@executions
def test_a_product_is_within_half_the_bound_of_the_float64_reference(
    scheme: Scheme, dtype: torch.dtype, bias: float, execution: Execution
) -> None:
    linear, x = make_linear(dtype, bias), activations(17, dtype)
    weight = QuantizedLinear.from_linear(linear, scheme, "real").effective_weight()
    exact = reference.linear(effective_activations(x, scheme), weight, linear.bias)
    error = QuantizedLinear.from_linear(linear, scheme, execution)(x).double() - exact
    assert (error.abs() <= bound(x, weight, scheme, dtype, linear.bias) / 2).all()


@schemes
@dtypes
@executions
def test_products_with_weights_too_small_for_float16_are_within_the_bound(
    scheme: Scheme, dtype: torch.dtype, execution: Execution
) -> None:
    linear, x = make_linear(dtype), activations(17, dtype)
    linear.weight.data *= 2.0**-14
    weight = QuantizedLinear.from_linear(linear, scheme, "real").effective_weight()
    exact = reference.linear(effective_activations(x, scheme), weight)
    error = QuantizedLinear.from_linear(linear, scheme, execution)(x).double() - exact
    assert (error.abs() <= bound(x, weight, scheme, dtype) / 2).all()


@schemes
@executions
def test_the_bias_is_added(scheme: Scheme, execution: Execution) -> None:
    linear = make_linear(torch.float32, bias=1.0)
    layer = QuantizedLinear.from_linear(linear, scheme, execution)
    at_zero = layer(torch.zeros(2, 512))
    assert torch.equal(at_zero, linear.bias.expand(2, -1))


@schemes
def test_real_storage_is_the_bits_of_its_codes_and_its_scales(scheme: Scheme) -> None:
    layer = QuantizedLinear.from_linear(make_linear(torch.bfloat16), scheme, "real")
    operand = scheme.weight
    scales = {"tensor": 1, "row": 37, "b37x128": 4}.get(str(operand.granularity))
    if scales is None:
        scales = 37 * 512 // operand.granularity.size
    a_scale = {"fp32": 4, "bf16": 2, "e8m0": 1, "e4m3": 1}[operand.scale.name] + (not operand.symmetric)
    codes = 37 * 512 * operand.format.bits // 8
    assert weight_bytes(layer) == codes + a_scale * scales + (4 if operand.scale.name == "e4m3" else 0)


@schemes
@dtypes
@pytest.mark.parametrize("tokens", [1, 17])
def test_training_and_inference_compute_the_same(scheme: Scheme, dtype: torch.dtype, tokens: int) -> None:
    x = activations(tokens, dtype)
    layer = QuantizedLinear.from_linear(make_linear(dtype, bias=0.1), scheme, "simulated")
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
    rounded = other if scheme.activation is None else fake_quantize(other, scheme.activation)
    functional.linear(rounded, weight).square().sum().backward()
    assert torch.equal(x.grad, other.grad)
    assert torch.equal(layer.weight.grad, weight.grad)


@pytest.mark.parametrize("name", ["int3-row", "nf4-row", "fp6e2m3-tensor"])
def test_rows_that_fill_no_whole_bytes_are_stored_too(name: str) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(37, 5, bias=False), torch.randn(3, 37)
    simulated, real = (QuantizedLinear.from_linear(linear, Scheme.parse(name), each) for each in EXECUTIONS)
    assert torch.equal(real.effective_weight(), simulated.effective_weight())
    assert ((simulated(x) - real(x)).abs() <= bound(x, real.effective_weight(), real.scheme, torch.float32)).all()


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        tie_word_embeddings=request.param,
    )
    return Qwen3ForCausalLM(config).eval()


@executions
@pytest.mark.parametrize("include_head", [False, True], ids=["body", "head"])
def test_a_model_is_as_it_was_after_the_block(
    model: Qwen3ForCausalLM, execution: Execution, include_head: bool
) -> None:
    before, modules = {k: v.clone() for k, v in model.state_dict().items()}, dict(model.named_modules())
    with quantized(model, Scheme.parse("int8-row"), execution, include_head=include_head):
        assert sum(isinstance(module, QuantizedLinear) for module in model.modules()) == 2 * 7 + include_head
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_model_is_as_it_was_after_an_error_in_the_block(model: Qwen3ForCausalLM) -> None:
    modules = dict(model.named_modules())
    with pytest.raises(KeyError), quantized(model, Scheme.parse("int8-row"), "real"):
        raise KeyError
    assert dict(model.named_modules()) == modules


def test_the_reference_scheme_changes_nothing(model: Qwen3ForCausalLM) -> None:
    modules = dict(model.named_modules())
    with quantized(model, Scheme(), "real"):
        assert dict(model.named_modules()) == modules


@pytest.mark.parametrize("include_head", [False, True])
def test_the_head_is_quantized_only_if_asked_and_embeddings_never(model: Qwen3ForCausalLM, include_head: bool) -> None:
    embeddings = model.get_input_embeddings().weight.clone()
    with quantized(model, Scheme.parse("int8-row"), "simulated", include_head=include_head):
        assert isinstance(model.lm_head, QuantizedLinear) is include_head
        assert torch.equal(model.get_input_embeddings().weight, embeddings)


def test_a_weight_that_is_not_finite_is_named_and_the_model_restored(model: Qwen3ForCausalLM) -> None:
    modules = dict(model.named_modules())
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    with (
        pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj: 1 of 8192 values are NaN"),
        quantized(model, Scheme.parse("int8-row"), "real"),
    ):
        pass
    assert dict(model.named_modules()) == modules


@pytest.mark.parametrize(
    ("name", "execution", "way_out"),
    [
        ("int8-row:int8-token-static", "simulated", "drop -static"),
        ("bf16+kv-int8-token", "simulated", r"drop \+kv-int8-token"),
    ],
)
def test_what_cannot_be_executed_says_what_can(
    model: Qwen3ForCausalLM, name: str, execution: str, way_out: str
) -> None:
    with pytest.raises(UnsupportedError, match=way_out), quantized(model, Scheme.parse(name), execution):
        pass


@executions
def test_quantized_activations_change_the_product(execution: Execution) -> None:
    x = activations(17, torch.float32)
    names = ("int8-row", "int8-row:int8-token")
    weight_only, both = (
        QuantizedLinear.from_linear(make_linear(torch.float32), Scheme.parse(name), execution) for name in names
    )
    assert not torch.equal(weight_only(x), both(x))


@pytest.mark.parametrize("name", ["int8-row:int8-token", "int4-tensor:int8-tensor", "int8-row-full:int8-token-full"])
@pytest.mark.parametrize(("tokens", "rows", "terms"), [(1, 1, 1), (3, 37, 129), (40, 64, 512)])
def test_integer_codes_are_summed_exactly(name: str, tokens: int, rows: int, terms: int) -> None:
    """Against int64 sums: all that is rounded is the sum to float32 and its two scales."""
    generator, scheme = torch.Generator().manual_seed(terms), Scheme.parse(name)
    x, weight = (torch.randn(size, terms, generator=generator) for size in (tokens, rows))
    left, right = quantize(x, scheme.activation), quantize(weight, scheme.weight)
    sums = left.values.long() @ right.values.long().T
    expected = sums.float() * left.step * right.step.flatten()
    assert torch.equal(QuantizedLinear(weight, None, scheme, "real")(x), expected)


def test_sums_that_int32_cannot_hold_are_not_taken_in_it() -> None:
    ones, scheme = torch.ones(1, 140_000), Scheme.parse("int8-row:int8-token")
    assert QuantizedLinear(ones, None, scheme, "real")(ones).item() == pytest.approx(140_000, rel=1e-3)


def test_a_device_without_a_product_of_int8_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*operands: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no kernel")

    caches = (ours._missing_integer_product, dispatch.choose)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(torch, "_int_mm", refuse)
    with pytest.raises(UnsupportedError, match="cpu cannot multiply int8 codes: no kernel; run it with --execution"):
        QuantizedLinear(torch.ones(8, 8), None, Scheme.parse("int8-row:int8-token"), "real")
    for cache in caches:
        cache.cache_clear()
