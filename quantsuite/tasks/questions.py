"""Rows of a dataset as questions: prompts with solved examples, continuations and answers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from quantsuite.evaluate.questions import Question
from quantsuite.evaluate.reading import DataError
from quantsuite.tasks.datasets import Source
from quantsuite.tasks.recipes import ChoicesRecipe, ContinuationRecipe, LettersRecipe, QuestionRecipe
from quantsuite.tasks.rows import Row, Sources, example_rows, measured_rows, place_of


def _group(recipe: QuestionRecipe, row: Row) -> str:
    return str(row.evaluate("recipe.group", recipe.group))


def _choices(recipe: QuestionRecipe, row: Row) -> list[str]:
    """The texts that are scored, without the delimiter."""
    if isinstance(recipe, ContinuationRecipe):
        return [row.render("recipe.target", recipe.target)]
    found = row.evaluate("recipe.choices", recipe.choices)
    if not isinstance(found, list) or not all(isinstance(each, str) and each.strip() for each in found):
        row.refuse(f"choices {found!r} are no texts; the recipe needs a list of strings that are not empty")
    if isinstance(recipe, LettersRecipe):
        if len(found) != len(recipe.letters):
            row.refuse(f"{len(found)} choices, {found!r}; the recipe needs {len(recipe.letters)}")
        return list(recipe.letters)
    if len(found) < 2:
        row.refuse(f"{len(found)} choices, {found!r}; the recipe needs 2 or more")
    return found


def _answer(recipe: QuestionRecipe, row: Row, choices: Sequence[str]) -> int | None:
    if isinstance(recipe, ContinuationRecipe) or not recipe.answer:
        return None
    found: Any = row.evaluate("recipe.answer", recipe.answer)
    answer = int(found) if isinstance(found, str) and found.isascii() and found.isdecimal() else found
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        row.refuse(f"answer {found!r} is none of {len(choices)} choices; the recipe needs 0 to {len(choices) - 1}")
    return answer


def _truths(recipe: QuestionRecipe, row: Row, choices: Sequence[str]) -> tuple[bool, ...] | None:
    if not isinstance(recipe, ChoicesRecipe) or not recipe.truths:
        return None
    found = row.evaluate("recipe.truths", recipe.truths)
    if not isinstance(found, list) or len(found) != len(choices) or not all(each in (0, 1) for each in found):
        row.refuse(f"truths {found!r} of {len(choices)} choices; the recipe needs a 1 or 0 for each")
    if not any(found):
        row.refuse(f"truths {found!r}; the recipe needs a choice that is true")
    return tuple(map(bool, found))


def _example(recipe: QuestionRecipe, row: Row) -> str:
    """A solved question with what separates it from the next."""
    choices = _choices(recipe, row)
    answer = _answer(recipe, row, choices)
    if answer is None:
        answer = (_truths(recipe, row, choices) or (True,)).index(True)
    return row.render("recipe.prompt", recipe.prompt) + _delimiter(recipe) + choices[answer] + recipe.separator


def _delimiter(recipe: QuestionRecipe) -> str:
    return "" if isinstance(recipe, ContinuationRecipe) else recipe.delimiter


def _examples(source: Source, recipe: QuestionRecipe, shots: int, sources: Sources) -> dict[str, list[str]]:
    """The first examples of each group."""
    if not shots:
        return {}
    found: dict[str, list[str]] = {}
    for row in example_rows(source, sources):
        group = found.setdefault(_group(recipe, row), [])
        if len(group) < shots:
            group.append(_example(recipe, row))
    return found


def solved(recipe: QuestionRecipe, rows: Sequence[Row]) -> str:
    """The recipe's description of the first row, and all rows as solved examples.

    Raises:
        DataError: if a row is no question of the recipe.
    """
    return rows[0].render("recipe.description", recipe.description) + "".join(_example(recipe, row) for row in rows)


def _question(recipe: QuestionRecipe, row: Row, examples: Sequence[str]) -> Question:
    choices = _choices(recipe, row)
    lettered = isinstance(recipe, LettersRecipe)
    head = row.render("recipe.description", recipe.description) + "".join(examples)
    return Question(
        group=_group(recipe, row),
        prompt=head + row.render("recipe.prompt", recipe.prompt),
        continuations=tuple(_delimiter(recipe) + choice for choice in choices),
        answer=_answer(recipe, row, choices),
        truths=_truths(recipe, row, choices),
        lengths=None if lettered else tuple(map(len, choices)),
    )


def ask(source: Source, recipe: QuestionRecipe, shots: int, sources: Sources) -> list[Question]:
    """The questions of a task, as many as the limit says, drawn without replacement in the dataset's order.

    Raises:
        MissingDataError: if the dataset is not to be had.
        DataError: if a row is no question of the recipe, or a group has too few examples.
        ValueError: if the limit is negative.
    """
    examples = _examples(source, recipe, shots, sources)
    rows = measured_rows(source, sources)
    for group in sorted({_group(recipe, row) for row in rows}) if shots else ():
        if len(found := examples.get(group, ())) < shots:
            count = f"only {len(found)}" if found else "no"
            place = f"{place_of(source, sources)!r}: {count} examples in {source.examples}"
            raise DataError(f"{place} for {group or 'the questions'}; the recipe needs {shots}")
    questions = [_question(recipe, row, examples.get(_group(recipe, row), ())) for row in rows]
    return draw(questions, sources.limit, sources.seed)


def draw(questions: list[Question], limit: int, seed: int) -> list[Question]:
    """``limit`` questions drawn without replacement, in their order; all if 0.

    Raises:
        ValueError: if ``limit`` is negative.
    """
    if limit < 0:
        raise ValueError(f"limit {limit} is negative; use 0 for all {len(questions):,} questions")
    if limit == 0 or limit >= len(questions):
        return questions
    picked = sorted(random.Random(seed).sample(range(len(questions)), limit))
    return [questions[index] for index in picked]


def fingerprint(recipe: QuestionRecipe, questions: Sequence[Question]) -> str:
    """What identifies questions: the sha256 of all that a model is shown and of what is right."""
    if isinstance(recipe, LettersRecipe):
        items: list[Any] = [f"{question.prompt} {question.answer}" for question in questions]
    else:
        items = [[question.prompt, question.continuations, question.answer, question.truths] for question in questions]
    return hashlib.sha256(msgspec.json.encode(items)).hexdigest()
