"""Clean-ups of texts that recipes name, each what lm-evaluation-harness does to the dataset of that name."""

from __future__ import annotations

import re
from collections.abc import Callable

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
"""The harness's rules that undo WikiText's tokenization, in order."""


def wikitext(text: str) -> str:
    """WikiText as running text."""
    for pattern, replacement in _DETOKENIZE:
        text = re.sub(pattern, replacement, text)
    return text


def hellaswag(text: str) -> str:
    """HellaSwag without the bracketed marks that its WikiHow part carries."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


CLEANUPS: dict[str, Callable[[str], str]] = {"wikitext": wikitext, "hellaswag": hellaswag}
"""By the names that tasks give: a template's filter, or a recipe's ``cleanup``."""
