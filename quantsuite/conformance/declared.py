"""What a kernel declares to differ from the defaults, for its row in the report."""

from __future__ import annotations

from typing import Any

from quantsuite.kernels import protocol
from quantsuite.reporting.checked import DTYPES


def declared(kernel: Any) -> dict[str, str]:
    """By name what a kernel says of itself; ``dtypes`` if they are not all of the usual ones."""
    names = [str(dtype).removeprefix("torch.") for dtype in protocol.dtypes(kernel)]
    narrower = {} if set(DTYPES) <= set(names) else {"dtypes": ", ".join(names)}
    ask = getattr(protocol, "declarations", None)
    return narrower | (dict(ask(kernel)) if ask is not None else {})
