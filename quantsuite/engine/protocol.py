"""The two calls that evaluators know, ``score`` and ``generate``, and the requests that they take.

Positions count tokens from 0, so that the first token that can be predicted is the one at position 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """The log-probability of each scored token: ``[positions]``."""


@dataclass(frozen=True)
class Candidates:
    """The log-probabilities of these tokens at each scored position: ``[positions, candidates]``.

    Raises:
        ValueError: if there are none, or a token is negative.
    """

    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.tokens or min(self.tokens) < 0:
            raise ValueError(f"candidates {self.tokens} are no token ids; give one or more, from 0")


@dataclass(frozen=True)
class Rows:
    """The whole distribution at each scored position: ``[positions, vocabulary]``."""


@dataclass(frozen=True)
class TopK:
    """The ``k`` likeliest tokens at each scored position, likeliest first, and the mass of all others.

    Raises:
        ValueError: if ``k`` is less than 1.
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"the {self.k} likeliest tokens are none; give k from 1")


Want = Targets | Candidates | Rows | TopK


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """What is wanted of the predictions of one sequence's tokens, from ``first`` to the last.

    Args:
        tokens: token ids; the last one is only predicted, never read.
        first: position of the first scored token, from 1.
        want: what is returned of each position's distribution.

    Raises:
        ValueError: if no token is scored, or one that nothing stands before, or an id is negative.
    """

    tokens: tuple[int, ...]
    first: int
    want: Want = Targets()

    def __post_init__(self) -> None:
        if not 1 <= self.first < len(self.tokens):
            raise ValueError(
                f"of {len(self.tokens)} tokens none can be scored from position {self.first}; "
                "the first one has nothing before it, so score from 1, and give two tokens or more"
            )
        if min(self.tokens) < 0:
            raise ValueError(f"token {min(self.tokens)} is no token id; ids count from 0")

    @property
    def positions(self) -> int:
        """How many tokens are scored."""
        return len(self.tokens) - self.first


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """Neighbouring positions of one request, each given all tokens before it.

    Args:
        request: index of the request in the call.
        first: position of the first of them.
        log_probs: float32, natural logarithms, of the shape that the request's want names.
        tokens: of :class:`TopK`, the ids of ``log_probs``: int64 ``[positions, k]``.
        rest: of :class:`TopK`, the probability of all other tokens together: float32 ``[positions]``.
    """

    request: int
    first: int
    log_probs: Tensor
    tokens: Tensor | None = None
    rest: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """A sequence to continue greedily.

    Args:
        tokens: token ids.
        max_new_tokens: the most tokens that are added.
        stop_tokens: any of these ends the continuation and is kept, as the model's end-of-text tokens are.
        stop_strings: the continuation ends with the token after which its text contains one of these; kept.

    Raises:
        ValueError: if there are no tokens, an id is negative, nothing is to be added, or a stop string is empty.
    """

    tokens: tuple[int, ...]
    max_new_tokens: int
    stop_tokens: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.tokens or min(self.tokens) < 0:
            raise ValueError(f"{self.tokens} are no token ids to continue; give one or more, from 0")
        if self.max_new_tokens < 1:
            raise ValueError(f"{self.max_new_tokens} new tokens are none; ask for 1 or more")
        if not all(self.stop_strings):
            raise ValueError("an empty stop string would stop before the first token; give a text")


class Engine(Protocol):
    """Anything that runs a causal language model.

    Attributes:
        name: of the engine, for records and messages.
        max_length: the longest context in tokens, or ``None`` if there is no limit.
    """

    @property
    def name(self) -> str: ...
    @property
    def max_length(self) -> int | None: ...

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        """What each request wants, in any order of requests.

        One call may mix wants.  A request's positions come in one result; only those of :class:`Rows` may come in
        several, in order of position, so that ``[tokens, vocabulary]`` need not be held at once.  How requests are
        batched, and whether a beginning that they share is read once, is the engine's own affair.
        """
        ...

    def generate(self, requests: Sequence[GenerateRequest]) -> list[list[int]]:
        """The greedy continuation of each request, without its own tokens."""
        ...
