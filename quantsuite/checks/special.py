"""What a product must make of values that are not finite: they show where they enter, and nowhere else."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from quantsuite.checks.draws import block_shape
from quantsuite.checks.outcome import CheckFailure, NotApplicable, same
from quantsuite.checks.setting import Setting, scaled_as_a_whole
from quantsuite.kernels.protocol import Product
from quantsuite.scheme import Scheme

BAD = (torch.nan, torch.inf, -torch.inf)
TOKENS = (1, 5, 16, 33)


def _places(rows: int, columns: int, seed: int) -> list[tuple[int, int]]:
    """The first and the last element of a matrix, and one that is drawn."""
    generator = torch.Generator().manual_seed(seed)
    drawn = tuple(int(torch.randint(size, (), generator=generator)) for size in (rows, columns))
    return [(0, 0), (rows - 1, columns - 1), drawn]


def _product(setting: Setting, x: Tensor, weight: Tensor) -> Tensor | None:
    """The product, or ``None`` if it is refused with a ``ValueError``."""
    try:
        return setting.product(x, weight)
    except ValueError:
        return None


def _visible(case: str, entered: Tensor) -> None:
    finite = entered[torch.isfinite(entered)]
    if finite.numel():
        raise CheckFailure(
            f"{case} gives {finite.numel()} finite outputs of {entered.numel()} that it enters, "
            f"such as {finite[0].item():.9g}, and no error"
        )


def check_product_nan_is_not_hidden(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """A NaN or infinity in an operand is refused with a ``ValueError``, or shows in all outputs that it enters.

    At the first and the last place and at a drawn one, for one token and for many.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    for m, n, k in setting.fitting(*((tokens, 32, 64) for tokens in TOKENS)):
        x, weight = setting.pair(m, n, k)
        for bad, case in itertools.product(BAD, ("x", "weight")):
            for row, column in _places(m if case == "x" else n, k, setting.seed + m):
                operands = {"x": x, "weight": weight}
                operands[case] = operands[case].clone()
                operands[case][row, column] = bad
                got = _product(setting, operands["x"], operands["weight"])
                if got is not None:
                    entered = got[row] if case == "x" else got[:, row]
                    _visible(f"{case}[{row}, {column}] = {bad}, [{m}, {k}] x [{n}, {k}],", entered)
    return 0.0


def _others(size: int, row: int, height: int) -> Tensor:
    """Numbers of the rows that are not in the block of rows of one."""
    rows = torch.arange(size)
    return rows[rows // height != row // height]


def check_product_nan_stays_in_its_row(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """A NaN or infinity that is not refused leaves the outputs of other tokens, and of other weight rows, as they are.

    Where they share no scale with it.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    height, _ = block_shape(scheme.weight)
    tried = not (scaled_as_a_whole(scheme.activation) and scaled_as_a_whole(scheme.weight))
    for m, n, k in setting.fitting(*((tokens, 2 * height if height > 1 else 32, 64) for tokens in TOKENS)):
        x, weight = setting.pair(m, n, k)
        before = setting.product(x, weight)
        for bad, (row, column) in itertools.product(BAD, _places(m, k, setting.seed + m)):
            changed = x.clone()
            changed[row, column] = bad
            if scaled_as_a_whole(scheme.activation) or (got := _product(setting, changed, weight)) is None:
                continue
            others = _others(m, row, 1).to(device)
            same(f"other tokens after x[{row}, {column}] = {bad}, {m} tokens", got[others], before[others])
        for bad, (row, column) in itertools.product(BAD, _places(n, k, setting.seed + m)):
            changed = weight.clone()
            changed[row, column] = bad
            if scaled_as_a_whole(scheme.weight) or (got := _product(setting, x, changed)) is None:
                continue
            others = _others(n, row, height).to(device)
            same(
                f"outputs of other rows after weight[{row}, {column}] = {bad}, {m} tokens",
                got[:, others],
                before[:, others],
            )
    if not tried:
        raise NotApplicable(f"{scheme} has one scale for each operand")
    return 0.0
