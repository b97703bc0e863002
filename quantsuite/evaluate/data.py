"""The texts and questions of the embedded world, and texts of rows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from quantsuite.tiny.world import Question, World

WORLD_SEED = 0
WORLD_DOCUMENTS = 240
WORLD_QUESTIONS = 125
_WORLD_TEXT_SEED, _WORLD_QUESTION_SEED = 1_000_001, 1_000_002


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text, with its information in bits where the source's probabilities are known."""

    text: str
    bits: float | None = None


def raw_text(rows: Sequence[str]) -> str:
    """The raw file: rows hold their line ends, and an empty row stands for the line `` \\n``."""
    return "".join(row or " \n" for row in rows)


def pages(rows: Sequence[str]) -> list[str]:
    """The raw file split before each `` = Title = `` heading; text before the first belongs to it."""
    text = raw_text(rows)
    starts = [match.start() for match in re.finditer(r"^ = [^=\n](?:[^\n]*[^=\n])? = \n", text, re.MULTILINE)]
    edges = [0, *starts[1:], len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@cache
def world_documents() -> list[dict[str, Any]]:
    """The embedded world's test text, drawn from other seeds than training saw: rows of ``text`` and ``bits``."""
    documents = World(WORLD_SEED).documents(WORLD_DOCUMENTS, _WORLD_TEXT_SEED)
    return [{"text": document.text, "bits": document.bits} for document in documents]


@cache
def world_questions() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Solved examples, and the test: eight subjects, 125 distinct facts each; rows of MMLU's columns."""
    dev, test = World(WORLD_SEED).examination(WORLD_QUESTIONS, _WORLD_QUESTION_SEED)
    return [question_row(question) for question in dev], [question_row(question) for question in test]


def question_row(question: Question) -> dict[str, Any]:
    """A question of the world as a row of MMLU's columns."""
    return {
        "subject": question.subject,
        "question": question.question,
        "choices": list(question.choices),
        "answer": question.answer,
    }
