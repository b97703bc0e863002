"""Divergence: how far the distributions of the next token lie from those of the reference."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from quantsuite.metrics.checks import ROUNDING, check_lengths, check_range
from quantsuite.metrics.definition import Metric
from quantsuite.metrics.scale import Scale


class Divergences(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="divergence"):
    """Drift from the reference, token by token: KL in nats, change of the true token's probability.

    Raises:
        ValueError: if the lists are empty or differ in length, a divergence is below zero or not finite, or a
            change of a probability is beyond 1.
    """

    kl: list[float]
    same_top: list[bool]
    delta_p: list[float]

    def __post_init__(self) -> None:
        check_lengths(kl=self.kl, same_top=self.same_top, delta_p=self.delta_p)
        check_range("kl", self.kl, low=-ROUNDING)
        check_range("delta_p", self.delta_p, low=-1 - ROUNDING, high=1 + ROUNDING)

    def __len__(self) -> int:
        return len(self.kl)


def details(items: Divergences, given: Mapping[str, float]) -> dict[str, float]:
    ordered = sorted(items.kl)
    return {
        "median_kl": ordered[len(ordered) // 2],
        "p99_kl": ordered[int(0.99 * (len(ordered) - 1))],
        "max_kl": ordered[-1],
        "same_top_rate": sum(items.same_top) / len(items),
        "mean_delta_p": sum(items.delta_p) / len(items),
    }


# Its items compare with the reference already: two of them have no paired comparison, and so no margin.
DIVERGENCE = Metric(
    name="divergence",
    items=Divergences,
    outcomes=lambda items: items.kl,
    unit="nats",
    better="lower",
    noun="tokens",
    scale=Scale(decimals=6, change_decimals=6, change_unit="nats"),
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
