"""Where a task's rows come from, and what its recipe takes of them: data, as a TOML file's ``[dataset]`` gives it."""

from __future__ import annotations

from typing import Literal

import msgspec

ColumnType = Literal["text", "string", "texts", "integer", "any"]
"""``text``: a string that is not blank; ``string``: any; ``texts``: a list of strings that are not blank."""


class Columns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all datasets have: a name, and the columns that the recipe names, with their types.

    Args:
        name: in records, and what ``--dataset NAME=PLACE`` moves elsewhere.
        columns: of the rows; a template may name these.
    """

    name: str
    columns: dict[str, ColumnType]


class HubDataset(Columns, frozen=True, kw_only=True, tag_field="kind", tag="hub"):
    """A dataset of the Hugging Face hub, or the folder of a copy of it.

    Args:
        id: on the hub.
        config: the configuration; empty where there is but one.
        split: that is measured.
        examples: the split of solved examples, for tasks with shots.
    """

    id: str
    split: str
    config: str = ""
    examples: str = ""

    @property
    def place(self) -> str:
        """Where it is read from unless ``--dataset`` says otherwise."""
        return self.id


class FilesDataset(Columns, frozen=True, kw_only=True, tag_field="kind", tag="files"):
    """Local files: ``.jsonl``, ``.json``, ``.csv`` or ``.parquet``.

    Args:
        rows: the file that is measured, seen from the task's file that names it.
        examples: the file of solved examples, for tasks with shots.
        folder: that both are seen from; filled in when the task's file is read.
    """

    rows: str
    examples: str = ""
    folder: str = "."

    @property
    def place(self) -> str:
        """Where it is read from unless ``--dataset`` says otherwise."""
        return self.folder


class WorldDataset(Columns, frozen=True, kw_only=True, tag_field="kind", tag="world"):
    """The embedded world's test text, or its questions; generated, so that nothing is read.

    Args:
        part: of the world; questions come with solved examples.
    """

    part: Literal["documents", "questions"]

    @property
    def examples(self) -> str:
        return "questions" if self.part == "questions" else ""


Source = HubDataset | FilesDataset | WorldDataset
