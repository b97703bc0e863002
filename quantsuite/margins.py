"""The losses that count as none, and the options that set them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Margins:
    """The largest loss that counts as none: in accuracy (a fraction) and in ln perplexity."""

    accuracy: float = 0.01
    log_perplexity: float = 0.01


def _margin(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"margin {text!r} is not a number from 0; use for example 0.01")
    return value


def add_margin_options(add: Callable[..., Any]) -> None:
    """Declare the options with ``add_argument`` of a parser or ``addoption`` of pytest."""
    default = Margins()
    add("--accuracy-margin", type=_margin, default=default.accuracy, help="loss of accuracy that counts as none (0.01)")
    add(
        "--perplexity-margin",
        type=_margin,
        default=default.log_perplexity,
        help="rise of ln perplexity that counts as none (0.01)",
    )
