"""Match rate: the share of items that a model completes exactly, such as LAMBADA's last words."""

from __future__ import annotations

import msgspec

from quantsuite.metrics.checks import check_lengths
from quantsuite.metrics.definition import Margin, Metric
from quantsuite.metrics.estimators import Proportion
from quantsuite.metrics.scale import percentage


class Matches(msgspec.Struct, frozen=True, kw_only=True, tag="matches"):
    """Whether each item was matched.

    Raises:
        ValueError: if the list is empty.
    """

    matched: list[bool]

    def __post_init__(self) -> None:
        check_lengths(matched=self.matched)

    def __len__(self) -> int:
        return len(self.matched)


MATCH_RATE = Metric(
    name="match rate",
    items=Matches,
    outcomes=lambda items: items.matched,
    estimator=Proportion(),
    unit="match rate",
    better="higher",
    margin=Margin(default=0.01),
    scale=percentage("match rate"),
)
