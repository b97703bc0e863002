"""Load on a device while a kernel runs: another thread, other numbers of threads, memory that is used again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from quantsuite.checks.drawing import examples

SIDE, PAUSE = 96, 2e-4
"""Of the matrices that the other thread multiplies, and the seconds between two of their products."""
FEWEST = 12
"""Calls under load, whatever the profile."""
BLOCKS, SIZES = 4, (2**8, 2**10, 2**12, 2**13, 2**14, 2**15)
"""Freed blocks of each size, and sizes beside those of input and output, in elements."""


def repetitions() -> int:
    """How often a call is made under load: half as often as the profile draws examples."""
    return max(FEWEST, examples() // 2)


@contextmanager
def load(device: str) -> Iterator[None]:
    """Let another thread multiply matrices of its own meanwhile."""
    done = threading.Event()

    def multiply() -> None:
        a = torch.full((SIDE, SIDE), 0.5, device=device)
        while not done.wait(PAUSE):
            torch.mm(a, a)

    other = threading.Thread(target=multiply, daemon=True)
    other.start()
    try:
        yield
    finally:
        done.set()
        other.join()


@contextmanager
def with_threads(turn: int) -> Iterator[int]:
    """Let torch use one, two or as many threads as before, by turns of four."""
    before = torch.get_num_threads()
    threads = (before, 1, 2)[turn // 4 % 3]
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


def churn(x: Tensor, results: int) -> list[Tensor]:
    """Free blocks full of NaN, of an input's size, of ``results`` elements and of others, and return as many more.

    Held meanwhile, these keep the free ones apart, so that an allocation finds one of its size.
    """
    blocks = [
        torch.full((size,), torch.nan, device=x.device, dtype=dtype)
        for size in (x.numel(), results, *SIZES)
        for dtype in (x.dtype, torch.float32)
        for _ in range(2 * BLOCKS)
    ]
    return blocks[::2]
