"""The texts and questions that evaluators score: WikiText-2, MMLU, and the embedded world's."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from quantsuite.prompts import LETTERS
from quantsuite.tiny.world import Question, World

if TYPE_CHECKING:
    import datasets

WIKITEXT_HUB = "Salesforce/wikitext"
MMLU_HUB = "cais/mmlu"
WORLD_SEED = 0
WORLD_DOCUMENTS = 240
WORLD_QUESTIONS = 125
_WORLD_TEXT_SEED, _WORLD_QUESTION_SEED = 1_000_001, 1_000_002


class DataError(ValueError):
    """A dataset that cannot be read or has not the columns that a recipe needs."""


class MissingDataError(DataError):
    """A dataset that is not to be had here; the message says how to get it."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text, with its information in bits where the source's probabilities are known."""

    text: str
    bits: float | None = None


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Few-shot examples by subject, and the questions of a test."""

    name: str
    examples: dict[str, tuple[Question, ...]]
    questions: tuple[Question, ...]

    def draw(self, limit: int, seed: int) -> Examination:
        """``limit`` questions drawn without replacement, in the test's order; all if 0.

        Raises:
            ValueError: if ``limit`` is negative.
        """
        if limit < 0:
            raise ValueError(f"limit {limit} is negative; use 0 for all {len(self.questions):,} questions")
        if limit == 0 or limit >= len(self.questions):
            return self
        picked = sorted(random.Random(seed).sample(range(len(self.questions)), limit))
        return Examination(name=self.name, examples=self.examples, questions=tuple(self.questions[i] for i in picked))


def _load(location: str, config: str, split: str, columns: Sequence[str]) -> datasets.Dataset:
    import datasets

    try:
        dataset = datasets.load_dataset(location, config, split=split)
    except (OSError, ValueError, ConnectionError) as error:
        raise MissingDataError(
            f"cannot load {config!r}, split {split!r}, from {location!r}: {str(error).splitlines()[0]}  "
            "Give the hub id, where the hub can be reached, or the folder of a local copy of the dataset"
        ) from error
    if missing := [column for column in columns if column not in dataset.column_names]:
        raise DataError(
            f"{location!r} has columns {', '.join(dataset.column_names)} and lacks {', '.join(missing)}; "
            f"a recipe for it needs {', '.join(columns)}"
        )
    if len(dataset) == 0:
        raise DataError(f"{location!r}, split {split!r}, is empty")
    return dataset


@cache
def wikitext_rows(location: str = WIKITEXT_HUB) -> tuple[str, ...]:
    """The rows of WikiText-2 raw, test split.

    Args:
        location: a hub id, or the folder of a local copy.

    Raises:
        MissingDataError: if it cannot be loaded.
        DataError: if it has no column ``text``.
    """
    return tuple(_load(location, "wikitext-2-raw-v1", "test", ["text"])["text"])


def raw_text(rows: Sequence[str]) -> str:
    """The raw file: rows hold their line ends, and an empty row stands for the line `` \\n``."""
    return "".join(row or " \n" for row in rows)


def pages(rows: Sequence[str]) -> tuple[Document, ...]:
    """The raw file split before each `` = Title = `` heading; text before the first belongs to it."""
    starts = [match.start() for match in re.finditer(r"^ = [^=\n](?:[^\n]*[^=\n])? = \n", raw_text(rows), re.MULTILINE)]
    text = raw_text(rows)
    if not starts:
        return (Document(text=text),)
    edges = [0, *starts[1:], len(text)]
    return tuple(Document(text=text[a:b]) for a, b in itertools.pairwise(edges))


@cache
def mmlu(location: str = MMLU_HUB) -> Examination:
    """MMLU: the dev split's examples and the test split's questions.

    Raises:
        MissingDataError: if it cannot be loaded.
        DataError: if columns are missing, a question has not four choices, or a subject no examples.
    """
    columns = ["question", "subject", "choices", "answer"]
    dev, test = (
        tuple(
            Question(
                subject=row["subject"], question=row["question"], choices=tuple(row["choices"]), answer=row["answer"]
            )
            for row in _load(location, "all", split, columns)
        )
        for split in ("dev", "test")
    )
    examples: dict[str, tuple[Question, ...]] = {}
    for question in dev:
        examples[question.subject] = (*examples.get(question.subject, ()), question)
    for question in (*dev, *test):
        if len(question.choices) != len(LETTERS) or not 0 <= question.answer < len(LETTERS):
            raise DataError(
                f"{location!r}: {question.question[:40]!r} has {len(question.choices)} choices and answer "
                f"{question.answer}; the recipe needs {len(LETTERS)} choices and an answer from 0 to {len(LETTERS) - 1}"
            )
    if unknown := sorted({question.subject for question in test} - set(examples)):
        raise DataError(f"{location!r}: no examples in dev for {', '.join(unknown)}; the recipe is five-shot")
    return Examination(name="mmlu", examples=examples, questions=test)


@cache
def world_documents() -> tuple[Document, ...]:
    """The embedded world's test text, drawn from other seeds than training saw."""
    documents = World(WORLD_SEED).documents(WORLD_DOCUMENTS, _WORLD_TEXT_SEED)
    return tuple(Document(text=document.text, bits=document.bits) for document in documents)


@cache
def world_examination() -> Examination:
    """The embedded world's five-shot test: eight subjects, 125 distinct facts each."""
    dev, test = World(WORLD_SEED).examination(WORLD_QUESTIONS, _WORLD_QUESTION_SEED)
    examples = {s: tuple(q for q in dev if q.subject == s) for s in {q.subject: None for q in dev}}
    return Examination(name="world-mmlu", examples=examples, questions=tuple(test))
