"""Questions as models are asked them: prompts with their continuations, as text and as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from quantsuite.evaluate.reading import DataError
from quantsuite.evaluate.windows import start_token


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt, and the texts that may stand after it.

    Args:
        group: such as a subject.
        prompt: all that the model reads before a continuation.
        continuations: each with the space that it begins with.
        answer: index of the right one; ``None`` where several are, or none is asked for.
        truths: of each continuation whether it is right, where several may be.
        lengths: characters of each choice, without the space before it.
    """

    group: str
    prompt: str
    continuations: tuple[str, ...]
    answer: int | None = None
    truths: tuple[bool, ...] | None = None
    lengths: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A sequence whose tokens from ``first`` on belong to a continuation."""

    tokens: tuple[int, ...]
    first: int

    @property
    def continuation(self) -> tuple[int, ...]:
        return self.tokens[self.first :]


def _split_at_spaces(question: Question) -> tuple[str, list[str]]:
    """The prompt without white space at its end, which moves to the continuations."""
    prompt = question.prompt.rstrip()
    space = question.prompt[len(prompt) :]
    return prompt, [space + each for each in question.continuations]


def encode(tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]) -> list[list[Encoded]]:
    """Prompt and continuation tokenized together, then sliced where the prompt alone ends: ``[question][choice]``.

    White space at a prompt's end belongs to the continuation; an empty prompt is the tokenizer's start token.

    Raises:
        DataError: if a continuation becomes no token, or a prompt is empty and there is no start token.
    """
    split = [_split_at_spaces(question) for question in questions]
    prompts = tokenizer([prompt for prompt, _ in split], verbose=False)["input_ids"]
    texts = [prompt + each for prompt, continuations in split for each in continuations]
    wholes = iter(tokenizer(texts, verbose=False)["input_ids"])
    return [
        [
            _sliced(tokenizer, prompt, tokens, next(wholes), continuation)
            for continuation in continuations
        ]
        for (prompt, continuations), tokens in zip(split, prompts, strict=True)
    ]  # fmt: skip


def _sliced(
    tokenizer: PreTrainedTokenizerBase, prompt: str, context: list[int], whole: list[int], continuation: str
) -> Encoded:
    if not prompt:
        start = start_token(tokenizer)
        context, whole = [start], [start, *(whole[1:] if whole[:1] == [start] else whole)]
    if len(whole) <= len(context):
        raise DataError(f"the tokenizer turns {continuation!r} after {prompt[-40:]!r} into no token of its own")
    return Encoded(tokens=tuple(whole), first=len(context))
