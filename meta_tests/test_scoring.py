"""Engines that do not answer what they were asked are refused by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from quantsuite.engine import GenerateRequest, Rows, ScoreRequest, ScoreResult
from quantsuite.evaluate.scoring import answers, continuations
from quantsuite.evaluate.streams import side_by_side

REQUESTS = [GenerateRequest(tokens=(1, 2), max_new_tokens=3) for _ in range(2)]


@dataclass
class Planted:
    """An engine that gives these continuations."""

    found: list[Any]
    name: str = "planted"

    def generate(self, requests: list[GenerateRequest]) -> list[Any]:
        return self.found


def test_each_request_is_continued() -> None:
    assert continuations(Planted([[4], [5, 6, 7]]), REQUESTS) == [[4], [5, 6, 7]]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([[4]], "the engine planted gives 1 continuations of 2 requests"),
        ([[4], [4], [4]], "the engine planted gives 3 continuations of 2 requests"),
        ([[4], ["A"]], "continues request 1 by ['A'], which are no tokens"),
        ([[4], [-1]], "continues request 1 by [-1], which are no tokens"),
        ([[1, 2, 3, 4], [4]], "continues request 0 by 4 tokens, more than 3"),
    ],
)
def test_other_continuations_are_refused(found: list[Any], reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        continuations(Planted(found), REQUESTS)
    assert reason in str(caught.value)


@dataclass
class Constant:
    """An engine that gives every log-probability this value."""

    value: float
    name: str = "constant"
    dtype: torch.dtype = torch.float32

    def score(self, requests: list[ScoreRequest]) -> Any:
        for number, each in enumerate(requests):
            shape = (each.positions, 5) if isinstance(each.want, Rows) else (each.positions,)
            yield ScoreResult(
                request=number, first=each.first, log_probs=torch.full(shape, self.value, dtype=self.dtype)
            )


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_the_engine_whose_numbers_are_not_finite_is_named(value: float) -> None:
    with pytest.raises(ValueError, match="the engine constant gives log-probabilities of request 0 from position 1"):
        list(answers(Constant(value), [ScoreRequest(tokens=(1, 2), first=1)]))


def test_of_two_engines_the_one_that_gives_nan_is_named() -> None:
    requests = [ScoreRequest(tokens=(1, 2, 3), first=1, want=Rows())]
    with pytest.raises(ValueError, match="the engine broken gives log-probabilities of request 0"):
        list(side_by_side(Constant(-1.0), Constant(math.nan, name="broken"), requests))


def test_log_probabilities_in_fewer_bits_than_float32_are_refused() -> None:
    engine, message = (
        Constant(-1.0, dtype=torch.bfloat16),
        "the engine constant gives log-probabilities in torch.bfloat16",
    )
    with pytest.raises(ValueError, match=message):
        list(answers(engine, [ScoreRequest(tokens=(1, 2), first=1)]))
    with pytest.raises(ValueError, match=message):
        list(side_by_side(engine, Constant(-1.0), [ScoreRequest(tokens=(1, 2, 3), first=1, want=Rows())]))
