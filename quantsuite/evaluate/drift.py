"""Drift of a model's predictions from a reference's, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from quantsuite.engine import Engine
from quantsuite.evaluate.windows import TextItem
from quantsuite.records import Divergences


def drift(
    reference: Engine, engine: Engine, items: Sequence[TextItem], *, progress: Callable[[int], None] = lambda done: None
) -> Divergences:
    """KL(reference || engine) in nats, whether the top token is the same, and the true token's change.

    Both engines score in step, so that distributions are held one chunk at a time.

    Raises:
        ValueError: if there are no items, or the engines do not cut their work alike.
    """
    windows = [window for item in items for window in item.windows]
    if not windows:
        raise ValueError("no text to compare on; a drift over nothing is undefined")
    sequences, first = [window.tokens for window in windows], [window.first for window in windows]
    kl: list[float] = []
    same_top: list[bool] = []
    delta_p: list[float] = []
    for done, (ours, theirs) in enumerate(
        zip(engine.score(sequences, first), reference.score(sequences, first), strict=True)
    ):
        if (ours.sequence, ours.start, ours.log_probs.shape) != (theirs.sequence, theirs.start, theirs.log_probs.shape):
            raise ValueError(
                f"the engines cut their work differently: {engine.name} is at sequence {ours.sequence}, token "
                f"{ours.start}, {reference.name} at {theirs.sequence}, {theirs.start}; use engines of one kind"
            )
        p, q = theirs.log_probs.double(), ours.log_probs.double()
        tokens = sequences[ours.sequence][ours.start : ours.start + len(q)]
        targets = torch.tensor(tokens, device=q.device).unsqueeze(1)
        kl += torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1).clamp(min=0).tolist()
        same_top += (p.argmax(-1) == q.argmax(-1)).tolist()
        delta_p += (q.gather(1, targets).exp() - p.gather(1, targets).exp()).flatten().tolist()
        progress(done + 1)
    return Divergences(kl=kl, same_top=same_top, delta_p=delta_p)
