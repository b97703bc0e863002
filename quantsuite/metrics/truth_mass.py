"""Truth mass: the probability of the right answers of a question among all of its choices (MC2 of TruthfulQA)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from quantsuite.metrics.checks import ROUNDING, check_lengths, check_range
from quantsuite.metrics.definition import Margin, Metric
from quantsuite.metrics.scale import percentage


class Truths(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="truths"):
    """Outcomes of questions of which several choices are right.

    Args:
        group: of each question.
        truth: which of its choices are right.
        log_likelihoods: of each choice, in nats.

    Raises:
        ValueError: if lists differ in length, a question has one choice or none that is right, or a log-likelihood is
            above zero or not finite.
    """

    group: list[str]
    truth: list[list[bool]]
    log_likelihoods: list[list[float]]

    def __post_init__(self) -> None:
        check_lengths(truth=self.truth, group=self.group, log_likelihoods=self.log_likelihoods)
        for truth, row in zip(self.truth, self.log_likelihoods, strict=True):
            if len(truth) != len(row) or len(row) < 2:
                raise ValueError(f"log_likelihoods holds {len(row)} of a question of {len(truth)} choices, 2 or more")
            if not any(truth):
                raise ValueError("truth holds a question without a right choice; it takes 1 or more")
            check_range("log_likelihoods", row, high=ROUNDING)

    def __len__(self) -> int:
        return len(self.truth)


def masses(items: Truths) -> list[float]:
    """Of each question the likelihoods of its right choices over those of all."""
    return [_mass(truth, row) for truth, row in zip(items.truth, items.log_likelihoods, strict=True)]


def _mass(truth: list[bool], row: list[float]) -> float:
    # Relative to the largest, since likelihoods of long choices are below any float64.
    likelihoods = [math.exp(value - max(row)) for value in row]
    return math.fsum(p for p, right in zip(likelihoods, truth, strict=True) if right) / math.fsum(likelihoods)


def details(items: Truths, given: Mapping[str, float]) -> dict[str, float]:
    pairs = zip(items.truth, items.log_likelihoods, strict=True)
    return {"likeliest_true": sum(truth[row.index(max(row))] for truth, row in pairs) / len(items)}


TRUTH_MASS = Metric(
    name="truth mass",
    items=Truths,
    outcomes=masses,
    unit="truth mass",
    better="higher",
    noun="questions",
    margin=Margin(default=0.01),
    scale=percentage("truth mass"),
    details=details,
    detail_names={"likeliest_true": "likeliest choice is true, fraction"},
    groups=lambda items: items.group,
)
