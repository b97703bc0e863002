"""Rows of a dataset as texts, and texts as windows of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerBase

from quantsuite.evaluate import windows
from quantsuite.evaluate.cleanups import CLEANUPS
from quantsuite.evaluate.data import Document, pages, raw_text
from quantsuite.evaluate.reading import DataError
from quantsuite.evaluate.windows import TextItem
from quantsuite.tasks.datasets import Source
from quantsuite.tasks.recipes import Documents, Rows, TextRecipe, Windows
from quantsuite.tasks.rows import Row, Sources, measured_rows, place_of

_UNITS: dict[str, Callable[[str, int], int]] = {
    "token": lambda text, tokens: tokens,
    "word": lambda text, tokens: windows.count_words(text),
    "byte": lambda text, tokens: len(text.encode()),
}


def _text(row: Row, expression: str) -> str:
    found = row.evaluate("recipe.text", expression)
    if not isinstance(found, str):
        row.refuse(f"text {found!r} is no string; the recipe needs a string")
    return found


def _bits(row: Row, recipe: Documents) -> float | None:
    if not recipe.bits:
        return None
    found: Any = row.evaluate("recipe.bits", recipe.bits)
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 <= found < float("inf"):
        row.refuse(f"bits {found!r} are no information; the recipe needs a number from 0")
    return float(found)


def _documents(rows: list[Row], recipe: Documents) -> list[Document]:
    texts = [_text(row, recipe.text) for row in rows]
    if recipe.split == "wikitext pages":
        return [Document(text=page) for page in pages(texts)]
    return [Document(text=text, bits=_bits(row, recipe)) for row, text in zip(rows, texts, strict=True)]


def text_items(
    source: Source, recipe: TextRecipe, tokenizer: PreTrainedTokenizerBase, sources: Sources, max_length: int
) -> tuple[list[TextItem], int | None]:
    """The windows or documents of a text, at most as many as the limit says, and the bytes of documents.

    Raises:
        MissingDataError: if the dataset is not to be had.
        DataError: if a row has no text, there is none at all, or too little for the recipe.
    """
    rows = measured_rows(source, sources)
    texts = [_text(row, recipe.text) for row in rows]
    if not any(text.strip() for text in texts):
        raise DataError(
            f"{place_of(source, sources)!r}, {rows[0].place} and on: all {len(rows)} rows are empty; "
            "the recipe needs text"
        )
    if isinstance(recipe, Documents):
        return _document_items(_documents(rows, recipe)[: sources.limit or None], recipe, tokenizer, max_length)
    if isinstance(recipe, Rows):
        items = windows.rows_alone(tokenizer, texts[: recipe.count])
    else:
        items = _windows(texts, recipe, tokenizer)
    return items[: sources.limit or None], None


def _windows(texts: list[str], recipe: Windows, tokenizer: PreTrainedTokenizerBase) -> list[TextItem]:
    text = "\n\n".join(texts) if recipe.join == "blank lines" else raw_text(texts)
    return windows.disjoint(tokenizer, text, size=recipe.size, first=recipe.first, start=recipe.start)


def _document_items(
    documents: list[Document], recipe: Documents, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[TextItem], int]:
    clean = CLEANUPS[recipe.cleanup] if recipe.cleanup else lambda text: text
    items = windows.document_items(tokenizer, documents, max_length=max_length, clean=clean, units=_UNITS[recipe.unit])
    return items, sum(len(document.text.encode()) for document in documents)
