"""``python -m quantsuite`` and pytest in this process, which has torch loaded already."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantsuite.__main__ import main

ROOT = Path(__file__).parent.parent
IMPORTED = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
QUIET = ("-s", "-p", "no:cacheprovider", "-W", IMPORTED)


@dataclass(frozen=True)
class Outcome:
    """Exit status, and all that was printed."""

    status: int
    shown: str


def quantsuite(*arguments: str) -> Outcome:
    """``python -m quantsuite``, in the folder of the test."""
    own = QUIET if arguments[0] == "run" else ()
    return _call(lambda: main([*arguments, *own]))


def accuracy(*arguments: str) -> Outcome:
    """``pytest tests_accuracy`` in the project's root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("COLUMNS", "80")
        return _call(lambda: pytest.main(["tests_accuracy", *QUIET, *arguments]))


def _call(function) -> Outcome:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        try:
            status = function()
        except SystemExit as error:
            status = error.code or 0
    return Outcome(int(status), output.getvalue())
