"""What a text goes on with: the likelihood of it, and whether greedy decoding writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from quantsuite.engine import Engine, ScoreRequest, TopK
from quantsuite.evaluate import multiple_choice
from quantsuite.evaluate.questions import Question, encode
from quantsuite.evaluate.scoring import answers
from quantsuite.metrics import Matches, Perplexities

Progress = Callable[[int], None]


def perplexities(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    progress: Progress = lambda done: None,
) -> Perplexities:
    """The negative log-likelihood of each continuation, which is one unit whatever its tokens.

    Raises:
        ValueError: if there are no questions or a likelihood is not finite.
        DataError: if the tokenizer makes no token of a continuation.
    """
    nats: list[float] = []
    tokens: list[int] = []
    for group in multiple_choice.by_group(questions):
        encoded, before = encode(tokenizer, group), len(nats)
        likelihoods = multiple_choice.log_likelihoods(
            engine, encoded, lambda done, before=before: progress(before + done)
        )
        nats += [-total for (total,) in likelihoods]
        tokens += [len(only.continuation) for (only,) in encoded]
    return Perplexities(nats=nats, tokens=tokens, units=[1] * len(questions))


def matches(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    progress: Progress = lambda done: None,
) -> Matches:
    """Whether each token of the continuation is the likeliest one, so that greedy decoding writes them all.

    Raises:
        ValueError: if there are no questions or a likelihood is not finite.
        DataError: if the tokenizer makes no token of a continuation.
    """
    matched: list[bool] = []
    for group in multiple_choice.by_group(questions):
        encoded = [only for (only,) in encode(tokenizer, group)]
        requests = [ScoreRequest(tokens=each.tokens, first=each.first, want=TopK(1)) for each in encoded]
        found: dict[int, bool] = {}
        for result in answers(engine, requests):
            assert result.tokens is not None
            found[result.request] = result.tokens.flatten().tolist() == list(encoded[result.request].continuation)
            progress(len(matched) + len(found))
        matched += [found[index] for index in range(len(group))]
    return Matches(matched=matched)
