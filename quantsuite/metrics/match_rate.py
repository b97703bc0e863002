"""Match rate: the share of items that a model completes exactly, such as LAMBADA's last words."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from quantsuite.metrics.checks import ROUNDING, check_lengths, check_range
from quantsuite.metrics.definition import Margin, Metric
from quantsuite.metrics.estimators import Proportion, exponential
from quantsuite.metrics.scale import percentage


class Matches(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="matches"):
    """Whether each item was matched; ``nats`` are the negative log-likelihoods of what was to be matched.

    Raises:
        ValueError: if the lists are empty or differ in length, or a number is not finite or below zero.
    """

    matched: list[bool]
    nats: list[float] | None = None

    def __post_init__(self) -> None:
        check_lengths(matched=self.matched, nats=self.nats)
        if self.nats is not None:
            check_range("nats", self.nats, low=-ROUNDING)

    def __len__(self) -> int:
        return len(self.matched)


def details(items: Matches, given: Mapping[str, float]) -> dict[str, float]:
    """Raises ValueError if the perplexity is larger than any float64."""
    return {} if items.nats is None else {"target_perplexity": exponential(sum(items.nats) / len(items))}


MATCH_RATE = Metric(
    name="match rate",
    items=Matches,
    outcomes=lambda items: items.matched,
    estimator=Proportion(),
    unit="match rate",
    better="higher",
    margin=Margin(default=0.01),
    scale=percentage("match rate"),
    details=details,
    detail_names={"target_perplexity": "perplexity of the target"},
)
