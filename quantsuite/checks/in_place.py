"""A quantized matrix where it stands in a model: that it is what its plan says, and is stored so.

Everything is held to float64 and to what the scheme defines, never to another run of the same code.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.checks.layers import resident_limit, same_quantized
from quantsuite.checks.nearest import Nearest, check_nearest, values_of
from quantsuite.checks.outcome import CheckFailure, same
from quantsuite.checks.summation import exactly, rounded
from quantsuite.in_place import Placed
from quantsuite.kernels.tensors import nbytes
from quantsuite.layer import QuantizedLinear
from quantsuite.quantize import QuantizedTensor, quantize
from quantsuite.scheme import Execution

ELEMENTS = 2**20
"""Of a matrix that are looked at, in whole rows: all of smaller ones."""


@dataclass(frozen=True, kw_only=True)
class Execute:
    """How a model was to be executed.

    Args:
        execution: simulated or real; ``None`` for the model as it was loaded.
        kernel: name of the one that was chosen for real execution, if any.
        seed: of the draw of rows, tokens and columns.
    """

    execution: Execution | None
    kernel: str | None = None
    seed: int = 0


class PlacedLayer:
    """One matrix under test.

    Args:
        placed: the matrix, its plan and its module.
        how: it was to be executed.
    """

    def __init__(self, placed: Placed, how: Execute) -> None:
        self.placed, self._how = placed, how
        # Another draw for each matrix: a token that one leaves out is looked at in others.
        self._generator = torch.Generator().manual_seed(how.seed + zlib.crc32(placed.name.encode()))

    @property
    def module(self) -> nn.Module:
        if self.placed.module is None:
            raise CheckFailure("nothing stands in its place")
        return self.placed.module

    @property
    def kernel(self) -> Any:
        """What packed the weight of a real layer."""
        return getattr(self.module, "kernel", None)

    @cached_property
    def rows(self) -> Tensor:
        """Those that are looked at: the first, the last, and others at random."""
        n, k = self.placed.weight.shape
        return self._some(n, max(2, ELEMENTS // k))

    def _some(self, size: int, most: int) -> Tensor:
        """Indices from 0 to ``size``, ascending: all, or the first, the last and others at random."""
        if size <= most:
            return torch.arange(size)
        others = torch.randperm(size - 2, generator=self._generator)[: most - 2] + 1
        return torch.cat([torch.tensor([0, size - 1]), others]).sort().values

    def check_identity(self) -> None:
        """That the matrix is quantized under its plan's scheme, in the execution and by the kernel of the run.

        Raises:
            CheckFailure: if it is not.
        """
        if self.placed.stray:
            raise CheckFailure(self.placed.stray)
        scheme, module = self.placed.plan.scheme, self.module
        quantized = isinstance(module, QuantizedLinear)
        if scheme.weight is None:
            if quantized:
                raise CheckFailure(f"is quantized to {module.scheme}, the plan leaves it as it is")
            return
        if not quantized:
            raise CheckFailure(f"is a {type(module).__name__} that is not quantized, the plan says {scheme}")
        if module.scheme != scheme:
            raise CheckFailure(f"is quantized to {module.scheme}, the plan says {scheme}")
        if module.execution != self._how.execution:
            raise CheckFailure(f"is executed {module.execution}, the run says {self._how.execution}")
        if self._how.kernel is not None and module.kernel.name != self._how.kernel:
            raise CheckFailure(f"is multiplied by {module.kernel.name}, the run says {self._how.kernel}")

    @property
    def bits(self) -> float:
        """Bits a weight in memory, scales and padding with them."""
        return 8 * self._bytes / self.placed.weight.numel()

    @property
    def _bytes(self) -> int:
        module = self.module
        if isinstance(module, QuantizedLinear) and module.kernel is not None:
            return max(module.packed_bytes(), nbytes(list(module.packed_tensors())))
        own = module.weight if isinstance(getattr(module, "weight", None), Tensor) else self.placed.weight
        return own.numel() * own.element_size()

    def check_storage(self) -> None:
        """That a real matrix takes as much memory as its format's codes: no less, and no copy beside them.

        Raises:
            CheckFailure: if it does not.
        """
        module, operand = self.module, self.placed.plan.scheme.weight
        if operand is None or not isinstance(module, QuantizedLinear) or module.kernel is None:
            return
        n, k = self.placed.weight.shape
        least = n * k * operand.format.bits / 8
        most = math.inf if getattr(module.kernel, "keeps_values", False) else resident_limit(self._own)
        if not least <= self._bytes <= most:
            limits = f"{operand} takes {least:,.0f} to {most:,.0f}"
            raise CheckFailure(f"takes {self._bytes:,} bytes, {self.bits:.2f} bits a weight; {limits}")

    @cached_property
    def _own(self) -> QuantizedTensor:
        """The weight's codes and scales: as a method chose them, or as rounding to nearest does."""
        operand, chosen = self.placed.plan.scheme.weight, self.placed.plan.weight
        assert operand is not None
        return quantize(self.placed.weight, operand) if chosen is None else chosen

    @cached_property
    def _held(self) -> QuantizedTensor | None:
        """What the kernel says that it keeps, or ``None`` if it does not say, or the layer is simulated."""
        if not hasattr(self.kernel, "unpack"):
            return None
        held, operand, shape = self.module.unpack(), self.placed.plan.scheme.weight, self.placed.weight.shape
        if held.operand != operand or held.shape != shape:
            raise CheckFailure(f"is {held.operand} {list(held.shape)}, the plan says {operand} {list(shape)}")
        return held

    @cached_property
    def weight(self) -> Nearest:
        """What the looked-at rows are multiplied as, float64.

        Raises:
            CheckFailure: if codes or scales are not those that the scheme defines, or that the method chose.
        """
        placed, rows = self.placed, self.rows
        if placed.plan.scheme.weight is None:
            return exactly(placed.weight[rows])
        device = placed.weight.device
        chosen, kept = placed.plan.weight, self._held
        if chosen is not None:
            if kept is not None:
                same_quantized("is not what the method chose", kept, chosen)
            return exactly(values_of(chosen, rows).to(device))
        found = check_nearest(placed.weight, self._own if kept is None else kept, rows.to(device))
        # Of a kernel that does not say what it keeps, elements near a tie may be either.
        return (
            found if self.kernel is not None and kept is None else Nearest(found.values, torch.zeros_like(found.open))
        )

    def check_weight(self) -> None:
        """That codes and scales are those that the scheme defines or a method chose, and simulated values theirs.

        Raises:
            CheckFailure: if they are not.
        """
        values, module, shape = self.weight.values, self.module, self.placed.weight.shape
        if self.kernel is None and isinstance(weight := getattr(module, "weight", None), Tensor):
            # A square weight of another class may be held either way; what it multiplies by tells.
            own = isinstance(module, QuantizedLinear | nn.Linear) or weight.shape != weight.T.shape
            expected = rounded(values, weight.dtype)
            if own or not torch.equal(weight.T[self.rows], expected):
                same("weight", (weight if weight.shape == shape else weight.T)[self.rows], expected)
