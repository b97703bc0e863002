"""Which tokens can be seen, and that the first of them decides an answer."""

from __future__ import annotations

import os
import random

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from quantsuite.evaluate.multiple_choice import MAX_NEW_TOKENS, parse_answer
from quantsuite.evaluate.visible import REPLACEMENT, visible_tokens
from quantsuite.tiny import embedded_folder


@pytest.fixture(scope="module", params=["embedded", "QUANTSUITE_TOKENIZER"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    folder = embedded_folder() if request.param == "embedded" else os.environ.get(request.param)
    if not folder:
        pytest.skip("no local tokenizer: set QUANTSUITE_TOKENIZER to the folder of one")
    return AutoTokenizer.from_pretrained(folder)


def test_white_space_and_parts_of_characters_cannot_be_seen(tokenizer: PreTrainedTokenizerBase) -> None:
    hidden = {tokenizer.decode([token]) for token in set(range(len(tokenizer))) - visible_tokens(tokenizer)}
    assert hidden and all(not text.strip() or set(text.strip()) == {REPLACEMENT} for text in hidden)


def test_letters_can_be_seen(tokenizer: PreTrainedTokenizerBase) -> None:
    assert {tokenizer(text)["input_ids"][-1] for text in ("A", " A", "\nB", "Answer")} <= visible_tokens(tokenizer)


def decided(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> bool:
    """Whether the first character that is not white space stands fast."""
    text = tokenizer.decode(tokens).strip()
    return bool(text) and not text.startswith(REPLACEMENT)


def test_what_follows_the_first_token_to_see_does_not_change_an_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Against decoding the text so far at each token; half of the tokens drawn are ones that cannot be seen."""
    draw, visible = random.Random(0), visible_tokens(tokenizer)
    hidden = sorted(set(range(len(tokenizer))) - visible)
    letters = [tokenizer(text)["input_ids"][-1] for text in ("A", " B", "c", " D")]
    answers = set()
    for _ in range(5000):
        pools = draw.choices([hidden, letters, range(len(tokenizer))], weights=[2, 1, 1], k=MAX_NEW_TOKENS)
        tokens = [draw.choice(pool) for pool in pools]
        ends = (
            next((n for n in range(1, 5) if decided(tokenizer, tokens[:n])), 4),
            next((n for n in range(1, 5) if tokens[n - 1] in visible), 4),
        )
        by_text, by_token = (parse_answer(tokenizer.decode(tokens[:n])) for n in ends)
        assert by_text == by_token, tokens
        answers.add(by_token)
    assert answers == {-1, 0, 1, 2, 3}
