"""Steps of which wrong layers are made: each exchanges something in what is executed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from pytest import MonkeyPatch
from torch import Tensor, nn
from torch.nn import functional

from quantsuite.coverage import Target
from quantsuite.experts import QuantizedExperts
from quantsuite.kernels import ours, simulated, stored
from quantsuite.kernels.stored import StoredWeight
from quantsuite.layer import QuantizedLinear
from quantsuite.quantize import QuantizedTensor, dequantize, quantize
from quantsuite.scheme import Operand, Scheme

Plant = Callable[[MonkeyPatch], None]
Change = Callable[[QuantizedTensor, Tensor], QuantizedTensor]
PRODUCTS = (ours.IntegerProduct, ours.CodesProduct, ours.DequantizedProduct)


def packs(change: Change) -> Plant:
    """Codes and scales are changed when they are packed."""

    def pack(weight: Tensor, scheme: Scheme) -> StoredWeight:
        assert scheme.weight is not None
        return stored.pack_quantized(change(quantize(weight, scheme.weight), weight), scheme)

    return lambda patch: patch.setattr(ours._StoredProduct, "pack", staticmethod(pack))


def reads(change: Callable[[QuantizedTensor], QuantizedTensor]) -> Plant:
    """The product reads other codes and scales than ``unpack`` shows."""
    return lambda patch: patch.setattr(ours, "unpack_weight", lambda packed: change(stored.unpack_weight(packed)))


def dequantizes(change: Callable[[Tensor, QuantizedTensor], Tensor]) -> Plant:
    """The product multiplies by other values than codes and scales stand for."""
    return lambda patch: patch.setattr(
        ours, "dequantize", lambda weight, dtype: change(dequantize(weight, dtype), weight)
    )


def tokens(change: Callable[[Tensor, Operand], QuantizedTensor]) -> Plant:
    """Activations are quantized in another way."""
    return lambda patch: patch.setattr(ours, "_tokens", lambda x, packed, scale: change(x, packed.scheme.activation))


def multiplies(
    *,
    x: Callable[[Tensor], Tensor] = lambda x: x,
    y: Callable[[Tensor], Tensor] = lambda y: y,
    bias: Callable[[Tensor | None], Tensor | None] = lambda bias: bias,
) -> Plant:
    """Activations, bias or result of each product are changed."""

    def plant(patch: MonkeyPatch) -> None:
        for kernel in PRODUCTS:
            original = kernel.linear

            def linear(
                self: Any, given: Tensor, packed: Any, *, bias_of: Any = bias, original: Any = original, **rest: Any
            ) -> Tensor:
                return y(original(self, x(given), packed, **rest | {"bias": bias_of(rest.get("bias"))}))

            patch.setattr(kernel, "linear", linear)

    return plant


def shares_outputs(patch: MonkeyPatch) -> None:
    """Products of one shape are written to one buffer."""
    buffers: dict[tuple[int, ...], Tensor] = {}
    multiplies(y=lambda y: buffers.setdefault(tuple(y.shape), torch.empty_like(y)).copy_(y))(patch)


def without_partial_tile(tile: int) -> Callable[[Tensor], Tensor]:
    """Results of the tokens beyond the last whole tile are lost, where there are more than one tile's."""

    def change(y: Tensor) -> Tensor:
        flat = y.reshape(-1, y.shape[-1])
        rest = len(flat) % tile if len(flat) > tile else 0
        return torch.cat([flat[: len(flat) - rest], torch.zeros_like(flat[:rest])]).reshape(y.shape)

    return change


def places(change: Callable[[Target, nn.Module], nn.Module]) -> Plant:
    """Another module stands in the place of a layer."""

    def plant(patch: MonkeyPatch) -> None:
        original = Target.quantize
        patch.setattr(Target, "quantize", lambda self, *given: change(self, original(self, *given)))

    return plant


def unquantized(chosen: Callable[[str], bool]) -> Plant:
    return places(lambda target, layer: target.module if chosen(target.path) else layer)


def codes(change: Callable[[Tensor], Tensor]) -> Change:
    return lambda quantized, _: replace(quantized, values=change(quantized.values))


def truncated(quantized: QuantizedTensor, weight: Tensor) -> QuantizedTensor:
    return replace(quantized, values=(weight.float() / quantized.scale).trunc().to(quantized.values.dtype))


def half_up(quantized: QuantizedTensor, weight: Tensor) -> QuantizedTensor:
    """Not a fault: of two values that are as near, the one above."""
    rounded = (weight.float() / quantized.scale + 0.5).floor().clamp(-127, 127)
    return replace(quantized, values=rounded.to(torch.int8))


def some_rows_scaled_as_the_next(quantized: QuantizedTensor) -> QuantizedTensor:
    wrong = torch.arange(len(quantized.scale)) % 100 == 0
    return replace(quantized, scale=quantized.scale.where(~wrong[:, None], quantized.scale.roll(1, 0)))


def group_begins_one_late(values: Tensor, weight: QuantizedTensor) -> Tensor:
    size, scale = 64, weight.scale.squeeze(-1)
    values = values.clone()
    values[:, size::size] *= (scale[:, :-1] / scale[:, 1:]).to(values.dtype)
    return values


def groups_one_late(quantized: QuantizedTensor, weight: Tensor) -> QuantizedTensor:
    moved = quantize(weight.roll(-1, 1), quantized.operand)
    return replace(moved, values=moved.values.roll(1, 1))


def scale_of_tensor(quantized: QuantizedTensor, weight: Tensor) -> QuantizedTensor:
    scale = quantized.scale.amax().expand_as(quantized.scale).contiguous()
    return replace(quantized, values=(weight.float() / scale).round().to(torch.int8), scale=scale)


def coarse(bits: int) -> Callable[[Tensor], Tensor]:
    """Codes of eight bits of which fewer are used."""
    step = 2 ** (8 - bits)
    return lambda values: ((values.float() / step).round() * step).clamp(-127, 127).to(values.dtype)


def scaled_where(taken: Callable[[int], bool]) -> Callable[[Tensor], Tensor]:
    """Results of some numbers of tokens are too small."""
    return lambda y: y * 0.9 if taken(y.numel() // y.shape[-1]) else y


def flush_subnormals(values: Tensor) -> Tensor:
    return values.float().where(values.float().abs() >= 2.0**-6, 0.0).to(values.dtype)


def scales_in_bf16(quantized: QuantizedTensor) -> QuantizedTensor:
    return replace(quantized, scale=quantized.scale.bfloat16().float())


def unsigned(quantized: QuantizedTensor) -> QuantizedTensor:
    return replace(quantized, values=quantized.values.to(torch.int16) & 255)


def swap_nibbles(quantized: QuantizedTensor) -> QuantizedTensor:
    return replace(quantized, values=quantized.values.unflatten(-1, (-1, 2)).flip(-1).flatten(-2))


def transposed_scales(quantized: QuantizedTensor) -> QuantizedTensor:
    return replace(quantized, scale=quantized.scale.transpose(0, 2).reshape(quantized.scale.shape))


def zero_points(change: Callable[[Tensor], Tensor]) -> Callable[[QuantizedTensor], QuantizedTensor]:
    return lambda quantized: replace(quantized, zero_point=change(quantized.zero_point))


def moved_zero(quantized: QuantizedTensor) -> QuantizedTensor:
    """The same values but for the largest, with codes one step up."""
    moved = zero_points(lambda zero: zero + 1)(quantized)
    return replace(moved, values=(quantized.values.to(torch.int16) + 1).clamp(max=127).to(torch.int8))


def without_last(x: Tensor) -> Tensor:
    return torch.cat([x[..., :-1], torch.zeros_like(x[..., -1:])], dim=-1)


def without_last_where(chosen: Callable[[int], bool]) -> Callable[[Tensor], Tensor]:
    """Drops the last column of K in products of some numbers of tokens."""
    return lambda x: without_last(x) if chosen(x.numel() // x.shape[-1]) else x


def whole_tiles_only(size: int) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.cat([x[..., : -(x.shape[-1] % size)], torch.zeros_like(x[..., -(x.shape[-1] % size) :])], -1)


def without_last_row(y: Tensor) -> Tensor:
    return without_last(y)


def truncate_tokens(x: Tensor, operand: Operand) -> QuantizedTensor:
    right = quantize(x, operand)
    return replace(right, values=(x.float() / right.scale).trunc().to(torch.int8))


def scale_of_first_token(x: Tensor, operand: Operand) -> QuantizedTensor:
    scale = quantize(x, operand).scale.reshape(-1)[0]
    shape = (*x.shape[:-1], 1)
    values = (x.float() / scale).round().clamp(-127, 127).to(torch.int8)
    return replace(quantize(x, operand), values=values, scale=scale.expand(shape))


def one_scale_for_all(x: Tensor, operand: Operand) -> QuantizedTensor:
    right = quantize(x, operand)
    scale = right.scale.amax().expand_as(right.scale)
    return replace(right, values=(x.float() / scale).round().to(torch.int8), scale=scale)


def previous_scale() -> Plant:
    kept: list[Tensor] = []

    def change(x: Tensor, operand: Operand) -> QuantizedTensor:
        right = quantize(x, operand)
        kept.append(right.scale.reshape(()))
        scale = kept[-2:][0].expand_as(right.scale)
        values = (x.float() / scale).round().clamp(-127, 127).to(torch.int8)
        return replace(right, values=values, scale=scale)

    return tokens(change)


def accumulates(dtype: torch.dtype) -> Plant:
    """Sums of codes are kept in few bits."""

    def linear(x: Tensor, weight: Tensor) -> Tensor:
        # Codes of 127 times activations would overflow float16 alone: scaled down by a power of two, nothing else is.
        parts = zip((x.float() / 1024).split(8, -1), weight.float().split(8, -1), strict=True)
        total = x.new_zeros((), dtype=dtype)
        for left, right in parts:
            total = (total.float() + left @ right.T).to(dtype)
        return total.float() * 1024

    return lambda patch: patch.setattr(ours, "functional", SimpleNamespace(linear=linear, pad=functional.pad))


def int16_sums(patch: MonkeyPatch) -> None:
    original = ours._integer_sums
    patch.setattr(ours, "_integer_sums", lambda x, weight: original(x, weight).clamp(-(2.0**15), 2.0**15 - 1))


def keeps_a_copy(patch: MonkeyPatch) -> None:
    def pack(weight: Tensor, scheme: Scheme) -> StoredWeight:
        packed = stored.pack_weight(weight, scheme)
        object.__setattr__(packed, "copy", weight.clone())
        return packed

    patch.setattr(ours._StoredProduct, "pack", staticmethod(pack))


def stored_in_four_bits(patch: MonkeyPatch) -> None:
    """A layer that says int8 of what is packed as int4."""
    shown: dict[int, tuple[StoredWeight, QuantizedTensor]] = {}

    def pack(weight: Tensor, scheme: Scheme) -> StoredWeight:
        assert scheme.weight is not None
        packed = stored.pack_weight(weight, Scheme.parse("int4-row"))
        shown[id(packed)] = packed, quantize(weight, scheme.weight)
        return packed

    patch.setattr(ours._StoredProduct, "pack", staticmethod(pack))
    patch.setattr(ours._StoredProduct, "unpack", staticmethod(lambda packed: shown[id(packed)][1]))


def other_granularity(patch: MonkeyPatch) -> None:
    other = Scheme.parse("int8-g64")
    patch.setattr(ours._StoredProduct, "pack", staticmethod(lambda weight, scheme: stored.pack_weight(weight, other)))
    patch.setattr(ours.CodesProduct, "linear", ours.DequantizedProduct.linear)


def executes_as_loaded(patch: MonkeyPatch) -> None:
    """Codes are packed, and the product is that of the weight before."""
    build = QuantizedLinear.__init__

    def init(self: QuantizedLinear, weight: Tensor, *given: Any, **named: Any) -> None:
        build(self, weight, *given, **named)
        self.__dict__["_loaded"] = weight

    patch.setattr(QuantizedLinear, "__init__", init)
    patch.setattr(QuantizedLinear, "forward", lambda self, x: functional.linear(x, self._loaded, self.bias))


def simulated_in_place_of_real(patch: MonkeyPatch) -> None:
    original = Target.quantize
    patch.setattr(Target, "quantize", lambda self, plan, execution, kernel=None: original(self, plan, "simulated"))


def never_rounds(patch: MonkeyPatch) -> None:
    def freeze(self: QuantizedLinear) -> QuantizedLinear:
        self.frozen = True
        return self

    patch.setattr(QuantizedLinear, "freeze", freeze)


def activations_as_they_are(patch: MonkeyPatch) -> None:
    patch.setattr(simulated, "fake_quantize", lambda x, operand, scale=None: x)


def simulated_without_last(patch: MonkeyPatch) -> None:
    forward = QuantizedLinear.forward
    patch.setattr(QuantizedLinear, "forward", lambda self, x: forward(self, without_last(x)))


def layer_of_the_one_before() -> Plant:
    built: dict[str, nn.Module] = {}

    def change(target: Target, layer: nn.Module) -> nn.Module:
        built[target.path] = layer
        return built.get(target.path.replace("layers.1.", "layers.0."), layer)

    return places(change)


def experts_in_reverse(patch: MonkeyPatch) -> None:
    build = QuantizedExperts.__init__

    def init(self: QuantizedExperts, *given: Any) -> None:
        build(self, *given)
        self.experts = nn.ModuleList(reversed(list(self.experts)))

    patch.setattr(QuantizedExperts, "__init__", init)


def twice(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else 2 * bias


def of_the_next(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.roll(1)
