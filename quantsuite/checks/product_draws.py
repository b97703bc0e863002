"""Products of drawn operands, and after drawn histories of calls; a failure is shrunk to the smallest of its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from torch import Tensor

from quantsuite.checks.drawing import History, examples, search, search_histories
from quantsuite.checks.draws import mixed
from quantsuite.checks.layouts import LAYOUTS, attempt, overwrite, require
from quantsuite.checks.outcome import NotApplicable, compare, same
from quantsuite.checks.product_lifetimes import FACTOR, Memory
from quantsuite.checks.setting import Setting
from quantsuite.kernels.protocol import Product
from quantsuite.scheme import Scheme

STEPS = 8
"""Of one history, at most."""
TOKENS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 65, 129)
SIZES = (1, 16, 32, 33, 48, 64, 65, 96, 127, 128, 129, 160, 257)
"""From which N and K are drawn, then rounded up to what a scheme and a kernel take."""


def _normal(rows: int, k: int, *, seed: int, device: str, dtype: torch.dtype) -> Tensor:
    return Setting(None, None, device, dtype, seed).draw(rows, k)  # type: ignore[arg-type]


def _zeros_between(rows: int, k: int, **options: Any) -> Tensor:
    values = _normal(rows, k, **options)
    return values.masked_fill(torch.arange(k, device=values.device) % 3 == 1, 0)


def _one_row(rows: int, k: int, **options: Any) -> Tensor:
    """Zeros but for the last row."""
    values = _normal(rows, k, **options)
    return values.masked_fill((torch.arange(rows, device=values.device) < rows - 1)[:, None], 0)


def _one_column(rows: int, k: int, **options: Any) -> Tensor:
    """Zeros but for the last column."""
    values = _normal(rows, k, **options)
    return values.masked_fill(torch.arange(k, device=values.device) < k - 1, 0)


VALUES: dict[str, Callable[..., Tensor]] = {
    "normal": _normal,
    "one column": _one_column,
    "one row": _one_row,
    "zeros between": _zeros_between,
    "positive": lambda rows, k, **options: _normal(rows, k, **options).abs(),
    "mixed": mixed,
}
"""Of matrices ``[rows, K]``, the simplest first."""
PLACES = {"contiguous": lambda x, around: (x, x), **LAYOUTS}


@dataclass(frozen=True)
class Drawn:
    """One product: its sizes before they are rounded up, what is in its operands, and where."""

    m: int
    n: int
    k: int
    activations: str
    weight: str
    layout: str
    seed: int


def _cases(seed: int) -> st.SearchStrategy[Drawn]:
    names, places = st.sampled_from(list(VALUES)), st.sampled_from(list(PLACES))
    sizes = st.sampled_from(SIZES)
    return st.builds(Drawn, st.sampled_from(TOKENS), sizes, sizes, names, names, places, st.integers(seed, seed + 3))


def check_drawn_products(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Products of drawn sizes, values and layouts are within the bound; a failure is of the smallest that was found."""
    setting = Setting(kernel, scheme, device, dtype, seed)

    def within(case: Drawn) -> float:
        m, n, k = next(setting.bounded((case.m, case.n, case.k)))
        options = {"device": device, "dtype": dtype}
        x = VALUES[case.activations](m, k, seed=case.seed, **options)
        weight = VALUES[case.weight](n, k, seed=case.seed + 4, **options)
        whole, view = PLACES[case.layout](x, torch.nan)
        what = f"[{m}, {k}] x [{n}, {k}], activations {case.activations} and {case.layout}, weight {case.weight}"
        packed = require(what, f"{kernel.name}.pack", partial(setting.pack, weight))
        run = partial(setting.multiply, view, packed, n)
        name = f"{kernel.name}.linear"
        got = require(what, name, run) if case.layout == "contiguous" else attempt(what, name, whole, run)
        return 0.0 if got is None else compare(what, got, *setting.expected(x, weight))

    return search(_cases(seed), within, seed=seed, count=max(1, examples() * 2 // 5))


@dataclass
class _Operands:
    """Weights and activations by number, of which a history's steps take some, and the results of all histories."""

    setting: Setting
    weights: list[Tensor]
    activations: dict[int, list[Tensor]]
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = Memory(self.setting)


def _operands(setting: Setting) -> _Operands:
    m, n, k = next(setting.bounded((16, 32, 64)))
    taken = [each for each in dict.fromkeys((1, 16, m)) if setting.takes(each, n, k)]
    weights = [setting.draw(n, k, offset=number) * FACTOR ** (number % 2) for number in range(3)]
    activations = {
        tokens: [setting.draw(tokens, k, offset=3 + number) * FACTOR**number for number in range(2)] for tokens in taken
    }
    return _Operands(setting, weights, activations)


def _machine(operands: _Operands) -> type[History]:
    """Histories of packing, multiplying, keeping and overwriting, each result as if it were the first."""
    setting, memory = operands.setting, operands.memory
    slots, n = st.sampled_from("ab"), len(operands.weights[0])
    linear = f"{setting.kernel.name}.linear"

    class Calls(History):
        def __init__(self) -> None:
            super().__init__()
            self.packed: dict[str, tuple[int, Any]] = {}
            self.given = torch.empty_like(operands.weights[0])
            self.buffers = {tokens: torch.empty_like(xs[0]) for tokens, xs in operands.activations.items()}
            self.last = "", 0
            self.kept: list[tuple[str, Tensor, Tensor]] = []

        @rule(slot=slots, number=st.integers(0, len(operands.weights) - 1))
        def pack(self, slot: str, number: int) -> None:
            def run() -> None:
                self.packed[slot] = number, setting.pack(self.given.copy_(operands.weights[number]))

            self.step(f"{slot} = pack(weight {number})", run)

        @precondition(lambda self: self.packed)
        @rule(slot=slots, tokens=st.sampled_from(list(operands.activations)), number=st.integers(0, 1))
        def multiply(self, slot: str, tokens: int, number: int) -> None:
            self.call(slot if slot in self.packed else min(self.packed), tokens, number)

        @precondition(lambda self: self.kept)
        @rule(number=st.integers(0, 1))
        def multiply_again(self, number: int) -> None:
            self.call(*self.last, number)

        def call(self, slot: str, tokens: int, number: int) -> None:
            self.last = slot, tokens
            which, packed = self.packed[slot]
            name = f"y{len(self.kept)}"

            def run() -> None:
                x = self.buffers[tokens].copy_(operands.activations[tokens][number])
                got = require(name, linear, partial(setting.multiply, x, packed, n))
                memory.agree(name, got, x, operands.weights[which], (which, tokens, number))
                self.kept.append((name, got, got.detach().clone()))
                for other, y, copy in self.kept:
                    same(f"{other}, which was kept", y, copy)

            self.step(f"{name} = linear(x[:{tokens}] = activations {number}, {slot})", run)

        @precondition(lambda self: self.kept)
        @rule(data=st.data())
        def overwrite_output(self, data: st.DataObject) -> None:
            place = data.draw(st.integers(0, len(self.kept) - 1))
            name, y, _ = self.kept[place]

            def run() -> None:
                overwrite(y, 5.0)
                self.kept[place] = name, y, torch.full_like(y, 5.0)

            self.step(f"{name} is overwritten", run)

    return Calls


def check_product_histories(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """After drawn histories each product is what it is without one; a failure lists the fewest steps that were found.

    Weights are packed beside each other and anew, each from new contents of one tensor, as activations are; outputs
    are kept, and overwritten by their owner.  What a kernel keeps from one history may make the next one fail.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    operands = _operands(setting)
    if not operands.activations:
        raise NotApplicable(f"{kernel.name} takes neither 1 nor 16 tokens")
    search_histories(_machine(operands), seed=seed, steps=STEPS, count=max(1, examples() // 4))
    return operands.memory.tightest
