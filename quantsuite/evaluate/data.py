"""The texts and questions that evaluators score: WikiText-2, MMLU, and the embedded world's."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from quantsuite.evaluate.reading import DataError, MissingDataError, read_rows
from quantsuite.prompts import LETTERS
from quantsuite.tiny.world import Question, World

__all__ = [
    "DataError",
    "Document",
    "Examination",
    "MissingDataError",
    "mmlu",
    "pages",
    "raw_text",
    "wikitext_rows",
    "world_documents",
    "world_examination",
]

WIKITEXT_HUB = "Salesforce/wikitext"
MMLU_HUB = "cais/mmlu"
SHOTS = 5
WORLD_SEED = 0
WORLD_DOCUMENTS = 240
WORLD_QUESTIONS = 125
_WORLD_TEXT_SEED, _WORLD_QUESTION_SEED = 1_000_001, 1_000_002


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


@cache
def wikitext_rows(location: str = WIKITEXT_HUB) -> tuple[str, ...]:
    """The rows of WikiText-2 raw, test split.

    Args:
        location: a hub id, or the folder of a local copy.

    Raises:
        MissingDataError: if it cannot be loaded.
        DataError: if it has no column ``text``, a row that is no text, or no text at all.
    """
    rows = [row["text"] for row in read_rows(location, "wikitext-2-raw-v1", "test", ["text"])]
    for number, text in enumerate(rows):
        if not isinstance(text, str):
            raise DataError(f"{location!r}, split 'test', row {number}: {text!r} is no text; the recipe needs strings")
    if not any(text.strip() for text in rows):
        raise DataError(f"{location!r}, split 'test': all {len(rows)} rows are empty; the recipe needs text")
    return tuple(rows)


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


def _question(row: dict[str, Any], place: str) -> Question:
    """A row as a question.

    Raises:
        DataError: naming the place and what is no question, subject, four choices, or answer.
    """
    for name in ("question", "subject"):
        if not isinstance(row[name], str) or not row[name].strip():
            raise DataError(f"{place}: {name} {row[name]!r} is no text; the recipe needs a string that is not empty")
    choices, answer = row["choices"], row["answer"]
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise DataError(
            f"{place} ({row['subject']}): choices {choices!r} are no texts; the recipe needs {len(LETTERS)}"
        )
    if not isinstance(answer, int) or isinstance(answer, bool):
        raise DataError(
            f"{place} ({row['subject']}): answer {answer!r} is no integer; "
            f"the recipe needs one from 0 to {len(LETTERS) - 1}"
        )
    if len(choices) != len(LETTERS) or not 0 <= answer < len(LETTERS):
        raise DataError(
            f"{place} ({row['subject']}): {row['question'][:40]!r} has {len(choices)} choices and answer {answer}; "
            f"the recipe needs {len(LETTERS)} choices and an answer from 0 to {len(LETTERS) - 1}"
        )
    return Question(subject=row["subject"], question=row["question"], choices=tuple(choices), answer=answer)


@cache
def mmlu(location: str = MMLU_HUB) -> Examination:
    """MMLU: the dev split's first five examples of each subject, and the test split's questions.

    Raises:
        MissingDataError: if it cannot be loaded.
        DataError: if columns are missing, a row is no question with four choices, or a subject has too few examples.
    """
    columns = ["question", "subject", "choices", "answer"]
    dev, test = (
        [
            _question(row, f"{location!r}, split {split!r}, row {number}")
            for number, row in enumerate(read_rows(location, "all", split, columns))
        ]
        for split in ("dev", "test")
    )
    examples: dict[str, tuple[Question, ...]] = {}
    for question in dev:
        examples[question.subject] = (*examples.get(question.subject, ()), question)[:SHOTS]
    for subject in sorted({question.subject for question in test}):
        if len(found := examples.get(subject, ())) < SHOTS:
            count = f"only {len(found)}" if found else "no"
            raise DataError(f"{location!r}: {count} examples in dev for {subject}; the recipe needs {SHOTS}")
    return Examination(name="mmlu", examples=examples, questions=tuple(test))


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
