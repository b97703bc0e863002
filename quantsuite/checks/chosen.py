"""Codes and scales that a method may choose and that rounding to nearest would not: every code, at any scale.

All codes of the scheme's range are placed where a token that is not zero in one place alone shows them: scales are
powers of two and activations are codes already, so that each product is one code, rounded to the dtype of the result.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from quantsuite.bounds import bound_matmul
from quantsuite.checks.draws import code_values, top
from quantsuite.checks.oracle import rounding_error
from quantsuite.checks.outcome import CheckFailure, NotApplicable, compare, same
from quantsuite.checks.setting import Setting
from quantsuite.granularity import share_scales
from quantsuite.kernels import protocol
from quantsuite.kernels.protocol import Product
from quantsuite.quantize import QuantizedTensor, integer_range, quantize
from quantsuite.reference import linear
from quantsuite.scale_formats import TwoLevelScale
from quantsuite.scheme import Operand, Scheme

PLACES = 16
"""Columns of a weight that are looked at one by one; with 32 rows they hold all codes of eight bits."""
FACTORS = (0.5, 1.7)
"""Of the scales that rounding to nearest would choose, by row in turn."""
BINADES = 4


def reversed_codes(weight: Tensor, operand: Operand | None) -> QuantizedTensor:
    """The codes of a weight in the reverse order of its columns."""
    assert operand is not None
    quantized = quantize(weight, operand)
    return replace(quantized, values=quantized.values.float().flip(1).to(quantized.values.dtype))


def _table(operand: Operand) -> Tensor:
    """Every code's value, float32 ``[codes]``."""
    if operand.symmetric:
        return code_values(operand).float()
    low, high = integer_range(operand)
    return torch.arange(low, high + 1).float()


def every_code(weight: Tensor, operand: Operand) -> QuantizedTensor:
    """Of each row all codes in turn, from another one on; zero points at both ends of the range and between.

    Scales are powers of two that no largest magnitude decides; they differ by row and block.
    """
    quantized, table = quantize(weight, operand), _table(operand).to(weight.device)
    n, k = quantized.values.shape
    row, column = (torch.arange(size, device=weight.device) for size in (n, k))
    # PLACES columns of one row hold PLACES neighbours in the table, those of the next row the next ones.
    values = table[(row[:, None] * PLACES + _number(column, k)) % len(table)]
    index = torch.arange(quantized.scale.numel(), device=weight.device).reshape(quantized.scale.shape)
    scale = torch.exp2(-1 - (index % BINADES).float())
    factor, zero_point = quantized.tensor_scale, quantized.zero_point
    if isinstance(operand.scale, TwoLevelScale):
        scale, factor = scale * 2**BINADES, torch.full_like(quantized.tensor_scale, 2.0**-BINADES)
    if zero_point is not None:
        low, high = integer_range(operand)
        ends = torch.tensor([low, high, 0, low + 1], device=weight.device)
        zero_point = ends[index % len(ends)].to(zero_point.dtype)
    return replace(
        quantized,
        values=values.to(quantized.values.dtype),
        scale=scale.to(quantized.scale.dtype),
        tensor_scale=factor,
        zero_point=zero_point,
    )


def other_scales(weight: Tensor, operand: Operand) -> QuantizedTensor:
    """The codes of a weight with scales of :data:`FACTORS` times its own, rounded to their format."""
    quantized = every_code(weight, operand)
    own = quantize(weight, operand)
    factors = weight.new_tensor(FACTORS, dtype=torch.float32)
    index = torch.arange(own.scale.numel(), device=weight.device).reshape(own.scale.shape)
    scale = operand.scale.round(own.scale.float() * factors[index % len(FACTORS)])
    return replace(quantized, scale=scale.to(own.scale.dtype), tensor_scale=own.tensor_scale)


def _columns(k: int) -> list[int]:
    """The :data:`PLACES` columns that are looked at: the first, the last, and those between."""
    return sorted({round(place * (k - 1) / (PLACES - 1)) for place in range(PLACES)})


def _number(column: Tensor, k: int) -> Tensor:
    """Of each column how many of :func:`_columns` come before it."""
    return torch.bucketize(column, torch.tensor(_columns(k), device=column.device))


def _real(quantized: QuantizedTensor) -> tuple[Tensor, Tensor]:
    """What codes stand for ``[N, K]``, and the magnitudes of codes and zero points in their place (float64)."""
    view, _ = share_scales(quantized.values.double().cpu(), quantized.operand.granularity)
    step = quantized.step.double().cpu()
    zero = torch.zeros_like(step) if quantized.zero_point is None else quantized.zero_point.double().cpu()
    shape = quantized.values.shape
    return ((view - zero) * step).reshape(shape), ((view.abs() + zero.abs()) * step).reshape(shape)


def _single(operand: Operand | None, columns: list[int], k: int) -> tuple[Tensor, Tensor]:
    """Tokens ``[len(columns), K]`` with one code each, the largest, and what it stands for (float64)."""
    given = value = 1.0
    if operand is not None:
        given = top(operand)
        value = min(given, operand.format.max) if operand.full_range else given
    factor = 2.0 ** -torch.tensor(given).frexp().exponent.item()
    x = torch.zeros(len(columns), k, dtype=torch.float64)
    x[torch.arange(len(columns)), columns] = given * factor
    return x, x * (value / given)


def _require(kernel: Product, *functions: str) -> None:
    missing = [name for name in functions if not hasattr(kernel, name)]
    if missing:
        raise NotApplicable(f"{kernel.name} has no {' and no '.join(missing)}")


def check_every_chosen_code(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Every code of the range, the ends too, is multiplied with its own scale and zero point, whatever these are."""
    _require(kernel, "pack_quantized")
    assert scheme.weight is not None
    setting = Setting(kernel, scheme, device, dtype, seed)
    m, n, k = setting.shape(m=PLACES, n=32, k=64)
    chosen = every_code(setting.draw(n, k), scheme.weight)
    packed = protocol.pack(kernel, chosen, scheme)
    values, magnitudes = _real(chosen)
    columns, tightest = _columns(k), 0.0
    for start in range(0, len(columns), m):
        some = [*columns[start : start + m]]
        some += columns[:1] * (m - len(some))
        x, tokens = _single(scheme.activation, some, k)
        if not torch.equal(x.to(dtype).double(), x):
            raise NotApplicable(f"{dtype} cannot hold the codes of {scheme.activation}")
        got = setting.multiply(x.to(dtype).to(device), packed, n)
        expected, extent = linear(tokens, values), linear(tokens, magnitudes)
        held = torch.equal(values.to(dtype).double(), values)
        allowed = rounding_error(extent, dtype, 1 if held else 2) + 2 * setting.roundoff * extent
        tightest = max(tightest, compare(f"all codes, columns {some} of [{n}, {k}]", got, expected, allowed))
    return tightest


def check_chosen_scales(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Codes are multiplied with the scales that are given with them, also if no largest magnitude gives these.

    The bound is that of codes and zero points multiplied apart, whose magnitudes do not cancel.
    """
    _require(kernel, "pack_quantized")
    assert scheme.weight is not None
    setting = Setting(kernel, scheme, device, dtype, seed)
    m, n, k = next(setting.bounded((17, 32, 128)))
    x, weight = setting.pair(m, n, k)
    chosen = other_scales(weight, scheme.weight)
    got = setting.multiply(x, protocol.pack(kernel, chosen, scheme), n)
    values, magnitudes = _real(chosen)
    bound = bound_matmul(
        x.cpu(), magnitudes, scheme.activation, None, dtype=dtype, accumulator_roundoff=setting.roundoff
    )
    return compare(f"chosen scales [{m}, {k}] x [{n}, {k}]", got, linear(x.cpu(), values), bound)


def check_every_chosen_code_is_kept(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """``unpack(pack_quantized(q))`` is ``q`` for every code, for zero points at the ends, and for any scale."""
    _require(kernel, "pack_quantized", "unpack")
    assert scheme.weight is not None
    setting = Setting(kernel, scheme, device, dtype, seed)
    _, n, k = setting.shape(m=1, n=32, k=64)
    for case, choose in (("all codes", every_code), ("chosen scales", other_scales)):
        chosen = choose(setting.draw(n, k), scheme.weight)
        got = kernel.unpack(protocol.pack(kernel, chosen, scheme))  # type: ignore[attr-defined]
        if not isinstance(got, QuantizedTensor):
            raise CheckFailure(f"{kernel.name}.unpack returned a {type(got).__name__}, expected a QuantizedTensor")
        same(f"{case}: codes", got.values.float(), chosen.values.float())
        same(f"{case}: scales", got.step, chosen.step)
        if chosen.zero_point is not None:
            zero_point = torch.zeros_like(chosen.zero_point) if got.zero_point is None else got.zero_point
            same(f"{case}: zero points", zero_point.float(), chosen.zero_point.float())
    return 0.0
