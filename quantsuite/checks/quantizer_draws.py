"""Quantizers of drawn tensors; a failure is shrunk to the smallest that was found."""

from __future__ import annotations

from functools import partial

import torch
from hypothesis import strategies as st

from quantsuite.checks.drawing import examples, search
from quantsuite.checks.draws import block_shape
from quantsuite.checks.layouts import attempt, require
from quantsuite.checks.product_draws import PLACES, VALUES
from quantsuite.checks.quantizing import quantized, within
from quantsuite.kernels.protocol import Quantizer
from quantsuite.scheme import Operand

ROWS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 65, 129)
COLUMNS = (1, 16, 17, 31, 32, 33, 48, 64, 65, 127, 128, 129, 257)
"""From which sizes are drawn, then rounded up to whole blocks."""


def check_drawn_tensors(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Tensors of drawn sizes, values and layouts are within the bound; a failure is of the smallest that was found."""
    name, units = f"{kernel.name}.quantize", block_shape(operand)

    def tried(case: tuple[int, int, str, str, int]) -> float:
        *sizes, values, layout, drawn = case
        rows, k = (-(-size // unit) * unit for size, unit in zip(sizes, units, strict=True))
        x = VALUES[values](rows, k, seed=drawn, device=device, dtype=dtype)
        whole, view = PLACES[layout](x, torch.nan)
        what = f"[{rows}, {k}], {values}, {layout}"
        run = partial(quantized, kernel, operand, view)
        got = require(what, name, run) if layout == "contiguous" else attempt(what, name, whole, run)
        return 0.0 if got is None else within(operand, what, got, x)

    names, places = st.sampled_from(list(VALUES)), st.sampled_from(list(PLACES))
    cases = st.tuples(st.sampled_from(ROWS), st.sampled_from(COLUMNS), names, places, st.integers(seed, seed + 3))
    return search(cases, tried, seed=seed, count=max(1, examples() * 2 // 5))
