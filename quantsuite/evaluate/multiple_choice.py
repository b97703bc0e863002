"""Five-shot multiple choice: by the letters' likelihoods, and by what the model writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from transformers import PreTrainedTokenizerBase

from quantsuite.engine import Candidates, Engine, GenerateRequest, ScoreRequest, Targets
from quantsuite.evaluate.data import DataError, Examination
from quantsuite.evaluate.scoring import answers
from quantsuite.evaluate.visible import visible_tokens
from quantsuite.items import UNPARSED
from quantsuite.prompts import LETTERS, mmlu_prefix, mmlu_question
from quantsuite.records import Choices
from quantsuite.tiny.world import Question

MAX_NEW_TOKENS = 4

Progress = Callable[[int], None]


def _by_subject(examination: Examination) -> list[tuple[str, list[Question]]]:
    """Questions by subject, so that an engine is given what shares a prefix together."""
    if not examination.questions:
        raise ValueError("no questions to answer; an accuracy of nothing is undefined")
    return [(subject, list(items)) for subject, items in groupby(examination.questions, lambda q: q.subject)]


def prompts(examination: Examination, subject: str, questions: Sequence[Question]) -> list[str]:
    """The full five-shot prompts of a subject's questions."""
    prefix = mmlu_prefix(subject, examination.examples[subject])
    return [prefix + mmlu_question(question) for question in questions]


def letter_tokens(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Of each prompt its tokens, and those of each letter after it, tokenized together and then sliced.

    Raises:
        DataError: if two letters become the same tokens, or a letter becomes none.
    """
    contexts = tokenizer(list(prompts), verbose=False)["input_ids"]
    answered = tokenizer([f"{prompt} {letter}" for prompt in prompts for letter in LETTERS], verbose=False)["input_ids"]
    for index, context in enumerate(contexts):
        own = answered[index * len(LETTERS) : (index + 1) * len(LETTERS)]
        letters = [tokens[len(context) :] for tokens in own]
        if not all(letters) or len({tuple(letter) for letter in letters}) < len(LETTERS):
            raise DataError(
                f"the tokenizer turns the answers {', '.join(f'{letter!r}' for letter in LETTERS)} into {letters}, "
                "which does not tell them apart; the recipe needs a tokenizer whose vocabulary has the letters"
            )
        yield context, letters


def _log_likelihoods(
    engine: Engine, contexts: Sequence[list[int]], letters: Sequence[list[list[int]]]
) -> list[list[float]]:
    """``[question][letter]``; a question whose letters are single tokens is read once for all four."""
    requests: list[ScoreRequest] = []
    cells: list[tuple[int, int | None]] = []
    for index, (context, endings) in enumerate(zip(contexts, letters, strict=True)):
        single = all(len(ending) == 1 for ending in endings)
        want = Candidates(tuple(ending[0] for ending in endings)) if single else Targets()
        for letter, ending in enumerate(endings[:1] if single else endings):
            requests.append(ScoreRequest(tokens=(*context, *ending), first=len(context), want=want))
            cells.append((index, None if single else letter))
    totals = [[0.0] * len(LETTERS) for _ in contexts]
    for result in answers(engine, requests):
        index, letter = cells[result.request]
        if letter is None:
            totals[index] = result.log_probs[0].tolist()
        else:
            totals[index][letter] = result.log_probs.double().sum().item()
    return totals


def direct(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    examination: Examination,
    *,
    progress: Progress = lambda done: None,
) -> Choices:
    """The letter with the largest log-likelihood; of equal ones the first.

    Raises:
        ValueError: if there are no questions or a likelihood is not finite.
        DataError: if the tokenizer does not tell the letters apart.
    """
    likelihoods: list[list[float]] = []
    for subject, questions in _by_subject(examination):
        contexts, letters = zip(*letter_tokens(tokenizer, prompts(examination, subject, questions)), strict=True)
        likelihoods += _log_likelihoods(engine, contexts, letters)
        progress(len(likelihoods))
    if not torch.isfinite(torch.tensor(likelihoods)).all():
        raise ValueError("a letter's log-likelihood is NaN or infinite: the model's logits are")
    return Choices(
        group=[question.subject for question in examination.questions],
        answer=[question.answer for question in examination.questions],
        predicted=[row.index(max(row)) for row in likelihoods],
        log_likelihoods=likelihoods,
    )


def parse_answer(text: str) -> int:
    """The letter that a continuation begins with, as an index, or ``UNPARSED``."""
    letter = text.strip()[:1].upper()
    return LETTERS.index(letter) if letter and letter in LETTERS else UNPARSED


def generate(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    examination: Examination,
    *,
    progress: Progress = lambda done: None,
) -> Choices:
    """The first letter of a greedy continuation of at most four tokens.

    Decoding ends with the first token that has a visible character: that character decides.

    Raises:
        ValueError: if there are no questions.
    """
    stop_tokens = visible_tokens(tokenizer)
    predicted: list[int] = []
    for subject, questions in _by_subject(examination):
        contexts = tokenizer(prompts(examination, subject, questions), verbose=False)["input_ids"]
        requests = [
            GenerateRequest(tokens=tuple(context), max_new_tokens=MAX_NEW_TOKENS, stop_tokens=stop_tokens)
            for context in contexts
        ]
        predicted += [parse_answer(tokenizer.decode(tokens)) for tokens in engine.generate(requests)]
        progress(len(predicted))
    return Choices(
        group=[question.subject for question in examination.questions],
        answer=[question.answer for question in examination.questions],
        predicted=predicted,
    )
