"""Negative log-likelihoods of text, item by item."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from quantsuite.engine import Engine, ScoreRequest
from quantsuite.evaluate.scoring import answers
from quantsuite.evaluate.windows import TextItem
from quantsuite.metrics import Perplexities


def score_text(
    engine: Engine, items: Sequence[TextItem], *, progress: Callable[[int], None] = lambda done: None
) -> Perplexities:
    """The negative log-likelihood of each item in nats, summed in float64.

    Args:
        engine: the model under test.
        items: a recipe's windows.
        progress: called with the number of windows that are done.

    Raises:
        ValueError: if there are no items, a log-probability is NaN or infinite, or the engine leaves windows out.
    """
    owners = [index for index, item in enumerate(items) for _ in item.windows]
    windows = [window for item in items for window in item.windows]
    if not windows:
        raise ValueError("no text to score; a perplexity of nothing is undefined")
    nats = [0.0] * len(items)
    requests = [ScoreRequest(tokens=window.tokens, first=window.first) for window in windows]
    for done, result in enumerate(answers(engine, requests), start=1):
        nats[owners[result.request]] -= result.log_probs.double().sum().item()
        progress(done)
    return as_perplexities(nats, items)


def as_perplexities(nats: list[float], items: Sequence[TextItem]) -> Perplexities:
    """Each item's nats with what else is known of it."""
    bits = [item.bits for item in items]
    return Perplexities(
        nats=nats,
        tokens=[item.targets for item in items],
        units=[item.units for item in items],
        floor_nats=None if None in bits else [b * math.log(2) for b in bits if b is not None],
    )
