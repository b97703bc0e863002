"""The options of a run: declared once, under a short and a long name, and read with their types."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from quantsuite.margins import MODES, MarginError, Margins, Mode
from quantsuite.scheme import DTYPES, EXECUTIONS

PREFIX = "quantsuite"


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; give names separated by commas")
    return names


class _Extend(argparse.Action):
    """Lists of an option that is repeated, joined."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if given is self.default else [*given, *values])


def _executions(text: str) -> list[str]:
    names = _names(text)
    if unknown := [name for name in names if name not in EXECUTIONS]:
        raise argparse.ArgumentTypeError(f"unknown execution {unknown[0]!r}; use {' or '.join(EXECUTIONS)}")
    return names


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"limit {text!r} is not a number of items; use 0 for all")
    return int(text)


def _margin(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"margin {text!r} is not a number from 0; use for example 0.01")
    return value


def _named_margin(text: str) -> tuple[str, float]:
    name, _, margin = text.rpartition("=")
    if not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE; use for example 'match rate=0.02'")
    return name.strip(), _margin(margin)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds; use 0 for no limit")
    return seconds


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name; give one, or leave the option away")
    return text


def _place(text: str) -> tuple[str, str]:
    name, _, place = text.partition("=")
    if not name.strip() or not place.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=PLACE; give for example piqa=./piqa")
    return name.strip(), place.strip()


def _path(text: str) -> Path:
    return Path(_text(text))


_KEYWORDS: dict[str, dict[str, Any]] = {
    "model": {"type": _text, "help": "hub id, checkpoint folder, tiny, or tiny-outliers (default: tiny)"},
    "engine": {
        "type": _text,
        "help": "what runs the model: transformers, or an installed package's (default: transformers)",
    },
    "scheme": {"type": _names, "action": _Extend, "help": "schemes, separated by commas (default: all, the catalogue)"},
    "method": {
        "action": "append",
        "help": "a quantization method of your own, which a scheme may name: path.py, path.py:NAME, package.module or "
        "package.module:NAME; may be repeated",
    },
    "plan": {
        "action": "append",
        "help": "folder of a saved plan to measure; may be repeated (with no --scheme: plans alone)",
    },
    "execution": {"type": _executions, "action": _Extend, "help": "simulated, real, or both (default: simulated,real)"},
    "task": {
        "type": _names,
        "action": _Extend,
        "help": "tasks, separated by commas: names such as wikitext2/window2048, families such as mmlu, files.toml",
    },
    "limit": {"type": _limit, "help": "questions drawn, or first windows taken; 0 for all (default: 0)"},
    "seed": {"type": int, "help": "seed of the draw of questions and of random tensors (default: 42)"},
    "device": {"type": _text, "help": "as torch names it (default: cuda if there is one, else cpu)"},
    "dtype": {"choices": DTYPES, "help": "of the reference (default: bf16)"},
    "include_head": {"action": "store_true", "help": "quantize the output head too"},
    "wikitext": {"type": _text, "help": "WikiText-2: hub id or folder of a local copy"},
    "mmlu": {"type": _text, "help": "MMLU: hub id or folder of a local copy"},
    "dataset": {
        "action": "append",
        "type": _place,
        "metavar": "NAME=PLACE",
        "help": "any task's dataset by its name, such as piqa=./piqa: hub id or local folder; may be repeated",
    },
    "output": {"type": _path, "help": "run file (default: reports/accuracy.jsonl)"},
    "numerics_output": {
        "type": _path,
        "help": "run file of checked properties and measured errors (default: reports/numerics.jsonl)",
    },
    "fresh": {"action": "store_true", "help": "measure everything anew instead of reusing finished records"},
    "gate": {
        "nargs": "?",
        "const": "worse",
        "choices": MODES,
        "help": "fail if a cell is worse than its baseline; strict: or undecided. Put it last, or write --gate=worse",
    },
    "baseline": {
        "type": _text,
        "help": "of the gate: run file, or bf16 "
        "(default: reports/baselines/<model>.jsonl, or the embedded model's own)",
    },
    "requirements": {
        "type": _path,
        "metavar": "FILE",
        "help": "TOML file of requirements on the model, in place of those that are shipped",
    },
    "gate_complete": {
        "action": "store_true",
        "help": "of the gate: fail if any cell of the baseline was not run, not only those that were asked for",
    },
    "accuracy_margin": {"type": _margin, "help": "loss of accuracy that counts as none (0.01)"},
    "perplexity_margin": {"type": _margin, "help": "rise of ln perplexity that counts as none (0.01)"},
    "margin": {
        "type": _named_margin,
        "action": "append",
        "metavar": "NAME=VALUE",
        "help": "the same of any metric, by its name, in the unit of its changes; may be repeated",
    },
    "kernel": {
        "action": "append",
        "help": "kernels under test, or of real execution of a model: path.py, path.py:name, package.module or "
        "package.module:name; may be repeated "
        "(default: those that are shipped, in a clone every file of kernels/, and installed entry points)",
    },
    "require_all": {
        "action": "store_true",
        "help": "fail if a property that a scheme has was not checked, as where its kernel takes no shape of it",
    },
    "check_timeout": {
        "type": _seconds,
        "help": "seconds that a kernel may take to load, and for each check; 0 for no limit (default: 120)",
    },
}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run measures, where, with which data, and what it is compared with.

    Each field is an option of the command line: ``--model`` and ``--quantsuite-model`` are the same.
    """

    model: str = "tiny"
    engine: str = "transformers"
    scheme: Sequence[str] = ("all",)
    method: Sequence[str] = ()
    plan: Sequence[str] = ()
    execution: Sequence[str] = EXECUTIONS
    task: Sequence[str] | None = None
    limit: int = 0
    seed: int = 42
    device: str = "auto"
    dtype: str = DTYPES[0]
    include_head: bool = False
    wikitext: str | None = None
    mmlu: str | None = None
    dataset: Sequence[tuple[str, str]] = ()
    output: Path = Path("reports/accuracy.jsonl")
    numerics_output: Path = Path("reports/numerics.jsonl")
    fresh: bool = False
    gate: Mode | None = None
    baseline: str | None = None
    requirements: Path | None = None
    gate_complete: bool = False
    accuracy_margin: float | None = None
    perplexity_margin: float | None = None
    margin: Sequence[tuple[str, float]] = ()
    kernel: Sequence[str] = ()
    require_all: bool = False
    check_timeout: float = 120.0

    @property
    def schemes(self) -> Sequence[str]:
        """``--scheme``; where plans are given and it is not, none."""
        given = isinstance(self.scheme, list)  # The default is a tuple.
        return self.scheme if given or not self.plan else ()

    @property
    def _family_margins(self) -> dict[str, float]:
        options = {"accuracy": self.accuracy_margin, "perplexity": self.perplexity_margin}
        return {name: margin for name, margin in options.items() if margin is not None}

    @property
    def margins(self) -> Margins:
        return Margins(of_options=self._family_margins, of_names=dict(self.margin))

    def check_margins(self) -> None:
        """Refuse two margins of one name.

        Raises:
            MarginError: naming both.
        """
        given = {name: f"--{name}-margin {margin:g}" for name, margin in self._family_margins.items()}
        for name, margin in self.margin:
            option = f"--margin {f'{name}={margin:g}'!r}" if " " in name else f"--margin {name}={margin:g}"
            if name in given:
                raise MarginError(f"{given[name]} and {option} both set the margin of {name}; give one of them")
            given[name] = option

    @property
    def places(self) -> dict[str, str]:
        """Where datasets are read from, by name, where it is not the task's own place."""
        short = {"wikitext2": self.wikitext, "mmlu": self.mmlu}
        return {name: place for name, place in short.items() if place} | dict(self.dataset)

    @classmethod
    def read(cls, namespace: Any) -> RunOptions:
        """The options of parsed arguments, such as ``config.option`` of pytest; defaults of what is not declared."""
        declared = [each.name for each in fields(cls) if hasattr(namespace, f"{PREFIX}_{each.name}")]
        return cls(**{name: getattr(namespace, f"{PREFIX}_{name}") for name in declared})


def _flags(name: str) -> list[str]:
    spelled = name.replace("_", "-")
    return [f"--{spelled}", f"--{PREFIX}-{spelled}"]


def add_options(add: Callable[..., Any], *, taken: Container[str] = (), only: Container[str] = _KEYWORDS) -> list[str]:
    """Declare options with ``add_argument`` of a parser or ``addoption`` of pytest.

    Args:
        add: called with an option's names and keywords.
        taken: names that belong to others.
        only: the fields to declare.

    Returns:
        The short names that were left to others; their long form is declared.
    """
    left = []
    for each in fields(RunOptions):
        if each.name in only:
            flags, keywords = _flags(each.name), _KEYWORDS[each.name]
            if keywords.get("action") != "store_true" and "choices" not in keywords:
                keywords = {"metavar": each.name.upper(), **keywords}
            if flags[0] in taken:
                left.append(flags.pop(0))
            default = [] if keywords.get("action") == "append" else each.default
            add(*flags, dest=f"{PREFIX}_{each.name}", default=default, **keywords)
    return left


def places_of_tests(arguments: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """Those of pytest's candidates for files and folders of tests that are not the value of an option of a run."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("places", nargs="*")
    for name, keywords in _KEYWORDS.items():
        shape = {key: keywords[key] for key in ("action", "nargs") if key in keywords}
        parser.add_argument(*_flags(name), dest=name, **shape)
    try:
        places = parser.parse_known_args(list(arguments))[0].places
    except argparse.ArgumentError:
        return []
    return [place for place in candidates if place in places]
