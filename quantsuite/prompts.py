"""The prompt of MMLU, five-shot, as Hendrycks et al. (2021) give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

LETTERS = "ABCD"


class MultipleChoice(Protocol):
    """What a question must carry: MMLU's four columns; ``answer`` indexes ``choices``."""

    @property
    def subject(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def choices(self) -> Sequence[str]: ...
    @property
    def answer(self) -> int: ...


def mmlu_question(item: MultipleChoice) -> str:
    """The question with its lettered choices, ending in ``Answer:`` with no space."""
    lines = [
        item.question.strip(),
        *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, item.choices, strict=True)),
    ]
    return "\n".join([*lines, "Answer:"])


def mmlu_example(item: MultipleChoice) -> str:
    """A solved question, with the blank line that separates it from the next."""
    return f"{mmlu_question(item)} {LETTERS[item.answer]}\n\n"


def mmlu_prefix(subject: str, examples: Sequence[MultipleChoice]) -> str:
    """What every question of a subject shares: the heading and the solved examples."""
    heading = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    return heading + "".join(mmlu_example(example) for example in examples)
