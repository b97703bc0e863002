"""Engines around another one: the same model, with its rows kept, asked in another order, or opened when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from quantsuite.engine import Engine, GenerateRequest, Rows, ScoreRequest, ScoreResult

HELD_ELEMENTS = 2**28
"""Log-probabilities that are kept, at most: 1 GiB in float32, 131,072 positions of 2,048 tokens, 1,766 of 152,000."""


class _Around:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def max_length(self) -> int | None:
        return self._engine.max_length

    def generate(self, requests: Sequence[GenerateRequest]) -> list[list[int]]:
        return self._engine.generate(requests)


class Held(_Around):
    """An engine that keeps the rows it gave, as long as they are ``HELD_ELEMENTS`` or fewer, and gives them again."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._held: dict[tuple[ScoreRequest, ...], list[ScoreResult]] = {}
        self._elements = 0

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        asked = tuple(requests)
        if asked in self._held:
            yield from self._held[asked]
            return
        kept: list[ScoreResult] | None = []
        elements = 0
        for result in self._engine.score(requests):
            yield result
            elements += result.log_probs.numel()
            if kept is not None and self._elements + elements <= HELD_ELEMENTS:
                kept.append(result)
            else:
                kept = None
        if kept is not None and all(isinstance(request.want, Rows) for request in asked):
            self._held[asked] = kept
            self._elements += elements

    def over(self, engine: Engine) -> Held:
        """The rows that were kept, before an engine of the same model that is asked for others."""
        held = Held(engine)
        held._held, held._elements = self._held, self._elements
        return held


class Deferred(_Around):
    """An engine that is opened when it is first asked."""

    def __init__(self, open_engine: Callable[[], Engine]) -> None:
        self._open = open_engine

    @cached_property
    def _engine(self) -> Engine:
        return self._open()

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        return self._engine.score(requests)


class OneByOne(_Around):
    """An engine that is asked one request at a time, the last one first: other batches, other orders of sums."""

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        for number in reversed(range(len(requests))):
            for result in self._engine.score([requests[number]]):
                yield replace(result, request=number + result.request)
