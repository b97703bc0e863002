"""Distributions of two engines side by side, however each cuts its work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantsuite.engine import Engine, Rows, ScoreRequest
from quantsuite.evaluate.scoring import check_precision, not_finite

GROUP_ELEMENTS = 2**30
"""Log-probabilities that an engine may be ahead of the other, at most: 4 GiB in float32."""

SLICE_ELEMENTS = 2**24
"""Log-probabilities of an engine that are compared at once: 64 MiB in float32."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Distributions of both engines at neighbouring positions of one request.

    Args:
        request: its index.
        first: position of the first of them.
        reference: float32 ``[positions, vocabulary]``.
        candidate: the same of the other engine, on the reference's device.
    """

    request: int
    first: int
    reference: Tensor
    candidate: Tensor


def side_by_side(reference: Engine, candidate: Engine, requests: Sequence[ScoreRequest]) -> Iterator[Side]:
    """Distributions of every scored position by both engines, each request in order of position.

    Both are given the requests in groups of at most ``GROUP_ELEMENTS`` log-probabilities, or of one request, which
    bounds what is held of an engine that is ahead.  Slices depend on requests and vocabulary alone.

    Args:
        reference: one engine.
        candidate: the other one, of the same vocabulary.
        requests: whose want is :class:`Rows`.

    Raises:
        ValueError: if the vocabularies differ, or an engine leaves out or repeats positions.
    """
    vocabulary = _vocabulary(reference, requests[0])
    if (other := _vocabulary(candidate, requests[0])) != vocabulary:
        raise ValueError(
            f"{candidate.name} predicts {other:,} tokens, {reference.name} {vocabulary:,}; "
            "a divergence needs two models of one vocabulary"
        )
    for numbers in _groups(requests, vocabulary):
        group = {number: requests[number] for number in numbers}
        yield from _in_step(_Stream(reference, group), _Stream(candidate, group), group, vocabulary)


def _vocabulary(engine: Engine, request: ScoreRequest) -> int:
    """The width of an engine's rows, of a prediction that is as short as can be."""
    probe = ScoreRequest(tokens=request.tokens[:2], first=1, want=Rows())
    widths = {result.log_probs.shape[1] for result in engine.score([probe])}
    if len(widths) != 1:
        raise ValueError(f"the engine {engine.name} gives rows of {len(widths)} widths; its score() must answer all")
    return widths.pop()


def _groups(requests: Sequence[ScoreRequest], vocabulary: int) -> Iterator[list[int]]:
    """Indices of neighbouring requests whose rows are held together."""
    group: list[int] = []
    held = 0
    for number, request in enumerate(requests):
        size = request.positions * vocabulary
        if group and held + size > GROUP_ELEMENTS:
            yield group
            group, held = [], 0
        group.append(number)
        held += size
    yield group


def _in_step(
    reference: _Stream, candidate: _Stream, group: Mapping[int, ScoreRequest], vocabulary: int
) -> Iterator[Side]:
    """Advances whichever engine has scored less, and yields what both have."""
    most = max(1, SLICE_ELEMENTS // vocabulary)
    taken = {number: request.first for number, request in group.items()}
    streams = [reference, candidate]
    while streams:
        stream = min(streams, key=lambda each: each.scored)
        number = stream.advance()
        if number is None:
            streams.remove(stream)
            continue
        while count := min(most, len(group[number].tokens) - taken[number]):
            if min(reference.holds(number), candidate.holds(number)) < count:
                break
            rows = reference.take(number, count)
            others = candidate.take(number, count).to(rows.device)
            yield Side(request=number, first=taken[number], reference=rows, candidate=others)
            taken[number] += count


class _Stream:
    """Rows of an engine, held until they are taken.

    Attributes:
        scored: positions until now.
    """

    def __init__(self, engine: Engine, group: Mapping[int, ScoreRequest]) -> None:
        self._name, self._group, self._numbers = engine.name, group, list(group)
        self._results = engine.score(list(group.values()))
        self._held: dict[int, list[Tensor]] = {number: [] for number in group}
        self._reached = {number: request.first for number, request in group.items()}
        self.scored = 0

    def advance(self) -> int | None:
        """Hold the engine's next rows; the request that they are of, or ``None`` at the end.

        Raises:
            ValueError: if they are not the next ones of a request or hold NaN, or the engine ends before it has scored
                all.
        """
        result = next(self._results, None)
        if result is None:
            for number, request in self._group.items():
                if self._reached[number] < len(request.tokens):
                    raise self._fault("leaves out", number, self._reached[number])
            return None
        if not 0 <= result.request < len(self._numbers):
            raise ValueError(
                f"the engine {self._name} answers request {result.request} of {len(self._numbers)}; "
                "its score() must number results as the call numbers requests, from 0"
            )
        number, count = self._numbers[result.request], len(result.log_probs)
        if result.first > self._reached[number]:
            raise self._fault("leaves out", number, self._reached[number])
        if result.first < self._reached[number]:
            raise self._fault("repeats", number, result.first)
        if result.first + count > len(self._group[number].tokens):
            raise self._fault("adds", number, len(self._group[number].tokens))
        check_precision(self._name, result)
        if result.log_probs.isnan().any():  # A probability of zero is one that a row may have.
            raise not_finite(self._name, number, result.first)
        self._held[number].append(result.log_probs)
        self._reached[number] += count
        self.scored += count
        return number

    def _fault(self, does: str, number: int, position: int) -> ValueError:
        return ValueError(
            f"the engine {self._name} {does} position {position} of request {number}; "
            "its score() must give each scored position once, in order within a request"
        )

    def holds(self, number: int) -> int:
        """How many rows of a request wait."""
        return sum(map(len, self._held[number]))

    def take(self, number: int, count: int) -> Tensor:
        """The next rows of a request, ``[count, vocabulary]``."""
        held = self._held[number]
        rows = held[0] if len(held) == 1 else torch.cat(held)
        self._held[number] = [rows[count:]] if count < len(rows) else []
        return rows[:count]
