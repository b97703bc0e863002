"""Quantizers that depend on the tensor's values alone: not on where they lie, on calls before, or on load.

A view may be refused with a ``ValueError``; else what its contiguous copy gives comes out, within the bound.  The same
call has the same bits each time, unless the kernel declares that it is not deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from quantsuite.checks.draws import block_shape, normal
from quantsuite.checks.layouts import BATCHES, LAYOUTS, attempt, attempt_laid, overwrite, require
from quantsuite.checks.outcome import NotApplicable, NotSupported, same
from quantsuite.checks.quantizing import quantized, within
from quantsuite.checks.races import churn, load, repetitions, with_threads
from quantsuite.checks.setting import scaled_as_a_whole
from quantsuite.granularity import PerRow
from quantsuite.kernels import protocol
from quantsuite.kernels.protocol import Quantizer
from quantsuite.scheme import Operand

FACTOR = 16.0
"""Between the magnitudes of tensors that must not be mistaken for each other."""


def _draw(operand: Operand, seed: int, device: str, dtype: torch.dtype) -> Tensor:
    """A matrix of an even number of rows, whose magnitudes differ by rows."""
    rows, columns = block_shape(operand)
    x = normal(4 * rows, 4 * columns * (8 if columns == 1 else 1), seed=seed, device=device, dtype=dtype)
    return x * torch.exp2(torch.arange(len(x), device=device) % 4).to(dtype)[:, None]


def check_layouts(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Views of larger tensors give values within the bound or are refused, and nothing around them is written.

    So does a parameter, which requires a gradient.
    """
    x, name = _draw(operand, seed, device, dtype), f"{kernel.name}.quantize"
    round_trip, errors = partial(quantized, kernel, operand), []
    for layout, lay in LAYOUTS.items():
        case = f"{list(x.shape)}, {layout}"
        got = attempt_laid(case, name, lay, x, round_trip)
        errors += [] if got is None else [within(operand, case, got, x)]
    got = attempt("a parameter", name, x, partial(round_trip, nn.Parameter(x.clone())))
    errors += [] if got is None else [within(operand, "a parameter", got, x)]
    if not errors:
        raise NotSupported(f"{kernel.name} refuses every view with a ValueError")
    return max(errors)


def check_batches(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Batches ``[1, S, K]`` and ``[B, S, K]`` keep their shape and the bound; views of batches, too, or are refused.

    So are vectors, four dimensions, and no rows at all.
    """
    if block_shape(operand)[0] > 1 or isinstance(operand.granularity, PerRow):
        raise NotApplicable(f"{operand} is a weight's, which has two dimensions")
    x, name = _draw(operand, seed, device, dtype), f"{kernel.name}.quantize"
    halves, tightest = x.view(2, -1, x.shape[1]), 0.0
    for batch in (x[None], halves):
        got = require(f"{list(batch.shape)}", name, partial(quantized, kernel, operand, batch))
        tightest = max(tightest, within(operand, f"{list(batch.shape)}", got, batch))
    views = {what: view(x) for what, view in BATCHES.items()}
    views |= {"two batches of sequences": (x, halves[:, None]), "a vector": (x, x[1])}
    if not scaled_as_a_whole(operand):
        views["no rows"] = x, x[:0]
    for what, (whole, view) in views.items():
        case = f"{list(view.shape)}, {what}"
        got = attempt(case, name, whole, partial(quantized, kernel, operand, view))
        if got is not None and got.numel():
            tightest = max(tightest, within(operand, case, got, view))
    return tightest


def check_repeatable(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """The same tensor gives the same values twice, and is not changed."""
    x = _draw(operand, seed, device, dtype)
    copy = x.clone()
    first = quantized(kernel, operand, x).clone()
    same("the input after quantization", x, copy)
    again = quantized(kernel, operand, x)
    if not protocol.deterministic(kernel):
        return within(operand, "the same input again", again, x)
    return same("the same input again", again, first)


def _agree(kernel: Quantizer, operand: Operand, first: dict[object, Tensor]) -> Callable[..., float]:
    """A comparison with the bound, and with the first result of the same call at the same number of threads."""

    def agree(case: str, got: Tensor, x: Tensor, call: object) -> float:
        tightness = within(operand, case, got, x)
        before = first.setdefault(call, got.detach().clone())
        if protocol.deterministic(kernel):
            same(f"{case}, as before", got, before)
        return tightness

    return agree


def check_after_other_calls(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Calls of other shapes and dtypes, and with new contents of one tensor, leave earlier and later results alone.

    Outputs are kept while the next calls run, then overwritten by their owner.
    """
    x, (rows, _) = _draw(operand, seed, device, dtype), block_shape(operand)
    agree, kept, tightest = _agree(kernel, operand, {}), [], 0.0
    wholes = [x, x[: 2 * rows].clone()]
    others = [other for other in protocol.dtypes(kernel) if other != dtype][:1]
    for turn in range(12):
        which, contents = turn % 2, turn // 2 % 3
        drawn = _draw(operand, seed + contents, device, dtype)[: len(wholes[which])]
        values = wholes[which].copy_(drawn * (FACTOR if contents == 1 else 1.0))
        case = f"call {turn + 1}, {list(values.shape)}"
        got = quantized(kernel, operand, values)
        tightest = max(tightest, agree(case, got, values, (which, contents)))
        kept.append((case, got, got.detach().clone()))
        for other in others:
            between, converted = f"a call in {other}, after {case} in {dtype}", drawn.to(other)
            agree(between, quantized(kernel, operand, converted), converted, (other, which, contents))
    for case, got, copy in kept:
        same(f"the output of {case}, kept while others were made", got, copy)
    for _, got, _ in kept:
        overwrite(got)
    case = f"{case}, after its outputs were overwritten"
    return max(tightest, agree(case, quantized(kernel, operand, values), values, (which, contents)))


def check_under_load(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """The same tensor, has the same values while memory, threads and load change.

    With another number of threads only the bound holds.
    """
    x = _draw(operand, seed, device, dtype)
    agree, tightest = _agree(kernel, operand, {}), 0.0
    with load(device):
        for turn in range(repetitions()):
            with with_threads(turn) as threads:
                held = churn(x, x.numel())
                got = quantized(kernel, operand, x)
            del held
            case = f"quantization {turn + 1} of {list(x.shape)} under load, with {threads} threads"
            tightest = max(tightest, agree(case, got, x, threads))
    return tightest
