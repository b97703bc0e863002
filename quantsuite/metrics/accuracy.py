"""Accuracy on multiple-choice questions, and accuracy by likelihoods divided by the length of a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from quantsuite.metrics.checks import ROUNDING, check_lengths, check_range
from quantsuite.metrics.definition import Margin, Metric
from quantsuite.metrics.estimators import Proportion
from quantsuite.metrics.scale import percentage

UNPARSED = -1
"""Predicted, where an answer could not be read."""
LETTERED_CHOICES = 4


class Choices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="choices"):
    """Outcomes of multiple-choice questions; ``-1`` predicted is an answer that could not be read.

    A question has as many choices as it has ``log_likelihoods``, else ``lengths``, else four.

    Args:
        group: of each question.
        answer: index of the right choice.
        predicted: index of the choice that was taken, the likeliest where there are likelihoods.
        log_likelihoods: of each choice of each question, in nats.
        lengths: characters of each choice's text.

    Raises:
        ValueError: if the lists are empty or differ in length, a question has one choice, or an answer is none of them.
    """

    group: list[str]
    answer: list[int]
    predicted: list[int]
    log_likelihoods: list[list[float]] | None = None
    lengths: list[list[int]] | None = None

    def __post_init__(self) -> None:
        check_lengths(
            answer=self.answer,
            group=self.group,
            predicted=self.predicted,
            log_likelihoods=self.log_likelihoods,
            lengths=self.lengths,
        )
        for name, rows, low, high in (
            ("log_likelihoods", self.log_likelihoods, None, ROUNDING),
            ("lengths", self.lengths, 1, None),
        ):
            for row, choices in zip(rows or (), self.choices, strict=False):
                if len(row) != choices or choices < 2:
                    raise ValueError(f"{name} holds {len(row)} of a question of {choices} choices; it takes 2 or more")
                check_range(name, row, low=low, high=high)
        for answer, predicted, choices in zip(self.answer, self.predicted, self.choices, strict=True):
            check_range("answer", [answer], low=0, high=choices - 1)
            check_range("predicted", [predicted], low=UNPARSED, high=choices - 1)
        for row, predicted in zip(self.log_likelihoods or (), self.predicted, strict=False):
            if predicted != row.index(max(row)):
                raise ValueError(f"predicted holds {predicted} where the likelihoods {row} are largest elsewhere")

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def choices(self) -> list[int]:
        """How many each question has."""
        rows = self.log_likelihoods or self.lengths
        return [LETTERED_CHOICES] * len(self) if rows is None else list(map(len, rows))

    @property
    def correct(self) -> list[bool]:
        return [a == p for a, p in zip(self.answer, self.predicted, strict=True)]

    @property
    def normalized(self) -> list[int]:
        """The choice of the largest log-likelihood a character, of each question.

        Raises:
            ValueError: if there are no likelihoods or lengths.
        """
        if self.log_likelihoods is None or self.lengths is None:
            raise ValueError("choices without log_likelihoods and lengths have no normalized accuracy; score them")
        rows = zip(self.log_likelihoods, self.lengths, strict=True)
        shares = ([value / length for value, length in zip(*row, strict=True)] for row in rows)
        return [share.index(max(share)) for share in shares]

    @property
    def ties(self) -> int:
        """Questions whose largest log-likelihood two or more choices share."""
        return sum(row.count(max(row)) > 1 for row in self.log_likelihoods or ())


def details(items: Choices, given: Mapping[str, float]) -> dict[str, float]:
    return {"unparsed": float(items.predicted.count(UNPARSED)), "ties": float(items.ties)}


def normalized_correct(items: Choices) -> list[bool]:
    """Raises ValueError if there are no likelihoods or lengths."""
    return [a == p for a, p in zip(items.answer, items.normalized, strict=True)]


ACCURACY = Metric(
    name="accuracy",
    items=Choices,
    outcomes=lambda items: items.correct,
    estimator=Proportion(),
    unit="accuracy",
    better="higher",
    noun="questions",
    margin=Margin(default=0.01, option="accuracy"),
    scale=percentage("accuracy"),
    details=details,
    detail_names={"unparsed": "unparsed answers"},
    groups=lambda items: items.group,
)
NORMALIZED_ACCURACY = replace(
    ACCURACY,
    name="normalized accuracy",
    outcomes=normalized_correct,
    unit="normalized accuracy",
    details=lambda items, given: {"accuracy": sum(items.correct) / len(items)},
    detail_names={"accuracy": "accuracy, fraction"},
)
