"""Negative log-likelihoods of text, item by item."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from quantsuite.engine import Engine
from quantsuite.evaluate.windows import TextItem
from quantsuite.records import Perplexities

LN2 = 0.6931471805599453


def score_text(
    engine: Engine, items: Sequence[TextItem], *, progress: Callable[[int], None] = lambda done: None
) -> Perplexities:
    """The negative log-likelihood of each item in nats, summed in float64.

    Args:
        engine: the model under test.
        items: a recipe's windows.
        progress: called with the number of windows that are done.

    Raises:
        ValueError: if there are no items, or a log-probability is NaN or infinite.
    """
    owners = [index for index, item in enumerate(items) for _ in item.windows]
    windows = [window for item in items for window in item.windows]
    if not windows:
        raise ValueError("no text to score; a perplexity of nothing is undefined")
    nats = [0.0] * len(items)
    remaining = [len(window.tokens) - window.first for window in windows]
    done = 0
    sequences = [window.tokens for window in windows]
    for scores in engine.score(sequences, [window.first for window in windows]):
        count = len(scores.log_probs)
        tokens = sequences[scores.sequence][scores.start : scores.start + count]
        targets = torch.tensor(tokens, device=scores.log_probs.device)
        total = scores.log_probs.gather(1, targets.unsqueeze(1)).double().sum().item()
        if not torch.isfinite(torch.tensor(total)):
            raise ValueError(
                f"the log-probabilities of window {scores.sequence} from token {scores.start} sum to {total}; "
                "the model's logits are NaN or infinite"
            )
        nats[owners[scores.sequence]] -= total
        remaining[scores.sequence] -= count
        if remaining[scores.sequence] == 0:
            done += 1
            progress(done)
    if any(remaining):
        raise ValueError(f"the engine left {sum(remaining)} of the targets unscored; its score() must cover all")
    bits = [item.bits for item in items]
    return Perplexities(
        nats=nats,
        tokens=[item.targets for item in items],
        units=[item.units for item in items],
        floor_nats=None if None in bits else [b * LN2 for b in bits if b is not None],
    )
