"""Where a prompt ends and its continuation begins, in tokens."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from quantsuite.evaluate.questions import Encoded, Question, encode
from quantsuite.tiny import embedded_folder


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(embedded_folder())


def encoded(tokenizer: PreTrainedTokenizerBase, prompt: str, continuation: str) -> Encoded:
    ((found,),) = encode(tokenizer, [Question(group="", prompt=prompt, continuations=(continuation,))])
    return found


def test_white_space_at_a_prompts_end_belongs_to_the_continuation(tokenizer: PreTrainedTokenizerBase) -> None:
    moved = encoded(tokenizer, "The lake ", "is cold")
    assert moved == encoded(tokenizer, "The lake", " is cold")
    assert tokenizer.decode(moved.continuation) == " is cold"


def test_an_empty_prompt_is_the_start_token(tokenizer: PreTrainedTokenizerBase) -> None:
    found = encoded(tokenizer, "", "The lake")
    assert found.first == 1 and found.tokens[0] == tokenizer.eos_token_id
    assert tokenizer.decode(found.continuation) == "The lake"
