"""Where the elements of a matrix lie in memory: views of larger tensors, whose other elements are NaN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from quantsuite.checks.outcome import CheckFailure, unchanged

MARGIN = 8
"""Elements of a larger tensor on each side of a view; of float32, 32 bytes."""

AROUND = 100.0
"""What is around a view that a kernel refuses with NaN around it."""

Lay = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""Of a matrix ``[rows, K]``, and of what is to be around it: a tensor, and a view of it that has its elements."""


def _inside(x: Tensor, around: float, begin: int = 0, step: tuple[int, int] = (1, 1)) -> tuple[Tensor, Tensor]:
    """A larger matrix, and ``x`` in its rows and columns from ``begin`` on."""
    sizes = [size * each + 2 * MARGIN for size, each in zip(x.shape, step, strict=True)]
    whole = x.new_full(sizes, around)
    part = whole[begin:, begin:][: x.shape[0] * step[0] : step[0], : x.shape[1] * step[1] : step[1]]
    return whole, part.copy_(x)


def _shifted(x: Tensor, around: float, by: int) -> tuple[Tensor, Tensor]:
    """Contiguous, ``by`` elements from the beginning of a longer vector."""
    whole = x.new_full((by + x.numel() + MARGIN,), around)
    return whole, whole[by : by + x.numel()].view(x.shape).copy_(x)


def _transposed(x: Tensor, _: float) -> tuple[Tensor, Tensor]:
    whole = x.t().contiguous()
    return whole, whole.t()


LAYOUTS: dict[str, Lay] = {
    "first columns of a wider matrix": _inside,
    "a part of a larger matrix": partial(_inside, begin=MARGIN),
    "every second row of a matrix": partial(_inside, step=(2, 1)),
    "every second column of a matrix": partial(_inside, step=(1, 2)),
    "rows of a longer matrix, from the second on": lambda x, around: _shifted(x, around, x.shape[-1]),
    "contiguous from the second element on": partial(_shifted, by=1),
    "transposed": _transposed,
}
"""Of a matrix, by what the view is called."""

BATCHES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "transposed batch and sequence": lambda x: (x, x.view(-1, 2, x.shape[-1]).transpose(0, 1)),
    "beginnings of longer sequences": lambda x: _sequences(x),
    "one sequence expanded to three": lambda x: (x, x[None].expand(3, *x.shape)),
    "last tokens of sequences": lambda x: (x, x.view(2, -1, x.shape[-1])[:, -1]),
}
"""Views of ``x [M, K]``, M even, with other shapes; their elements are those of their own contiguous copies."""


def _sequences(x: Tensor) -> tuple[Tensor, Tensor]:
    halves = x.view(2, -1, x.shape[-1])
    whole = torch.cat([halves, torch.full_like(halves, torch.nan)], 1)
    return whole, whole[:, : halves.shape[1]]


def attempt(
    case: str,
    function: str,
    whole: Tensor,
    call: Callable[[], Tensor],
    refusals: tuple[type[Exception], ...] = (ValueError, NotImplementedError),
) -> Tensor | None:
    """What a kernel returns for a view, ``None`` if it refuses it.

    Args:
        case: for the message.
        function: that is called.
        whole: what the view is of.
        call: the function with the view.
        refusals: exceptions by which it may.

    Raises:
        CheckFailure: if it raises anything else, or writes to the view or around it.
    """
    __tracebackhide__ = True
    with unchanged(f"{function} of {case}", whole):
        try:
            return call()
        except (CheckFailure, torch.OutOfMemoryError):
            raise
        except refusals:
            return None
        except Exception as error:
            raise CheckFailure(
                f'{case}: {function} raised {described(error)}; take it, declare layouts = "contiguous", or raise a'
                " ValueError"
            ) from error


def attempt_laid(case: str, function: str, lay: Lay, x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor | None:
    """As :func:`attempt`, for a view with NaN around it; where that is refused, with numbers around it.

    Raises:
        CheckFailure: likewise, and if only NaN around a view is refused.
    """
    __tracebackhide__ = True
    whole, view = lay(x, torch.nan)
    got = attempt(case, function, whole, partial(call, view))
    if got is None:
        whole, view = lay(x, AROUND)
        if attempt(case, function, whole, partial(call, view)) is not None:
            raise CheckFailure(f"{case}: {function} refuses it for the NaN that is around it; it reads beyond the view")
    return got


def require(case: str, function: str, call: Callable[[], Tensor]) -> Tensor:
    """What a kernel returns for an input that every model has.

    Raises:
        CheckFailure: if it raises.
    """
    __tracebackhide__ = True
    try:
        return call()
    except (CheckFailure, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise CheckFailure(f"{case}: {function} raised {described(error)}; every model has such inputs") from error


def overwrite(tensor: Tensor, value: float = torch.nan) -> None:
    """Fill a tensor with a value, as its owner may."""
    with torch.inference_mode():
        tensor.fill_(value)


def described(error: BaseException) -> str:
    """An exception's class and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
