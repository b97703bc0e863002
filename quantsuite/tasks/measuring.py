"""A task with its data loaded, and what measures it: which items a recipe yields, and by which evaluator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import msgspec
from transformers import PreTrainedTokenizerBase

from quantsuite.checks.in_place import Execute
from quantsuite.engine import Engine
from quantsuite.evaluate import continuation, multiple_choice
from quantsuite.evaluate.drift import divergences, drift, perplexities, token_drift
from quantsuite.evaluate.engines import OneByOne
from quantsuite.evaluate.layers import check_layers
from quantsuite.evaluate.perplexity import score_text
from quantsuite.evaluate.questions import Question, encode
from quantsuite.evaluate.windows import TextItem
from quantsuite.in_place import Placed
from quantsuite.metrics import Choices, Divergences, Items, Layers, Matches, Perplexities, Truths, metric
from quantsuite.records import Dataset
from quantsuite.tasks.datasets import Source
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

Against = Literal["reference", "simulated"]
"""What a divergence is from."""

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a task yields: the metric's value, further numbers, and the outcome of every item."""

    value: float
    details: dict[str, float]
    items: Items


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An engine, and what its measurements may need beside it.

    Args:
        engine: the model under test.
        reference: the model as it is, or that which a divergence is from.
        is_reference: whether both are one model, whose divergence is the noise floor.
        matrices: of the model, for checks of its layers.
        how: the model was to be executed.
    """

    engine: Engine
    reference: Engine | None = None
    is_reference: bool = False
    matrices: Sequence[Placed] = ()
    how: Execute | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A task with its data loaded.

    Args:
        recipe: that made the items.
        metric: the name of what is measured of them.
        tokenizer: of the model.
        dataset: what identifies the items.
        longest: the most tokens that are read at once; of questions, of the one that has the most characters.
        items: what is measured: windows of text, or questions.
        size: of the text in bytes, where it is known.
        against: what a divergence is from.
    """

    recipe: Recipe
    metric: str
    tokenizer: PreTrainedTokenizerBase
    dataset: Dataset
    longest: int
    items: Sequence[TextItem | Question]
    size: int | None = None
    against: Against = "reference"

    @property
    def texts(self) -> list[TextItem]:
        return cast("list[TextItem]", list(self.items))

    @property
    def questions(self) -> list[Question]:
        return cast("list[Question]", list(self.items))

    @property
    def steps(self) -> int:
        """What progress counts of all but layers: windows or questions."""
        return sum(len(item.windows) if isinstance(item, TextItem) else 1 for item in self.items)

    @property
    def evaluator(self) -> Evaluator:
        """What yields the metric's items."""
        return evaluators(self.recipe)[metric(self.metric).items]

    def yields_as(self, other: Prepared) -> bool:
        """Whether what an engine yields on the other is what it yields on this, whatever the metric makes of it."""
        ours, theirs = ((each.evaluator, each.against) for each in (self, other))
        return ours == theirs and self.reads_as(other)

    def reads_as(self, other: Prepared) -> bool:
        """Whether both read the same tokens, whatever they take from a model's predictions of them."""
        return (self.recipe, self.items) == (other.recipe, other.items)

    def evaluate(self, opened: Opened, progress: Progress) -> Items:
        """The outcomes of the task's items on a model.  Arguments and errors of :meth:`measure`."""
        total = len(opened.matrices) or self.steps
        return self.evaluator(self, opened, lambda done: progress(done, total))

    def evaluate_with_drift(self, opened: Opened, progress: Progress) -> tuple[Perplexities, Divergences]:
        """Likelihoods of the task's texts and their divergences, of one pass.  Errors of :meth:`measure`."""
        assert opened.reference is not None
        total, texts = self.steps, self.texts
        found = token_drift(opened.reference, opened.engine, texts, progress=lambda done: progress(done, total))
        return perplexities(found, opened.engine, texts), divergences(found)

    def summarize(self, items: Items) -> Measurement:
        """What the metric makes of the outcomes of the task's items."""
        chosen, given = metric(self.metric), {} if self.size is None else {"bytes": float(self.size)}
        return Measurement(value=chosen.value(items), details=chosen.details(items, given), items=items)

    def measure(self, opened: Opened, progress: Progress) -> Measurement:
        """The task on a model.

        Args:
            opened: the model under test.
            progress: called with the windows, questions or matrices that are done, and how many there are.

        Raises:
            DataError: if the tokenizer lacks what the recipe needs.
            ValueError: if the model's numbers are not finite, or the engine leaves something out.
        """
        return self.summarize(self.evaluate(opened, progress))


Done = Callable[[int], None]
Evaluator = Callable[[Prepared, Opened, Done], Any]


def _perplexities(prepared: Prepared, opened: Opened, done: Done) -> Perplexities:
    return score_text(opened.engine, prepared.texts, progress=done)


def _divergences(prepared: Prepared, opened: Opened, done: Done) -> Divergences:
    assert opened.reference is not None
    engine = OneByOne(opened.engine) if opened.is_reference else opened.engine
    return drift(opened.reference, engine, prepared.texts, progress=done)


def _layers(prepared: Prepared, opened: Opened, done: Done) -> Layers:
    assert opened.how is not None
    tokens = [token for item in prepared.texts for window in item.windows for token in window.tokens]
    return check_layers(opened.engine, opened.matrices, tokens, opened.how, reference=opened.reference, progress=done)


def _choices(prepared: Prepared, opened: Opened, done: Done) -> Choices:
    return multiple_choice.choices(opened.engine, prepared.tokenizer, prepared.questions, progress=done)


def _letters(prepared: Prepared, opened: Opened, done: Done) -> Choices:
    recipe = cast(LettersRecipe, prepared.recipe)
    options: dict[str, Any] = {"letters": recipe.letters, "progress": done}
    if recipe.answered_by == "likelihood":
        return multiple_choice.choices(opened.engine, prepared.tokenizer, prepared.questions, **options)
    options["max_new_tokens"] = recipe.max_new_tokens
    return multiple_choice.written(opened.engine, prepared.tokenizer, prepared.questions, **options)


def _truths(prepared: Prepared, opened: Opened, done: Done) -> Truths:
    return multiple_choice.truths(opened.engine, prepared.tokenizer, prepared.questions, progress=done)


def _continued(prepared: Prepared, opened: Opened, done: Done) -> Perplexities:
    return continuation.perplexities(opened.engine, prepared.tokenizer, prepared.questions, progress=done)


def _matches(prepared: Prepared, opened: Opened, done: Done) -> Matches:
    return continuation.matches(opened.engine, prepared.tokenizer, prepared.questions, progress=done)


_TEXT: dict[type, Evaluator] = {Perplexities: _perplexities, Divergences: _divergences, Layers: _layers}
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


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a task takes to load its data.

    Args:
        source: of its rows.
        recipe: what is made of them.
        metric: the name of what is measured.
        shots: solved examples before each question.
        against: what a divergence is from.
        tokenizer: of the model.
        sources: where data comes from, and how much of it is used.
        max_length: of the model's context, for recipes that fill it.
    """

    source: Source
    recipe: Recipe
    metric: str
    shots: int
    against: Against
    tokenizer: PreTrainedTokenizerBase
    sources: Sources
    max_length: int

    def prepare(self) -> Prepared:
        """The task with its data loaded.

        Raises:
            MissingDataError: if the dataset is not to be had.
            DataError: if it is not what the recipe needs.
            ValueError: if the limit is negative.
        """
        if isinstance(self.recipe, TextRecipe):
            return self._texts(self.recipe)
        return self._questions(self.recipe)

    def _texts(self, recipe: TextRecipe) -> Prepared:
        items, size = text_items(self.source, recipe, self.tokenizer, self.sources, self.max_length)
        longest = max((len(window.tokens) - 1 for item in items for window in item.windows), default=0)
        digest = hashlib.sha256(msgspec.json.encode(items)).hexdigest()
        return self._prepared(digest, longest, items, size)

    def _questions(self, recipe: QuestionRecipe) -> Prepared:
        questions = ask(self.source, recipe, self.shots, self.sources)
        return self._prepared(fingerprint(recipe, questions), _longest(self.tokenizer, recipe, questions), questions)

    def _prepared(
        self, digest: str, longest: int, items: Sequence[TextItem | Question], size: int | None = None
    ) -> Prepared:
        sources = self.sources
        dataset = Dataset(
            name=self.source.name, sha256=digest, items=len(items), limit=sources.limit, seed=sources.seed
        )
        return Prepared(
            recipe=self.recipe,
            metric=self.metric,
            tokenizer=self.tokenizer,
            dataset=dataset,
            longest=longest,
            items=items,
            size=size,
            against=self.against,
        )


def _longest(tokenizer: PreTrainedTokenizerBase, recipe: QuestionRecipe, questions: Sequence[Question]) -> int:
    """Tokens that are read of the question with the most characters; the last one is only predicted."""
    most = max(questions, key=lambda question: len(question.prompt) + max(map(len, question.continuations)))
    if isinstance(recipe, LettersRecipe) and recipe.answered_by == "writing":
        return len(tokenizer(most.prompt, verbose=False)["input_ids"]) + recipe.max_new_tokens - 1
    return max(len(choice.tokens) - 1 for choice in encode(tokenizer, [most])[0])
