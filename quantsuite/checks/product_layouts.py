"""Products of operands wherever they lie in memory, and of tokens in whatever dimensions.

A view may be refused with a ``ValueError``; what is returned for it is within the bound of its values.  It need not
have the bits of its contiguous copy, since other strides may be another order of sums.  All else in the tensor that
it is a view of is NaN, and stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from quantsuite.checks.layouts import BATCHES, LAYOUTS, attempt, attempt_laid, require
from quantsuite.checks.outcome import NotSupported, compare
from quantsuite.checks.setting import Setting
from quantsuite.kernels.protocol import Product
from quantsuite.scheme import Scheme


def _largest(kernel: Product, errors: list[float]) -> float:
    """The largest error of the views that were not refused.

    Raises:
        NotSupported: if all were.
    """
    if not errors:
        raise NotSupported(f"{kernel.name} refuses every view with a ValueError")
    return max(errors)


def _is_static(scheme: Scheme) -> bool:
    return scheme.activation is not None and not scheme.activation.dynamic


def _rows_apart(x: Tensor) -> Tensor:
    """Rows of four magnitudes, so that an element of another row is seen where its bound is narrow."""
    return x * torch.exp2(torch.arange(len(x), device=x.device) % 4).to(x.dtype)[:, None]


def check_product_layouts(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Activations that are views of larger tensors keep the bound or are refused, and nothing around them is written.

    So do activations that require a gradient, of which a kernel for inference may say what torch says.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    x, weight = setting.pair(*next(setting.bounded((32, 32, 64))))
    x = _rows_apart(x)
    packed, expected, errors = setting.pack(weight), setting.expected(x, weight), []
    multiply, name = partial(setting.multiply, packed=packed, n=len(weight)), f"{kernel.name}.linear"
    for layout, lay in LAYOUTS.items():
        case = f"activations {list(x.shape)}, {layout}"
        got = attempt_laid(case, name, lay, x, multiply)
        errors += [] if got is None else [compare(case, got, *expected)]
    if not _is_static(scheme):
        case = "activations that require a gradient"
        got = attempt(case, name, x, partial(multiply, x.clone().requires_grad_()), (RuntimeError, ValueError))
        errors += [] if got is None else [compare(case, got, *expected)]
    return _largest(kernel, errors)


def check_product_weight_layouts(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Weights that are views of larger tensors keep the bound or are refused, and nothing around them is written.

    A parameter, which requires a gradient, is what every layer has.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    x, weight = setting.pair(*next(setting.bounded((32, 32, 64))))
    weight, name = _rows_apart(weight), f"{kernel.name}.pack"
    expected = setting.expected(x, weight)
    case = "weight, a parameter"
    got = require(case, name, partial(setting.product, x, nn.Parameter(weight.clone())))
    errors = [compare(case, got, *expected)]
    for layout, lay in LAYOUTS.items():
        case = f"weight {list(weight.shape)}, {layout}"
        got = attempt_laid(case, name, lay, weight, partial(setting.product, x))
        errors += [] if got is None else [compare(case, got, *expected)]
    return _largest(kernel, errors)


def check_product_batches(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Batches ``[1, S, K]`` and ``[B, S, K]`` and no tokens at all have a product, which keeps its shape and the bound.

    So have vectors ``[K]``, four dimensions and views of batches, or they are refused.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    x, weight = setting.pair(*next(setting.bounded((32, 32, 64))))
    x, (n, k) = _rows_apart(x), weight.shape
    packed, name = setting.pack(weight), f"{kernel.name}.linear"

    def within(view: Tensor) -> Callable[[Tensor], float]:
        values, bound = setting.expected(view.reshape(-1, k), weight)
        shape = (*view.shape[:-1], n)
        return lambda got: compare(f"{list(view.shape)} activations", got, values.view(shape), bound.view(shape))

    tightest = 0.0
    halves = x.view(1 if len(x) % 2 else 2, -1, k)
    for batch in (x[None], halves):
        got = require(f"{list(batch.shape)} activations", name, partial(setting.multiply, batch, packed, n))
        tightest = max(tightest, within(batch)(got))
    if setting.takes(0, n, k) and not _is_static(scheme):
        for none in (x[:0], halves[:, :0]):
            require(f"{list(none.shape)} activations", name, partial(setting.multiply, none, packed, n))
    views = {} if len(x) % 2 else {what: view(x) for what, view in BATCHES.items()}
    views["two batches of sequences"] = x, halves[:, None]
    views["no dimension of tokens"] = x, x[-1]
    for what, (whole, view) in views.items():
        if not setting.takes(view.numel() // k, n, k):
            continue
        case = f"{list(view.shape)} activations, {what}"
        got = attempt(case, name, whole, partial(setting.multiply, view, packed, n))
        if got is not None:
            tightest = max(tightest, within(view)(got))
    return tightest
