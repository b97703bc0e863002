"""Drift of a model's predictions from a reference's, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from quantsuite.engine import Engine, Rows, ScoreRequest
from quantsuite.evaluate.streams import side_by_side
from quantsuite.evaluate.windows import TextItem
from quantsuite.metrics import Divergences


def drift(
    reference: Engine, engine: Engine, items: Sequence[TextItem], *, progress: Callable[[int], None] = lambda done: None
) -> Divergences:
    """KL(reference || engine) in nats, whether the top token is the same, and the true token's change.

    Outcomes stand in the order of the text, however the engines batch; so their sum is the same for each of them.

    Raises:
        ValueError: if there are no items, the vocabularies differ, or an engine leaves out or repeats positions.
    """
    windows = [window for item in items for window in item.windows]
    if not windows:
        raise ValueError("no text to compare on; a drift over nothing is undefined")
    requests = [ScoreRequest(tokens=window.tokens, first=window.first, want=Rows()) for window in windows]
    found: list[list[tuple[float, bool, float]]] = [[] for _ in requests]
    done = 0
    for side in side_by_side(reference, engine, requests):
        request, own = requests[side.request], found[side.request]
        targets = request.tokens[side.first : side.first + len(side.reference)]
        own += _divergences(side.reference.double(), side.candidate.double(), targets)
        if len(own) == request.positions:
            done += 1
            progress(done)
    kl, same_top, delta_p = map(list, zip(*(each for own in found for each in own), strict=True))
    return Divergences(kl=kl, same_top=same_top, delta_p=delta_p)


def _divergences(p: Tensor, q: Tensor, targets: Sequence[int]) -> list[tuple[float, bool, float]]:
    """Of log-probabilities ``[positions, vocabulary]`` the outcome of each position."""
    true = torch.tensor(targets, device=q.device).unsqueeze(1)
    kl = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1).clamp(min=0)
    same_top = p.argmax(-1) == q.argmax(-1)
    delta_p = (q.gather(1, true).exp() - p.gather(1, true).exp()).flatten()
    return list(zip(kl.tolist(), same_top.tolist(), delta_p.tolist(), strict=True))
