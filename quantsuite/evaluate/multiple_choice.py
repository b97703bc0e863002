"""Multiple choice: by the likelihoods of what may stand after a prompt, and by what the model writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from quantsuite.engine import Candidates, Engine, GenerateRequest, ScoreRequest
from quantsuite.evaluate.questions import Encoded, Question, encode
from quantsuite.evaluate.reading import DataError
from quantsuite.evaluate.scoring import answers, continuations
from quantsuite.evaluate.visible import visible_tokens
from quantsuite.metrics import UNPARSED, Choices, Truths

Progress = Callable[[int], None]


def by_group(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """Neighbours of one group together, since an engine may read once what all of them begin with.

    Raises:
        ValueError: if there are no questions.
    """
    if not questions:
        raise ValueError("no questions to answer; an accuracy of nothing is undefined")
    for _, found in groupby(questions, lambda question: question.group):
        yield list(found)


def require_distinct_letters(encoded: Sequence[Sequence[Encoded]], letters: str) -> None:
    """Letters that a tokenizer does not tell apart have no likelihoods of their own.

    Raises:
        DataError: if two of them become the same tokens.
    """
    for choices in encoded:
        found = [list(choice.continuation) for choice in choices]
        if len({*map(tuple, found)}) < len(letters):
            raise DataError(
                f"the tokenizer turns the answers {', '.join(f'{letter!r}' for letter in letters)} into {found}, "
                "which does not tell them apart; the recipe needs a tokenizer whose vocabulary has the letters"
            )


def _requests(encoded: Sequence[Sequence[Encoded]]) -> Iterator[tuple[int, int | None, ScoreRequest]]:
    """``(question, choice, request)``; a question whose choices are single tokens after one context is read once."""
    for index, choices in enumerate(encoded):
        if len({choice.tokens[:-1] for choice in choices}) == 1 and len(choices[0].continuation) == 1:
            candidates = Candidates(tuple(choice.tokens[-1] for choice in choices))
            yield index, None, ScoreRequest(tokens=choices[0].tokens, first=choices[0].first, want=candidates)
        else:
            for place, choice in enumerate(choices):
                yield index, place, ScoreRequest(tokens=choice.tokens, first=choice.first)


def log_likelihoods(
    engine: Engine, encoded: Sequence[Sequence[Encoded]], progress: Progress = lambda done: None
) -> list[list[float]]:
    """Of each continuation, ``[question][choice]``, in nats.

    Args:
        engine: the model under test.
        encoded: questions that are scored in one call.
        progress: called with the number of questions that are done.

    Raises:
        ValueError: if one is not finite.
    """
    cells = list(_requests(encoded))
    totals = [[math.nan] * len(choices) for choices in encoded]
    waiting = [len(choices) for choices in encoded]
    for result in answers(engine, [request for _, _, request in cells]):
        index, place, _ = cells[result.request]
        if place is None:
            totals[index] = result.log_probs[0].tolist()
        else:
            totals[index][place] = result.log_probs.double().sum().item()
        waiting[index] -= len(totals[index]) if place is None else 1
        if waiting[index] == 0:
            progress(waiting.count(0))
    return totals


def score(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    letters: str = "",
    progress: Progress = lambda done: None,
) -> list[list[float]]:
    """The log-likelihoods of all questions' continuations, ``[question][choice]``.

    Args:
        engine: the model under test.
        tokenizer: of the model.
        questions: neighbours of one group are scored in one call.
        letters: the choices, where the tokenizer must tell them apart.
        progress: called with the number of questions that are done.

    Raises:
        ValueError: if there are no questions or a likelihood is not finite.
        DataError: if the tokenizer makes no tokens of a continuation, or does not tell letters apart.
    """
    found: list[list[float]] = []
    for group in by_group(questions):
        encoded = encode(tokenizer, group)
        if letters:
            require_distinct_letters(encoded, letters)
        before = len(found)
        found += log_likelihoods(engine, encoded, lambda done, before=before: progress(before + done))
    return found


def choices(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    letters: str = "",
    progress: Progress = lambda done: None,
) -> Choices:
    """The choice with the largest log-likelihood; of equal ones the first.  Arguments and errors of :func:`score`."""
    likelihoods = score(engine, tokenizer, questions, letters=letters, progress=progress)
    return Choices(
        group=[question.group for question in questions],
        answer=[_answer(question) for question in questions],
        predicted=[row.index(max(row)) for row in likelihoods],
        log_likelihoods=likelihoods,
        lengths=None if letters else [list(question.lengths or ()) for question in questions],
    )


def truths(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    progress: Progress = lambda done: None,
) -> Truths:
    """The log-likelihoods of choices of which several are true.  Arguments and errors of :func:`score`."""
    return Truths(
        group=[question.group for question in questions],
        truth=[list(question.truths or ()) for question in questions],
        log_likelihoods=score(engine, tokenizer, questions, progress=progress),
    )


def _answer(question: Question) -> int:
    assert question.answer is not None
    return question.answer


def parse_answer(text: str, letters: str = "ABCD") -> int:
    """The letter that a continuation begins with, as an index, or ``UNPARSED``."""
    letter = text.strip()[:1].upper()
    return letters.index(letter) if letter and letter in letters else UNPARSED


def written(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    letters: str,
    max_new_tokens: int,
    progress: Progress = lambda done: None,
) -> Choices:
    """The first letter of a greedy continuation, which ends with the first token that has a visible character.

    Raises:
        ValueError: if there are no questions.
    """
    predicted: list[int] = []
    stop_tokens = visible_tokens(tokenizer)
    for group in by_group(questions):
        prompts = tokenizer([question.prompt for question in group], verbose=False)["input_ids"]
        requests = [
            GenerateRequest(tokens=tuple(prompt), max_new_tokens=max_new_tokens, stop_tokens=stop_tokens)
            for prompt in prompts
        ]
        predicted += [parse_answer(tokenizer.decode(text), letters) for text in continuations(engine, requests)]
        progress(len(predicted))
    return Choices(
        group=[question.group for question in questions],
        answer=[_answer(question) for question in questions],
        predicted=predicted,
    )
