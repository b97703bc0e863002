"""How a task's rows become what is measured: data, as a TOML file's ``[recipe]`` gives it.

Templates (``prompt``, ``target``, ``description``) are jinja2; expressions (``choices``, ``answer``, ``truths``,
``group``, ``text``) are what stands inside jinja2's double braces, and keep their type.  Both see the row's columns.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Windows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="windows"):
    """Perplexity over disjoint windows of the whole text; what does not fill the last one is left out.

    Args:
        size: of a window, in tokens.
        first: the first token of a window that is scored, from 1.
        join: how rows become one text: by blank lines, or as the raw file of WikiText.
        start: whether a tokenizer's start token replaces the first token of each window.
        text: expression, of a row.
    """

    size: int
    first: int = 1
    join: Literal["blank lines", "wikitext"] = "blank lines"
    start: bool = False
    text: str = "text"

    def __post_init__(self) -> None:
        if not 1 <= self.first < self.size:
            raise ValueError(f"first is {self.first}; a window of {self.size} tokens is scored from 1 to its last")


class Rows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="rows"):
    """Perplexity over the first rows, each a sequence of its own scored from its second token; blank ones left out.

    Args:
        count: of rows.
        text: expression, of a row.
    """

    count: int
    text: str = "text"


class Documents(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="documents"
):
    """Perplexity over documents, each read by rolling windows as long as the context.

    Args:
        split: what a document is: a row, or a page of WikiText.
        cleanup: the name of a clean-up of the text before it is tokenized.
        unit: what the mean is over: tokens, words or bytes of the text as it was.
        text: expression, of a row.
        bits: expression of a row's information, where the text's entropy is known.
    """

    split: Literal["rows", "wikitext pages"] = "rows"
    cleanup: str = ""
    unit: Literal["token", "word", "byte"] = "token"
    text: str = "text"
    bits: str = ""


class _Prompted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question put to the model.

    Args:
        prompt: template of the question, up to where the model goes on.
        description: template of what stands before the solved examples; it sees a row too.
        delimiter: between a prompt and an answer; it belongs to the answer.
        separator: after each solved example.
        group: expression, such as a subject: questions of one group share examples and are shown together.
    """

    prompt: str
    description: str = ""
    delimiter: str = " "
    separator: str = "\n\n"
    group: str = "''"


class ChoicesRecipe(_Prompted, frozen=True, kw_only=True, tag_field="kind", tag="choices"):
    """The likelihood of each choice's full text after the prompt.

    Args:
        choices: expression: a list of texts, two or more.
        answer: expression: the index of the right one from 0, or a string of its digits.
        truths: expression, where several may be right: of each choice whether it is true, or 1 or 0.

    Raises:
        ValueError: if there is neither answer nor truths.
    """

    choices: str
    answer: str = ""
    truths: str = ""

    def __post_init__(self) -> None:
        if not self.answer and not self.truths:
            raise ValueError("recipe.answer is missing; give it, or recipe.truths where several choices are right")


class LettersRecipe(_Prompted, frozen=True, kw_only=True, tag_field="kind", tag="letters"):
    """The choices stand in the prompt, and the answer is a letter.

    Args:
        choices: expression: a list of texts, as many as letters.
        answer: expression: the index of the right one from 0.
        letters: of the choices.
        answered_by: the likeliest letter, or the first one that the model writes.
        max_new_tokens: that it may write.
    """

    choices: str
    answer: str
    letters: str = "ABCD"
    answered_by: Literal["likelihood", "writing"] = "likelihood"
    max_new_tokens: int = 4


class ContinuationRecipe(_Prompted, frozen=True, kw_only=True, tag_field="kind", tag="continuation"):
    """What a text goes on with: its likelihood, or whether greedy decoding writes it.

    Args:
        target: template of the continuation, its leading space with it.
    """

    target: str


TextRecipe = Windows | Rows | Documents
QuestionRecipe = ChoicesRecipe | LettersRecipe | ContinuationRecipe
Recipe = TextRecipe | QuestionRecipe
