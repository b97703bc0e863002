"""Continuations are tokenized once, and their likelihoods are those of multiple choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from quantsuite.adapters.loading import load_model
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.evaluate.continuation import perplexities
from quantsuite.evaluate.multiple_choice import score
from quantsuite.evaluate.questions import Question
from quantsuite.tiny import embedded_folder

QUESTIONS = [Question(group=group, prompt=f"{group} is", continuations=(" a place",)) for group in ("one", "two")]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(embedded_folder())


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine(load_model("tiny", dtype="fp32").model)


def test_each_text_is_tokenized_once(engine: TransformersEngine, tokenizer: PreTrainedTokenizerBase) -> None:
    seen: Counter[str] = Counter()

    def counted(texts: Sequence[str], **options: object) -> object:
        seen.update(texts)
        return tokenizer(texts, **options)

    perplexities(engine, counted, QUESTIONS)
    assert seen == Counter(["one is", "one is a place", "two is", "two is a place"])


def test_progress_counts_the_questions_of_all_groups(
    engine: TransformersEngine, tokenizer: PreTrainedTokenizerBase
) -> None:
    shown: list[int] = []
    perplexities(engine, tokenizer, QUESTIONS, progress=shown.append)
    assert shown == [1, 2]


def test_nats_are_those_of_the_only_choice(engine: TransformersEngine, tokenizer: PreTrainedTokenizerBase) -> None:
    expected = [-total for (total,) in score(engine, tokenizer, QUESTIONS)]
    assert perplexities(engine, tokenizer, QUESTIONS).nats == expected
