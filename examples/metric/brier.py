"""The Brier score of multiple-choice questions: how far the probabilities of the choices lie from the right one.

A metric says what its items are, the outcome of each, and how its numbers are shown; the interval, the paired
comparison, the gate and the report follow.
"""

import math

from quantsuite.metrics import Choices, Margin, Metric, Scale


def scores(items: Choices) -> list[float]:
    """Of each question the sum over its choices of ``(p - right) ** 2``: from 0, certain and right, to 2."""
    if items.log_likelihoods is None:
        raise ValueError("a Brier score takes likelihoods; use a recipe that scores the choices")
    return [_score(row, answer) for row, answer in zip(items.log_likelihoods, items.answer, strict=True)]


def _score(log_likelihoods: list[float], answer: int) -> float:
    largest = max(log_likelihoods)
    weights = [math.exp(value - largest) for value in log_likelihoods]
    shares = [weight / math.fsum(weights) for weight in weights]
    return math.fsum((share - (choice == answer)) ** 2 for choice, share in enumerate(shares))


BRIER = Metric(
    name="Brier score",
    items=Choices,
    outcomes=scores,
    unit="Brier score",
    better="lower",
    noun="questions",
    scale=Scale(decimals=4, change_decimals=5, change_unit="Brier score"),
    margin=Margin(default=0.01),
    groups=lambda items: items.group,
)
