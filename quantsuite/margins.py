"""What a gate accepts: the losses that count as none, and the verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Mode = Literal["worse", "strict"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""A gate fails on *worse*; a strict one on *undecided* too."""


@dataclass(frozen=True, kw_only=True)
class Margins:
    """The largest loss that counts as none: in accuracy (a fraction) and in ln perplexity."""

    accuracy: float = 0.01
    log_perplexity: float = 0.01
