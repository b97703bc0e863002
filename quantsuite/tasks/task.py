"""What a task is: a frozen value that travels between processes and files."""

from __future__ import annotations

import hashlib

import msgspec
from transformers import PreTrainedTokenizerBase

from quantsuite.evaluate.cleanups import CLEANUPS
from quantsuite.metrics import Choices, Divergences, Layers, Matches, Perplexities, Truths, metric
from quantsuite.records import TaskLabel
from quantsuite.tasks.datasets import FilesDataset, Source
from quantsuite.tasks.measuring import Against, Preparation, Prepared, evaluators
from quantsuite.tasks.recipes import Documents, Recipe, TextRecipe, Windows
from quantsuite.tasks.rows import Sources
from quantsuite.tasks.templates import TemplateFault, names

_KINDS = {
    Perplexities: "perplexity",
    Choices: "choices",
    Divergences: "drift",
    Truths: "truths",
    Matches: "matches",
    Layers: "layers",
}
_TEMPLATES = ("prompt", "target", "description")
_EXPRESSIONS = ("choices", "answer", "truths", "group", "text", "bits")


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recipe on a dataset, and the metric of what it yields.

    Args:
        name: by which it is chosen and recorded, such as ``mmlu/direct``.
        version: raised with every change of what is measured; records of two versions are never compared.
        metric: the name of one, or the place of one's own.
        dataset: where rows come from.
        recipe: what is made of them.
        shots: solved examples before each question.
        against: what a divergence is from: the model as it is, or of real execution the simulated one.
        sha256: of a user's file, its :attr:`digest`; filled in when the file is read, empty for shipped tasks.

    Raises:
        ValueError: in one line that names the key, if the parts do not fit together.
    """

    name: str
    version: int
    metric: str
    dataset: Source
    recipe: Recipe
    shots: int = 0
    against: Against = "reference"
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable() or "," in self.name:
            raise ValueError(f"name {self.name!r} is none; use printable letters without commas")
        if self.version < 1:
            raise ValueError(f"version {self.version} is less than 1")
        self._check_metric()
        if self.against != "reference" and self.kind != "drift":
            raise ValueError(f"against {self.against!r} is of no effect on a task of {self.kind}; leave it away")
        self._check_shots()
        self._check_templates()
        if isinstance(self.recipe, Documents) and self.recipe.cleanup and self.recipe.cleanup not in CLEANUPS:
            raise ValueError(f"recipe.cleanup {self.recipe.cleanup!r} is none; there are {', '.join(CLEANUPS)}")

    def __hash__(self) -> int:
        return hash((self.name, self.version))

    def _check_metric(self) -> None:
        takes = metric(self.metric).items
        if takes not in evaluators(self.recipe):
            found = ", ".join(each.__name__ for each in evaluators(self.recipe))
            raise ValueError(
                f"metric {self.metric!r} takes {takes.__name__}; "
                f"a recipe of kind {self.recipe.__struct_config__.tag!r} yields {found}"
            )

    def _check_shots(self) -> None:
        if self.shots < 0:
            raise ValueError(f"shots {self.shots} are less than 0")
        if self.shots and isinstance(self.recipe, TextRecipe):
            raise ValueError(f"shots {self.shots} are of no effect on a recipe of texts; leave them away")
        if self.shots and not self.dataset.examples:
            raise ValueError(f"shots {self.shots} need examples; give dataset.examples")

    def _check_templates(self) -> None:
        for key in (*_TEMPLATES, *_EXPRESSIONS):
            source = getattr(self.recipe, key, "")
            if not source:
                continue
            try:
                needed = names(source, expression=key in _EXPRESSIONS)
            except TemplateFault as error:
                raise ValueError(f"recipe.{key} is no {_form(key)}: {error}") from error
            if unknown := sorted(needed - {*self.dataset.columns}):
                raise ValueError(
                    f"recipe.{key} names {', '.join(unknown)}; the columns are {', '.join(self.dataset.columns)}"
                )

    @property
    def label(self) -> TaskLabel:
        """What records carry of it."""
        return TaskLabel(name=self.name, version=self.version, metric=metric(self.metric).name, sha256=self.sha256)

    @property
    def digest(self) -> str:
        """SHA-256 of all that it says but where files are, which differs between machines."""
        said = msgspec.to_builtins(self) | {"metric": metric(self.metric).name, "sha256": ""}
        if self.against == "reference":  # As files that do not say so.
            del said["against"]
        if isinstance(self.dataset, FilesDataset):
            said["dataset"] |= dict.fromkeys(("folder", "rows", "examples"), "")
        return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()

    @property
    def kind(self) -> str:
        """Which items it yields: ``perplexity``, ``choices``, ``drift``, ``truths``, ``matches`` or ``layers``."""
        return _KINDS[metric(self.metric).items]

    @property
    def context(self) -> int:
        """Tokens that the recipe reads at once, whatever the data; 0 if that depends on the data."""
        return self.recipe.size - 1 if isinstance(self.recipe, Windows) else 0

    def prepare(self, tokenizer: PreTrainedTokenizerBase, sources: Sources, max_length: int) -> Prepared:
        """The task with its data loaded.

        Args:
            tokenizer: of the model.
            sources: where data comes from, and how much of it is used.
            max_length: of the model's context, for recipes that fill it.

        Raises:
            MissingDataError: if the dataset is not to be had.
            DataError: if it is not what the recipe needs.
            ValueError: if the limit is negative.
        """
        return Preparation(
            source=self.dataset,
            recipe=self.recipe,
            metric=self.metric,
            shots=self.shots,
            against=self.against,
            tokenizer=tokenizer,
            sources=sources,
            max_length=max_length,
        ).prepare()


def _form(key: str) -> str:
    return "expression" if key in _EXPRESSIONS else "template"
