"""Divergence: how far the distributions of the next token lie from those of the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from quantsuite.metrics.checks import ROUNDING, check_lengths, check_range
from quantsuite.metrics.definition import Margin, Metric
from quantsuite.metrics.estimators import LogRatioOfMeans
from quantsuite.metrics.scale import Scale

BAND = 0.1
"""The logarithm of a ratio of two runs' drifts that says nothing: right code of other sums gave 0.94 to 1.05."""


class Divergences(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="divergence"):
    """Drift from the reference, text by text: KL in nats, change of the true token's probability.

    A text is an item, since the drifts of its tokens depend on each other, and 240 of them are a short line of a run
    file where their 24,830 tokens would be 200 kB.

    Args:
        kl: summed over the text's tokens.
        same_top: tokens at which both models have the same likeliest one.
        delta_p: the change of the true token's probability, summed over the tokens.
        tokens: of each item; one each unless given.
        quantiles: of the KL of single tokens, by name, where items have several: they do not tell them.

    Raises:
        ValueError: if the lists are empty or differ in length, an item has no tokens, a divergence is below zero or
            not finite, or a change of a probability or a number of equal tops is beyond what its tokens allow.
    """

    kl: list[float]
    same_top: list[bool | int]
    delta_p: list[float]
    tokens: list[int] | None = None
    quantiles: dict[str, float] = {}

    def __post_init__(self) -> None:
        check_lengths(kl=self.kl, same_top=self.same_top, delta_p=self.delta_p, tokens=self.units)
        check_range("tokens", self.units, low=1)
        check_range("kl", self.kl, low=-ROUNDING)
        shares = [change / count for change, count in zip(self.delta_p, self.units, strict=True)]
        check_range("delta_p", shares, low=-1 - ROUNDING, high=1 + ROUNDING)
        check_range("same_top", [same / count for same, count in zip(self.same_top, self.units, strict=True)], high=1)

    def __len__(self) -> int:
        return len(self.kl)

    @property
    def units(self) -> list[int]:
        """Tokens of each item."""
        return [1] * len(self) if self.tokens is None else self.tokens


def quantiles(kl: Sequence[float]) -> dict[str, float]:
    """Of single tokens."""
    ordered = sorted(kl)
    return {
        "median_kl": ordered[len(ordered) // 2],
        "p99_kl": ordered[int(0.99 * (len(ordered) - 1))],
        "max_kl": ordered[-1],
    }


def details(items: Divergences, given: Mapping[str, float]) -> dict[str, float]:
    tokens = sum(items.units)
    return {
        **(quantiles(items.kl) if items.tokens is None else items.quantiles),
        "same_top_rate": sum(items.same_top) / tokens,
        "mean_delta_p": sum(items.delta_p) / tokens,
    }


DIVERGENCE = Metric(
    name="divergence",
    items=Divergences,
    outcomes=lambda items: items.kl,
    units=lambda items: items.units,
    unit="nats",
    better="lower",
    noun="texts",
    scale=Scale(decimals=8, change_decimals=3, change_unit="ln KL"),
    margin=Margin(default=BAND),
    estimator=LogRatioOfMeans(),
    of_reference=True,
    details=details,
    detail_names={
        "median_kl": "median KL, nats",
        "p99_kl": "99th percentile KL, nats",
        "max_kl": "largest KL, nats",
        "same_top_rate": "same top token, fraction",
        "mean_delta_p": "mean change of the true token's probability",
    },
    signed={"mean_delta_p": 1.0},
    counts_dataset=False,
)
