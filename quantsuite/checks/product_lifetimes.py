"""Products that depend on their operands' values alone: not on calls before, on what lives beside them, or on load.

A result is within the bound of its own operands, and where the same call was made before it has the same bits, unless
the kernel declares that it is not deterministic.  Weights differ by a factor of 16 where one may be taken for
another, so that the bound of the smaller tells them apart in every format.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from quantsuite.checks.layouts import overwrite, require
from quantsuite.checks.outcome import compare, same, unchanged
from quantsuite.checks.races import churn, load, repetitions, with_threads
from quantsuite.checks.setting import Setting
from quantsuite.kernels import protocol, tensors
from quantsuite.kernels.protocol import Product, dtypes
from quantsuite.scheme import Scheme

FACTOR = 16.0
"""Between the magnitudes of operands that must not be mistaken for each other."""
ALONE = 6
"""Calls of one dtype after each other, before calls of another come between them."""


@dataclass
class Memory:
    """What a kernel returned for calls, and the same calls later.

    Attributes:
        tightest: the largest error so far, as a fraction of its bound.
    """

    setting: Setting
    tightest: float = 0.0
    _expected: dict[object, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _first: dict[object, Tensor] = field(default_factory=dict)

    def agree(self, case: str, got: Tensor, x: Tensor, weight: Tensor, call: object, order: object = None) -> None:
        """Compare with the bound, and with the first result of the same call.

        Args:
            case: for the message.
            got: the product.
            x: activations ``[M, K]``.
            weight: ``[N, K]``, as it was packed.
            call: equal for equal activations and weights.
            order: equal where sums have the same order.

        Raises:
            CheckFailure: if it is beyond the bound, or has other bits than the first.
        """
        __tracebackhide__ = True
        if call not in self._expected:
            self._expected[call] = self.setting.expected(x, weight)
        self.tightest = max(self.tightest, compare(case, got, *self._expected[call]))
        first = self._first.setdefault((call, order), got.detach().clone())
        if protocol.deterministic(self.setting.kernel):
            same(f"{case}, as before", got, first)


@contextmanager
def packed_unchanged(kernel: Product, packed: object) -> Iterator[None]:
    """The tensors that a kernel keeps of a weight hold the same bits after it, as far as they show them.

    Raises:
        CheckFailure: naming the tensor that does not.
    """
    __tracebackhide__ = True
    with ExitStack() as stack:
        for tensor in tensors.plain_tensors(packed):
            if tensor.layout is not torch.strided:  # What oneDNN packs shows no bits.
                continue
            stack.enter_context(unchanged(f"{kernel.name}.linear, to which pack gave it,", tensor))
        yield


def check_product_repeatable(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """The same operands give the same product twice, and neither they nor the packed weight are changed."""
    setting = Setting(kernel, scheme, device, dtype, seed)
    x, weight = setting.pair(*setting.shape())
    copies = x.clone(), weight.clone()
    packed = setting.pack(weight)
    with packed_unchanged(kernel, packed):
        first = setting.multiply(x, packed, len(weight)).clone()
    same("the activations after the product", x, copies[0])
    same("the weight after the product", weight, copies[1])
    again = setting.multiply(x, packed, len(weight))
    if not protocol.deterministic(kernel):
        return compare("the same product again", again, *setting.expected(x, weight))
    return same("the same product again", again, first)


def check_product_packed_weights(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Packed weights stand beside each other, of one shape and of several, and without what they were packed from.

    Each is packed from a tensor that is overwritten afterwards; the next one takes its place in memory.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    shapes = list(dict.fromkeys(setting.bounded((32, 32, 64), (32, 64, 64), (32, 32, 128))))
    (_, n, k), m = shapes[0], min(shape[0] for shape in shapes)
    kinds = [(n, k, FACTOR), (n, k, 1.0), (n, k, -FACTOR), *((*shape[1:], 1.0) for shape in shapes[1:]), (n, k, 1.0)]
    memory, kept, place = Memory(setting), [], torch.empty(n, k, device=device, dtype=dtype)
    for number, (rows, columns, factor) in enumerate(kinds):
        weight = setting.draw(rows, columns, offset=number if number < len(kinds) - 1 else 1) * factor
        given = place.copy_(weight) if weight.shape == place.shape else weight.clone()
        kept.append((weight, setting.pack(given)))
        overwrite(given, value=-3.0)
    for number, (weight, packed) in [*enumerate(kept), *reversed(list(enumerate(kept)))]:
        x = setting.draw(m, weight.shape[1], offset=9)
        case = f"weight {number + 1} of {len(kept)} that were packed, {list(weight.shape)}"
        memory.agree(case, setting.multiply(x, packed, len(weight)), x, weight, number)
    return memory.tightest


def _tokens(setting: Setting, m: int, n: int, k: int) -> list[int]:
    """Numbers of tokens between which a model changes, as far as the kernel takes them: each after each."""
    taken = [each for each in dict.fromkeys((m, 1, 16)) if setting.takes(each, n, k)]
    return [taken[place % len(taken)] for place in (0, 1, 2, 1, 0, 2, 0, 1, 1, 2, 2, 0)]


def check_product_after_other_calls(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Calls of other sizes and dtypes, and with new contents of one tensor, leave earlier and later results alone.

    Outputs are kept while the next calls run, then overwritten by their owner.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    m, n, k = next(setting.bounded((32, 32, 64)))
    weight = setting.draw(n, k, offset=1)
    packed, memory, kept = setting.pack(weight), Memory(setting), []
    buffers: dict[int, Tensor] = {}
    others = [Memory(replace(setting, dtype=other)) for other in dtypes(kernel) if other != dtype][:1]
    theirs = [(other, other.setting.draw(m, k), other.setting.draw(n, k, offset=1)) for other in others]
    packed_too = [other.setting.pack(its) for other, _, its in theirs]
    with packed_unchanged(kernel, packed):
        for turn, tokens in enumerate(_tokens(setting, m, n, k)):
            buffer = buffers.setdefault(tokens, torch.empty(tokens, k, device=device, dtype=dtype))
            x = buffer.copy_(setting.draw(tokens, k, offset=2 + turn % 3) * (FACTOR if turn % 2 else 1.0))
            call = (tokens, turn % 6)
            case = f"call {turn + 1}, [{tokens}, {k}] x [{n}, {k}]"
            y = setting.multiply(x, packed, n)
            memory.agree(case, y, x.clone(), weight, call)
            kept.append((case, y, y.detach().clone()))
            for (other, values, its), kept_too in zip(theirs, packed_too, strict=True) if turn >= ALONE else ():
                between = f"a call in {other.setting.dtype}, after {case} in {dtype}"
                other.agree(between, other.setting.multiply(values, kept_too, n), values, its, "the same")
    for case, y, copy in kept:
        same(f"the output of {case}, kept while others were made", y, copy)
    for _, y, _ in kept:
        overwrite(y)
    memory.agree(f"{case}, after its outputs were overwritten", setting.multiply(x, packed, n), x, weight, call)
    return memory.tightest


def check_product_under_load(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """The same product, is the same while memory, threads and load change.

    With another number of threads sums may have another order, so that only the bound holds between these.
    """
    setting = Setting(kernel, scheme, device, dtype, seed)
    m, n, k = next(setting.bounded((16, 64, 256)))
    x, weight = setting.pair(m, n, k)
    memory, packed = Memory(setting), setting.pack(weight)
    with load(device):
        for turn in range(repetitions()):
            with with_threads(turn) as threads:
                held = churn(x, m * n)
                case = f"product {turn + 1} of [{m}, {k}] x [{n}, {k}] under load, with {threads} threads"
                got = require(case, f"{kernel.name}.linear", partial(setting.multiply, x, packed, n))
            del held
            memory.agree(case, got, x, weight, "the same", order=threads)
    return memory.tightest
