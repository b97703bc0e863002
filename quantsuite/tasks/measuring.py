"""A task with its data loaded, and what measures it: which items a recipe yields, and by which evaluator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec
from transformers import PreTrainedTokenizerBase

from quantsuite.engine import Engine
from quantsuite.evaluate import continuation, multiple_choice
from quantsuite.evaluate.drift import drift
from quantsuite.evaluate.perplexity import score_text
from quantsuite.evaluate.questions import Question, encode
from quantsuite.evaluate.windows import TextItem
from quantsuite.items import Choices, Divergences, Items, Matches, Perplexities, Truths
from quantsuite.metrics import metric
from quantsuite.records import Dataset
from quantsuite.tasks.questions import ask, fingerprint
from quantsuite.tasks.recipes import (
    ChoicesRecipe,
    ContinuationRecipe,
    Documents,
    LettersRecipe,
    QuestionRecipe,
    Recipe,
    Rows,
    TextRecipe,
    Windows,
)
from quantsuite.tasks.rows import Sources
from quantsuite.tasks.texts import text_items

if TYPE_CHECKING:
    from quantsuite.tasks.task import Task

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a task yields: the metric's value, further numbers, and the outcome of every item."""

    value: float
    details: dict[str, float]
    items: Items


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A task with its data loaded.

    Args:
        task: of which it is the data.
        tokenizer: of the model.
        dataset: what identifies the items.
        longest: the most tokens that are read at once; of questions, of the one that has the most characters.
        items: what is measured: windows of text, or questions.
        size: of the text in bytes, where it is known.
    """

    task: Task
    tokenizer: PreTrainedTokenizerBase
    dataset: Dataset
    longest: int
    items: Sequence[TextItem | Question]
    size: int | None = None

    @property
    def texts(self) -> list[TextItem]:
        return cast("list[TextItem]", list(self.items))

    @property
    def questions(self) -> list[Question]:
        return cast("list[Question]", list(self.items))

    @property
    def steps(self) -> int:
        """What progress counts: windows or questions."""
        return sum(len(item.windows) if isinstance(item, TextItem) else 1 for item in self.items)

    def measure(self, engine: Engine, reference: Engine | None, progress: Progress) -> Measurement:
        """The task on a model.

        Args:
            engine: the model under test.
            reference: the model that it is compared with, for a divergence.
            progress: called with the windows or questions that are done, and how many there are.

        Raises:
            DataError: if the tokenizer lacks what the recipe needs.
            ValueError: if the model's numbers are not finite, or the engine leaves something out.
        """
        chosen, total = metric(self.task.metric), self.steps
        evaluator = evaluators(self.task.recipe)[chosen.items]
        items = evaluator(self, engine, reference, lambda done: progress(done, total))
        given = {} if self.size is None else {"bytes": float(self.size)}
        return Measurement(value=chosen.value(items), details=chosen.details(items, given), items=items)


Done = Callable[[int], None]
Evaluator = Callable[[Prepared, Engine, Engine | None, Done], Any]


def _perplexities(prepared: Prepared, engine: Engine, reference: Engine | None, done: Done) -> Perplexities:
    return score_text(engine, prepared.texts, progress=done)


def _divergences(prepared: Prepared, engine: Engine, reference: Engine | None, done: Done) -> Divergences:
    assert reference is not None
    return drift(reference, engine, prepared.texts, progress=done)


def _choices(prepared: Prepared, engine: Engine, reference: Engine | None, done: Done) -> Choices:
    return multiple_choice.choices(engine, prepared.tokenizer, prepared.questions, progress=done)


def _letters(prepared: Prepared, engine: Engine, reference: Engine | None, done: Done) -> Choices:
    recipe = cast(LettersRecipe, prepared.task.recipe)
    options: dict[str, Any] = {"letters": recipe.letters, "progress": done}
    if recipe.answered_by == "likelihood":
        return multiple_choice.choices(engine, prepared.tokenizer, prepared.questions, **options)
    options["max_new_tokens"] = recipe.max_new_tokens
    return multiple_choice.written(engine, prepared.tokenizer, prepared.questions, **options)


def _truths(prepared: Prepared, engine: Engine, reference: Engine | None, done: Done) -> Truths:
    return multiple_choice.truths(engine, prepared.tokenizer, prepared.questions, progress=done)


def _continued(prepared: Prepared, engine: Engine, reference: Engine | None, done: Done) -> Perplexities:
    return continuation.perplexities(engine, prepared.tokenizer, prepared.questions, progress=done)


def _matches(prepared: Prepared, engine: Engine, reference: Engine | None, done: Done) -> Matches:
    return continuation.matches(engine, prepared.tokenizer, prepared.questions, progress=done)


_TEXT: dict[type, Evaluator] = {Perplexities: _perplexities, Divergences: _divergences}
_EVALUATORS: dict[type[Recipe], dict[type, Evaluator]] = {
    Windows: _TEXT,
    Rows: _TEXT,
    Documents: _TEXT,
    ChoicesRecipe: {Choices: _choices, Truths: _truths},
    LettersRecipe: {Choices: _letters},
    ContinuationRecipe: {Perplexities: _continued, Matches: _matches},
}


def evaluators(recipe: Recipe) -> dict[type, Evaluator]:
    """What a recipe can yield, by the type of the items that a metric takes."""
    found = _EVALUATORS[type(recipe)]
    if isinstance(recipe, ChoicesRecipe):
        given = {Choices: recipe.answer, Truths: recipe.truths}
        return {items: evaluator for items, evaluator in found.items() if given[items]}
    return found


def prepare(task: Task, tokenizer: PreTrainedTokenizerBase, sources: Sources, max_length: int) -> Prepared:
    """A task with its data loaded.

    Args:
        task: whose data it is.
        tokenizer: of the model.
        sources: where data comes from, and how much of it is used.
        max_length: of the model's context, for recipes that fill it.

    Raises:
        MissingDataError: if the dataset is not to be had.
        DataError: if it is not what the recipe needs.
        ValueError: if the limit is negative.
    """
    if isinstance(task.recipe, TextRecipe):
        return _prepare_text(task, task.recipe, tokenizer, sources, max_length)
    return _prepare_questions(task, task.recipe, tokenizer, sources)


def _dataset(task: Task, digest: str, count: int, sources: Sources) -> Dataset:
    return Dataset(name=task.dataset.name, sha256=digest, items=count, limit=sources.limit, seed=sources.seed)


def _prepare_text(
    task: Task, recipe: TextRecipe, tokenizer: PreTrainedTokenizerBase, sources: Sources, max_length: int
) -> Prepared:
    items, size = text_items(task.dataset, recipe, tokenizer, sources, max_length)
    return Prepared(
        task=task,
        tokenizer=tokenizer,
        dataset=_dataset(task, hashlib.sha256(msgspec.json.encode(items)).hexdigest(), len(items), sources),
        longest=max((len(window.tokens) - 1 for item in items for window in item.windows), default=0),
        items=items,
        size=size,
    )


def _prepare_questions(
    task: Task, recipe: QuestionRecipe, tokenizer: PreTrainedTokenizerBase, sources: Sources
) -> Prepared:
    questions = ask(task.dataset, recipe, task.shots, sources)
    return Prepared(
        task=task,
        tokenizer=tokenizer,
        dataset=_dataset(task, fingerprint(recipe, questions), len(questions), sources),
        longest=_longest(tokenizer, recipe, questions),
        items=questions,
    )


def _longest(tokenizer: PreTrainedTokenizerBase, recipe: QuestionRecipe, questions: Sequence[Question]) -> int:
    """Tokens that are read of the question with the most characters; the last one is only predicted."""
    most = max(questions, key=lambda question: len(question.prompt) + max(map(len, question.continuations)))
    if isinstance(recipe, LettersRecipe) and recipe.answered_by == "writing":
        return len(tokenizer(most.prompt, verbose=False)["input_ids"]) + recipe.max_new_tokens - 1
    return max(len(choice.tokens) - 1 for choice in encode(tokenizer, [most])[0])
