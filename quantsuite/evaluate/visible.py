"""Which tokens are something to see."""

from __future__ import annotations

from functools import lru_cache

from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What a part of a character's bytes decodes to: the character is seen once all of them are there."""


@lru_cache(maxsize=4)
def visible_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the tokens whose text has a character that is neither white space nor a part of one."""
    texts = (tokenizer.decode([token]) for token in range(len(tokenizer)))
    return frozenset(token for token, text in enumerate(texts) if text.replace(REPLACEMENT, "").strip())
