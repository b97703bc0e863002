"""How a text becomes windows of tokens, which targets count, what the mean is over."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from quantsuite.evaluate.data import Document
from quantsuite.evaluate.reading import DataError


@dataclass(frozen=True, kw_only=True)
class Window:
    """Token ids, and the position from which on tokens are scored."""

    tokens: tuple[int, ...]
    first: int


@dataclass(frozen=True, kw_only=True)
class TextItem:
    """One outcome of a perplexity: its windows, what the mean counts in it, its information if known."""

    windows: tuple[Window, ...]
    units: int
    bits: float | None = None

    @property
    def targets(self) -> int:
        return sum(len(window.tokens) - window.first for window in self.windows)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> list[int]:
    return tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]


def disjoint(
    tokenizer: PreTrainedTokenizerBase, text: str, *, size: int, first: int = 1, start: bool = False
) -> list[TextItem]:
    """Disjoint windows of a text that is tokenized once; what does not fill the last one is left out.

    Args:
        tokenizer: of the model.
        text: all of it.
        size: of a window in tokens.
        first: position in each window from which on tokens are scored.
        start: whether a tokenizer that adds a start token puts it over the first token of each window.

    Raises:
        DataError: if the text does not fill one window.
    """
    ids = _ids(tokenizer, text, special=True)
    replaces = start and tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    items = []
    for begin in range(0, len(ids) - size + 1, size):
        tokens = ids[begin : begin + size]
        if replaces:
            tokens[0] = tokenizer.bos_token_id
        items.append(TextItem(windows=(Window(tokens=tuple(tokens), first=first),), units=size - first))
    if not items:
        raise DataError(f"the text has {len(ids)} tokens, less than one window of {size}; use a recipe with less")
    return items


def rows_alone(tokenizer: PreTrainedTokenizerBase, rows: Sequence[str]) -> list[TextItem]:
    """Each row a sequence of its own from its second token on; blank ones are left out."""
    sequences = (_ids(tokenizer, row, special=True) for row in rows if row.strip())
    return [
        TextItem(windows=(Window(tokens=tuple(ids), first=1),), units=len(ids) - 1) for ids in sequences if len(ids) > 1
    ]


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token before a document: BOS, else EOS.

    Raises:
        DataError: if the tokenizer has neither.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise DataError(
        "the tokenizer has neither a BOS nor an EOS token, with which a document or an empty prompt starts; "
        "set one in tokenizer_config.json or choose a window recipe"
    )


def rolling(tokens: Sequence[int], start: int, length: int) -> Iterator[Window]:
    """Windows that score every token once, reading at most ``length`` tokens.

    The first window reads the start token and scores ``length`` tokens; each further one reads the
    last token scored and scores the next ``length``; the last one is moved back so that it is full,
    and scores only what is left.
    """
    padded = (start, *tokens)
    for begin in range(0, len(tokens), length):
        end = min(begin + length, len(tokens))
        left = max(0, end - length) if begin else 0
        yield Window(tokens=padded[left : end + 1], first=begin - left + 1)


def document_items(
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    *,
    max_length: int,
    clean: Callable[[str], str] = lambda text: text,
    units: Callable[[str, int], int],
) -> list[TextItem]:
    """One item a document, its tokens scored once each.

    Args:
        tokenizer: of the model.
        documents: texts.
        max_length: the model's context in tokens.
        clean: applied to the text before it is tokenized.
        units: of the original text and its number of tokens, what the mean counts.
    """
    start = start_token(tokenizer)
    items = []
    for document in documents:
        ids = _ids(tokenizer, clean(document.text), special=False)
        if ids:
            windows = tuple(rolling(ids, start, max_length))
            items.append(TextItem(windows=windows, units=units(document.text, len(ids)), bits=document.bits))
    return items


def count_words(text: str) -> int:
    """Pieces between white space, as the harness counts them: empty ones at the ends included."""
    return len(re.split(r"\s+", text))
