"""Perplexity recipes: how a text becomes windows of tokens, which targets count, what the mean is over.

========================  ===========================================================================
``window2048``            disjoint windows of 2,048 tokens, tail dropped; as GPTQ, AWQ, SmoothQuant report
``chunk512``              disjoint 512 tokens, targets of the second half; as llama.cpp's ``perplexity``
``head100``               the first 100 rows, each a sequence of its own
``document``              rolling windows over each document; as lm-evaluation-harness's ``wikitext``
========================  ===========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from quantsuite.evaluate.data import DataError, Document, raw_text


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


def _disjoint(ids: Sequence[int], size: int, first: int, start: int | None = None) -> list[TextItem]:
    """Windows of ``size`` tokens scored from ``first``; ``start`` replaces the first token of each."""
    items = []
    for begin in range(0, len(ids) - size + 1, size):
        tokens = list(ids[begin : begin + size])
        if start is not None:
            tokens[0] = start
        items.append(TextItem(windows=(Window(tokens=tuple(tokens), first=first),), units=size - first))
    if not items:
        raise DataError(f"the text has {len(ids)} tokens, less than one window of {size}; use a recipe with less")
    return items


def window2048(tokenizer: PreTrainedTokenizerBase, rows: Sequence[str]) -> list[TextItem]:
    """Rows joined by blank lines, tokenized once; no start token for each window."""
    return _disjoint(_ids(tokenizer, "\n\n".join(rows), special=True), 2048, first=1)


def chunk512(tokenizer: PreTrainedTokenizerBase, rows: Sequence[str]) -> list[TextItem]:
    """The raw file; a tokenizer that adds a start token puts it over the first of each chunk."""
    ids = _ids(tokenizer, raw_text(rows), special=True)
    adds_start = tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    return _disjoint(ids, 512, first=257, start=tokenizer.bos_token_id if adds_start else None)


def head100(tokenizer: PreTrainedTokenizerBase, rows: Sequence[str]) -> list[TextItem]:
    """The first 100 rows, empty ones skipped, each from its second token on."""
    sequences = (_ids(tokenizer, row, special=True) for row in rows[:100] if row.strip())
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
        "the tokenizer has neither a BOS nor an EOS token, with which the document recipe starts; "
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


_DETOKENIZE: tuple[tuple[str, str], ...] = (
    (r"s '", "s'"),
    (r"/' [0-9]/", r"/'[0-9]/"),
    (r" @-@ ", "-"),
    (r" @,@ ", ","),
    (r" @\.@ ", "."),
    *((f" {re.escape(mark)} ", f"{mark} ") for mark in ":;.!?,"),
    (r"\(\s*([^)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r'"\s*([^"]*?)\s*"', r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    (r"= = = =", "===="),
    (r"= = =", "==="),
    (r"= =", "=="),
    (" \N{DEGREE SIGN} ", "\N{DEGREE SIGN}"),
    (r" \n", "\n"),
    (r"\n ", "\n"),
    (r" N ", " 1 "),
    (r" 's", "'s"),
)
"""The harness's rules that undo WikiText's tokenization, in order (lm-evaluation-harness, ``wikitext``)."""


def detokenize(text: str) -> str:
    """WikiText as running text: the string that the ``document`` recipe scores."""
    for pattern, replacement in _DETOKENIZE:
        text = re.sub(pattern, replacement, text)
    return text


def count_words(text: str) -> int:
    """Pieces between white space, as the harness counts them: empty ones at the ends included."""
    return len(re.split(r"\s+", text))
