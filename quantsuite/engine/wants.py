"""From whole distributions to what a request wants of them, for engines that compute whole distributions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from quantsuite.engine.protocol import Candidates, Rows, ScoreRequest, ScoreResult, Targets


def answer(index: int, request: ScoreRequest, first: int, rows: Tensor) -> ScoreResult:
    """What a request wants of the distributions of its tokens from ``first`` on.

    Args:
        index: of the request in the call.
        request: whose positions they are.
        first: position of the first of them.
        rows: log-probabilities, float32 ``[positions, vocabulary]``.
    """
    want = request.want
    if isinstance(want, Rows):
        return ScoreResult(request=index, first=first, log_probs=rows)
    if isinstance(want, Targets):
        targets = torch.tensor(request.tokens[first : first + len(rows)], device=rows.device)
        return ScoreResult(request=index, first=first, log_probs=rows.gather(1, targets.unsqueeze(1)).squeeze(1))
    if isinstance(want, Candidates):
        return ScoreResult(request=index, first=first, log_probs=rows[:, list(want.tokens)])
    log_probs, tokens = rows.topk(want.k)
    rest = rows.exp().scatter(1, tokens, 0.0).sum(-1)
    return ScoreResult(request=index, first=first, log_probs=log_probs, tokens=tokens, rest=rest)


def in_one_part(parts: Iterable[ScoreResult], requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
    """Results as a call returns them, of parts that come request by request and in order of position.

    Rows are passed on as they come; the parts of any other request are joined.
    """
    open_parts: list[ScoreResult] = []
    for part in parts:
        request = requests[part.request]
        if isinstance(request.want, Rows):
            yield part
            continue
        open_parts.append(part)
        if part.first + len(part.log_probs) == len(request.tokens):
            yield _join(open_parts)
            open_parts = []


def _join(parts: Sequence[ScoreResult]) -> ScoreResult:
    if len(parts) == 1:
        return parts[0]
    tokens = [part.tokens for part in parts if part.tokens is not None]
    rest = [part.rest for part in parts if part.rest is not None]
    return ScoreResult(
        request=parts[0].request,
        first=parts[0].first,
        log_probs=torch.cat([part.log_probs for part in parts]),
        tokens=torch.cat(tokens) if tokens else None,
        rest=torch.cat(rest) if rest else None,
    )
