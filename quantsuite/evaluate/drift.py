"""Drift of a model's predictions from a reference's, token by token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantsuite.engine import Engine, Rows, ScoreRequest
from quantsuite.evaluate.perplexity import as_perplexities
from quantsuite.evaluate.scoring import not_finite
from quantsuite.evaluate.streams import side_by_side
from quantsuite.evaluate.windows import TextItem
from quantsuite.metrics import Divergences, Perplexities
from quantsuite.metrics.divergence import quantiles


@dataclass(frozen=True)
class TokenDrift:
    """What one token's prediction says: KL in nats, change of its probability, and its log-probability."""

    kl: float
    same_top: bool
    delta_p: float
    log_prob: float


def drift(
    reference: Engine, engine: Engine, items: Sequence[TextItem], *, progress: Callable[[int], None] = lambda done: None
) -> Divergences:
    """KL(reference || engine) in nats, whether the top token is the same, and the true token's change, item by item.

    Raises as :func:`token_drift`.
    """
    return divergences(token_drift(reference, engine, items, progress=progress))


def divergences(found: Sequence[Sequence[TokenDrift]]) -> Divergences:
    """Each item's tokens summed up."""
    return Divergences(
        kl=[math.fsum(token.kl for token in item) for item in found],
        same_top=[sum(token.same_top for token in item) for item in found],
        delta_p=[math.fsum(token.delta_p for token in item) for item in found],
        tokens=[len(item) for item in found],
        quantiles=quantiles([token.kl for item in found for token in item]),
    )


def perplexities(found: Sequence[Sequence[TokenDrift]], engine: Engine, items: Sequence[TextItem]) -> Perplexities:
    """What :func:`quantsuite.evaluate.perplexity.score_text` gives of the same passes.

    Raises:
        ValueError: if a token that the text has is given no probability.
    """
    for number, tokens in enumerate(found):
        if not all(math.isfinite(token.log_prob) for token in tokens):
            raise not_finite(engine.name, number, 1)
    return as_perplexities([-math.fsum(token.log_prob for token in item) for item in found], items)


def token_drift(
    reference: Engine, engine: Engine, items: Sequence[TextItem], *, progress: Callable[[int], None] = lambda done: None
) -> list[list[TokenDrift]]:
    """The drift of each scored token, item by item.

    Outcomes stand in the order of the text, however the engines batch; so their sum is the same for each of them.

    Raises:
        ValueError: if there are no items, the vocabularies differ, or an engine leaves out or repeats positions.
    """
    windows = [window for item in items for window in item.windows]
    if not windows:
        raise ValueError("no text to compare on; a drift over nothing is undefined")
    requests = [ScoreRequest(tokens=window.tokens, first=window.first, want=Rows()) for window in windows]
    found: list[list[TokenDrift]] = [[] for _ in requests]
    done = 0
    for side in side_by_side(reference, engine, requests):
        request, own = requests[side.request], found[side.request]
        targets = request.tokens[side.first : side.first + len(side.reference)]
        own += _divergences(side.reference.double(), side.candidate.double(), targets)
        if len(own) == request.positions:
            done += 1
            progress(done)
    of_windows = iter(found)
    return [[token for _ in item.windows for token in next(of_windows)] for item in items]


def _divergences(p: Tensor, q: Tensor, targets: Sequence[int]) -> list[TokenDrift]:
    """Of log-probabilities ``[positions, vocabulary]`` the outcome of each position."""
    true = torch.tensor(targets, device=q.device).unsqueeze(1)
    kl = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1).clamp(min=0)
    same_top = p.argmax(-1) == q.argmax(-1)
    before, after = (each.gather(1, true).flatten() for each in (p, q))
    delta_p = after.exp() - before.exp()
    return list(map(TokenDrift, kl.tolist(), same_top.tolist(), delta_p.tolist(), after.tolist()))
