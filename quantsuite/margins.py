"""What a gate accepts: the losses that count as none, and the verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from quantsuite.metrics import Metric

Mode = Literal["worse", "strict"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""A gate fails on *worse*; a strict one on *undecided* too."""


class MarginError(ValueError):
    """A margin of no effect."""


@dataclass(frozen=True, kw_only=True)
class Margins:
    """The largest losses that count as none: those given, and the metrics' own for all others.

    Args:
        of_options: by the option that sets them, which may be that of several metrics: ``accuracy``, ``perplexity``.
        of_names: by a metric's name, before those of options.
    """

    of_options: Mapping[str, float] = field(default_factory=dict)
    of_names: Mapping[str, float] = field(default_factory=dict)

    def of(self, metric: Metric) -> float:
        """The margin of a metric.

        Raises:
            ValueError: if it has no paired comparison, and so no loss.
        """
        if metric.margin is None:
            raise ValueError(f"{metric.name} has no paired comparison")
        default = self.of_options.get(metric.margin.option, metric.margin.default)
        return self.of_names.get(metric.name, default)

    def check(self, metrics: Iterable[Metric]) -> None:
        """Refuse a margin that would be of no effect.

        Raises:
            MarginError: if a name is none of these metrics with a paired comparison.
        """
        known = list(dict.fromkeys(metric.name for metric in metrics if metric.is_paired))
        for name in self.of_names:
            if name not in known:
                raise MarginError(f"--margin {name!r} names no metric of this run; it has {', '.join(known) or 'none'}")
