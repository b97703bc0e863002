"""How often intervals of a mean cover it, on simulated items: ``python -m meta_tests.interval_coverage``."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from quantsuite.intervals import block_mean
from quantsuite.statistics import verdict

SETS = 20_000
ITEMS = (10, 30, 148, 240)
"""Windows of a small limit, and of WikiText-2; documents of the embedded world."""
MARGIN = 0.01

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def autoregressive(correlation: float) -> Draw:
    """Normal items, each correlated with the one before it."""

    def draw(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        values = generator.standard_normal(shape)
        values[:, 1:] *= math.sqrt(1 - correlation**2)
        for index in range(1, shape[1]):
            values[:, index] += correlation * values[:, index - 1]
        return values

    return draw


def lognormal(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return generator.lognormal(size=shape) - math.exp(0.5)


DISTRIBUTIONS: dict[str, Draw] = {
    "independent, normal": lambda generator, shape: generator.standard_normal(shape),
    "autocorrelation 0.3": autoregressive(0.3),
    "autocorrelation 0.6": autoregressive(0.6),
    "t of 3 degrees": lambda generator, shape: generator.standard_t(3, shape),
    "lognormal: few large losses": lognormal,
    "lognormal: few large gains": lambda generator, shape: -lognormal(generator, shape),
}
"""Draws of sets x items with mean zero."""


def rates(draw: Draw, items: int, sets: int = SETS, seed: int = 0) -> tuple[float, float]:
    """Shares of sets of items, each lost ``MARGIN`` on average: intervals that cover it, and verdicts *worse*."""
    covered = worse = 0
    units = np.ones(items)
    for losses in draw(np.random.default_rng(seed), (sets, items)) + MARGIN:
        interval, _ = block_mean(losses, units)
        covered += interval.low <= MARGIN <= interval.high
        worse += verdict(interval, MARGIN) == "worse"
    return covered / sets, worse / sets


def row(name: str, sets: int = SETS) -> str:
    """A row of the README's table: in per cent, what is covered and what is found worse, by number of items."""
    found = (rates(DISTRIBUTIONS[name], items, sets) for items in ITEMS)
    return f"| {name} | {' | '.join(f'{100 * covered:.1f}, {100 * worse:.1f}' for covered, worse in found)} |"


if __name__ == "__main__":
    print(f"| items | {' | '.join(map(str, ITEMS))} |\n|---|{'---|' * len(ITEMS)}")
    for name in DISTRIBUTIONS:
        print(row(name), flush=True)
