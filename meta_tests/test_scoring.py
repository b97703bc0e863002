"""Engines that do not answer what they were asked are refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from quantsuite.engine import GenerateRequest
from quantsuite.evaluate.scoring import continuations

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
