"""The layer and its kernel: codes that a method chose, static scales, a kernel of a user's own, what is kept."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from quantsuite.kernels import dispatch
from quantsuite.kernels.ours import DequantizedProduct
from quantsuite.layer import QuantizedLinear, UnsupportedError
from quantsuite.linear import weight_bytes
from quantsuite.quantize import QuantizedTensor, dequantize, quantize
from quantsuite.scheme import EXECUTIONS, Execution, Scheme

executions = pytest.mark.parametrize("execution", EXECUTIONS)
FORMATS = ["int8-row", "int4-g64-asym", "int3-row", "int2-g32", "fp6e2m3-g32", "nf4-g64", "nvfp4", "fp8-b37x64"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def chosen_codes(scheme: Scheme) -> QuantizedTensor:
    """Codes of a weight [37, 128] that rounding to nearest would not choose: those of the row before."""
    quantized = quantize(draw(37, 128), scheme.weight)
    return replace(quantized, values=quantized.values.view(torch.int8).roll(1, 0).view(quantized.values.dtype))


class Plain:
    """int8-row of the simplest kind: codes and scales in a tuple."""

    name, operation, schemes, dtypes = "plain", "linear", ("int8-row",), ("float32", "bfloat16")

    def pack(self, weight, scheme):
        scale = (weight.abs().amax(1, keepdim=True) / 127).clamp(min=1e-38)
        return (weight / scale).round().char(), scale

    def linear(self, x, packed):
        codes, scale = packed
        return x @ (codes * scale).T.to(x.dtype)


@executions
@pytest.mark.parametrize("name", FORMATS)
def test_codes_that_a_method_chose_are_the_weight(name: str, execution: Execution) -> None:
    scheme = Scheme.parse(name)
    quantized = chosen_codes(scheme)
    layer = QuantizedLinear(quantized, None, scheme, execution)
    assert torch.equal(layer.effective_weight(), dequantize(quantized))


def test_a_simulated_weight_of_chosen_codes_is_held_in_the_dtype_asked_for() -> None:
    scheme, x = Scheme.parse("int4-g64@gptq"), draw(3, 128).bfloat16()
    quantized = chosen_codes(scheme)
    layer = QuantizedLinear(quantized, None, scheme, "simulated", dtype=torch.bfloat16)
    assert torch.equal(layer(x), x @ dequantize(quantized, torch.bfloat16).T)


def test_codes_of_another_operand_are_refused() -> None:
    with pytest.raises(ValueError, match="codes of int8-row are no weight of int4-row; give codes of int4-row"):
        QuantizedLinear(chosen_codes(Scheme.parse("int8-row")), None, Scheme.parse("int4-row"), "real")


@executions
@pytest.mark.parametrize("name", ["int8-row:int8-tensor", "fp8-row:fp8-tensor", "int4-g64:int8-g32", "mxfp8:mxfp8"])
def test_the_tensors_own_scale_given_makes_static_and_dynamic_the_same(name: str, execution: Execution) -> None:
    weight, x = draw(37, 128), draw(5, 128, seed=1)
    dynamic, static = Scheme.parse(name), Scheme.parse(f"{name}-static")
    scale = quantize(x, dynamic.activation).scale
    layer = QuantizedLinear(weight, None, static, execution, activation_scale=scale)
    assert torch.equal(layer(x), QuantizedLinear(weight, None, dynamic, execution)(x))


@executions
def test_activations_beyond_a_static_scale_saturate(execution: Execution) -> None:
    scheme = Scheme.parse("int8-row:int8-tensor-static")
    layer = QuantizedLinear(torch.eye(4), None, scheme, execution, activation_scale=torch.tensor(1 / 127))
    y = layer(torch.tensor([[0.5, 1.0, 2.0, -8.0]])).detach()
    assert y == pytest.approx(torch.tensor([[0.5, 1, 1, -1]]), abs=0.01)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (None, "int8-tensor-static has no scale of its own values; give one from calibration, or drop -static"),
        (torch.ones(3, 1), r"shape \[3, 1\], expected \[1, 1\] or one value for all"),
        (torch.tensor(0.0), "zero, negative, NaN or infinite; calibrate it again"),
        (torch.tensor(torch.nan), "zero, negative, NaN or infinite"),
    ],
)
def test_a_static_operand_needs_a_scale_that_fits(scale: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(draw(5, 64), Scheme.parse("int8-row:int8-tensor-static").activation, scale=scale)


@pytest.mark.parametrize(("name", "kind"), [("int8-row-asym", "a zero point"), ("nvfp4", "a scale of two levels")])
def test_an_operand_that_one_scale_does_not_describe_takes_none(name: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has {kind}, which cannot be given"):
        quantize(draw(5, 64), Scheme.parse(name).weight, scale=torch.tensor(1.0))


def test_a_named_kernel_multiplies_and_its_name_is_shown() -> None:
    weight, x, bias = draw(37, 128), draw(5, 128, seed=1), draw(37, seed=2)
    layer = QuantizedLinear(weight, bias, Scheme.parse("int8-row"), "real", kernel=Plain())
    assert torch.equal(layer(x), Plain().linear(x, Plain().pack(weight, layer.scheme)) + bias)
    assert layer.kernel.name == "plain" and "real by plain" in repr(layer)


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("int4-g64", torch.float32, "int4-g64: plain does not claim it; it claims int8-row"),
        ("int8-row", torch.float16, "int8-row: plain takes no float16; it takes float32, bfloat16"),
    ],
)
def test_a_named_kernel_that_cannot_is_refused(name: str, dtype: torch.dtype, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        QuantizedLinear(draw(8, 64).to(dtype), None, Scheme.parse(name), "real", kernel=Plain())


def test_a_kernel_that_chooses_all_codes_itself_takes_none_of_a_method() -> None:
    scheme = Scheme.parse("int8-row")
    with pytest.raises(UnsupportedError, match="plain has no pack_quantized"):
        QuantizedLinear(chosen_codes(scheme), None, scheme, "real", kernel=Plain())


@pytest.mark.parametrize("kernel", [None, Plain()], ids=["table", "plain"])
def test_what_a_kernel_keeps_is_counted_saved_and_moved_with_the_layer(kernel: Plain | None) -> None:
    layer, other = (
        QuantizedLinear(draw(8, 64, seed=seed), None, Scheme.parse("int8-row"), "real", kernel=kernel)
        for seed in (0, 1)
    )
    x = draw(3, 64, seed=2)
    assert weight_bytes(layer) == 8 * 64 + 8 * 4
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))
    assert layer.to("meta")(x.to("meta")).shape == (3, 8)


def test_a_named_kernel_is_asked_once_for_each_device() -> None:
    class Asked(Plain):
        devices = ()

        def unsupported(self, scheme, device):
            self.devices += (device,)

    layer = QuantizedLinear(draw(8, 64), None, Scheme.parse("int8-row"), "real", kernel=Asked())
    layer(draw(3, 64)), layer(draw(4, 64))
    assert layer.kernel.devices == ("cpu",)
    layer.to("meta")(draw(3, 64).to("meta"))
    assert layer.kernel.devices == ("cpu", "meta")


def test_a_kernel_counts_its_packed_weight_and_the_rest_is_counted_once() -> None:
    class Counted(Plain):
        def nbytes(self, packed):
            return 1000

    first, second = (
        QuantizedLinear(draw(8, 64), draw(8), Scheme.parse("int8-row"), "real", kernel=Counted()) for _ in range(2)
    )
    second.bias = first.bias
    assert weight_bytes(nn.ModuleList([first, second, nn.Linear(8, 1)])) == 2 * 1000 + 8 * 4 + 9 * 4


class Nested(Plain):
    """Keeps a module whose own parameters come after its children's when it is moved, in a tuple."""

    def pack(self, weight, scheme):
        codes, scale = super().pack(weight, scheme)
        module = nn.Module()
        module.codes, module.inner = nn.Parameter(codes, requires_grad=False), nn.Module()
        module.inner.divisor = nn.Parameter(1 / scale, requires_grad=False)
        return (module,)

    def linear(self, x, packed):
        return super().linear(x, (packed[0].codes, 1 / packed[0].inner.divisor))


def test_a_module_in_a_packed_weight_keeps_its_tensors_apart_when_moved() -> None:
    layer, x = QuantizedLinear(draw(8, 64), None, Scheme.parse("int8-row"), "real", kernel=Nested()), draw(3, 64)
    expected, state = layer(x), {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer.to_empty(device="cpu").load_state_dict(state)
    assert torch.equal(layer(x), expected)


class Whole(Plain):
    """Keeps a module."""

    def pack(self, weight, scheme):
        module = nn.Module()
        for name, part in zip(("codes", "scale"), super().pack(weight, scheme), strict=True):
            module.register_buffer(name, part)
        return module

    def linear(self, x, packed):
        return super().linear(x, (packed.codes, packed.scale))


def test_a_packed_module_is_saved_once_and_keeps_its_dtypes_on_another_device() -> None:
    layer = QuantizedLinear(draw(8, 64), None, Scheme.parse("int8-row"), "real", kernel=Whole())
    assert sorted(layer.state_dict()) == ["packed.codes", "packed.scale"]
    assert {tensor.dtype for tensor in layer.to("meta", torch.float16).buffers()} == {torch.int8, torch.float32}


@pytest.mark.parametrize("kernel", [None, Nested(), Whole()], ids=["table", "nested", "module"])
def test_a_cast_changes_the_bias_but_nothing_of_a_packed_weight(kernel: Plain | None) -> None:
    layer = QuantizedLinear(draw(8, 64), draw(8), Scheme.parse("int8-row"), "real", kernel=kernel)
    before = {name: tensor.clone() for name, tensor in layer.named_buffers()}
    layer.to(torch.bfloat16)
    assert layer.bias.dtype == torch.bfloat16 and before
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.named_buffers())
    assert layer(draw(3, 64).bfloat16()).dtype == torch.bfloat16


def test_fp8_codes_and_a_static_scale_stay_as_they_are_in_a_cast() -> None:
    scheme, scale = Scheme.parse("fp8-row:fp8-tensor-static"), torch.tensor(0.01)
    layer = QuantizedLinear(draw(8, 64), None, scheme, "real", activation_scale=scale)
    before = [tensor.dtype for tensor in layer.buffers()]
    assert [tensor.dtype for tensor in layer.half().buffers()] == before and torch.float8_e4m3fn in before


@pytest.mark.parametrize(
    ("name", "dtype", "k", "kernel"),
    [
        ("int8-row:int8-token", torch.float16, 64, "ours-int32"),
        ("int8-row:int8-token", torch.float32, 140_000, "ours-codes"),
        ("int4-row:int8-token", torch.float32, 140_000, "ours-dequantized"),
        ("fp8-row", torch.bfloat16, 64, "ours-codes"),
        ("fp8-row", torch.float16, 64, "ours-dequantized"),
        ("int4-g64", torch.bfloat16, 64, "ours-dequantized"),
    ],
)
def test_the_table_chooses_by_scheme_dtype_and_size(name: str, dtype: torch.dtype, k: int, kernel: str) -> None:
    assert dispatch.choose(Scheme.parse(name), "cpu", 1, 8, k, dtype).name == kernel


def test_a_table_may_choose_by_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [
        dispatch.Rule(scheme="int8-*", kernel="ours-codes", rows=(1, 4)),
        dispatch.Rule(scheme="*", kernel="ours-dequantized", rows=(5, 0)),
    ]
    monkeypatch.setattr(dispatch, "read_table", lambda: rules)
    dispatch.choose.cache_clear()
    layer = QuantizedLinear(draw(8, 64), None, Scheme.parse("int8-row"), "real")
    assert [layer.kernel_for(draw(m, 64)).name for m in (4, 5)] == ["ours-codes", "ours-dequantized"]
    dispatch.choose.cache_clear()


def test_a_mistake_in_a_table_is_named(tmp_path) -> None:
    path = tmp_path / "table.toml"
    path.write_text('[[rule]]\nscheme = "*"\nkernal = "x"\n')
    with pytest.raises(ValueError, match=r"table.toml: .*kernal"):
        dispatch.read_table(path)


def test_codes_are_not_unpacked_bit_by_bit_at_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = QuantizedLinear(draw(8, 64), None, Scheme.parse("int3-g64"), "real", kernel=DequantizedProduct())
    expected = layer(draw(2, 64))

    def refuse(*given: object) -> Tensor:
        raise AssertionError("a bit stream was unpacked")

    monkeypatch.setattr("quantsuite.packing.unpack", refuse)
    assert torch.equal(layer(draw(2, 64)), expected)
