"""The two calls that evaluators know: ``score`` and ``generate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Predicted distributions of neighbouring tokens of one sequence.

    Args:
        sequence: index of the sequence in the call.
        start: position of the first predicted token.
        log_probs: float32 ``[positions, vocabulary]``, row ``i`` of the token at ``start + i``
            given all tokens before it.
    """

    sequence: int
    start: int
    log_probs: Tensor


class Engine(Protocol):
    """Anything that runs a causal language model.

    Attributes:
        name: of the engine, for records.
        max_length: the longest context in tokens, or ``None`` if there is no limit.
    """

    @property
    def name(self) -> str: ...
    @property
    def max_length(self) -> int | None: ...

    def score(self, sequences: Sequence[Sequence[int]], first: Sequence[int]) -> Iterator[Scores]:
        """Distributions of the tokens at positions ``first[i]`` to the last of each sequence.

        Chunks come in any order between sequences and in order within one, so that an engine can
        batch as it likes and need not hold ``[tokens, vocabulary]`` at once.  What all sequences
        share at their beginning may be computed once.

        Args:
            sequences: token ids; the last token is only predicted, never read.
            first: positions from 1.
        """
        ...

    def generate(
        self, sequences: Sequence[Sequence[int]], *, max_new_tokens: int, stop: Callable[[Sequence[int]], bool]
    ) -> list[list[int]]:
        """Greedy continuations of each sequence, without the sequence.

        A continuation ends at ``max_new_tokens``, at the model's end-of-text token (kept), or as soon
        as ``stop`` says of its tokens that they are enough.
        """
        ...
