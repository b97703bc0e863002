"""What a person reads of a check that fails: the property, the case, what was found, and how to see it again."""

from __future__ import annotations

import importlib
import os
import shlex
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from quantsuite.checks import Check, CheckFailure
from quantsuite.environment import resolve_device

if TYPE_CHECKING:
    from quantsuite.conformance.cases import CheckCase

PACKAGE = Path(__file__).parent.parent
OUTSIDE = (*(str(PACKAGE / name) for name in ("checks", "conformance", "kernels", "places.py")), importlib.__file__)


class ExplainedFailure(CheckFailure):
    """A failure whose message has several lines: the property, what was found, and how to see it again."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self._reason = reason

    @property
    def reason(self) -> str:
        return self._reason


def property_sentence(check: Check) -> str:
    """The first sentence of a check's docstring, in one line."""
    paragraph = " ".join((check.__doc__ or check.__name__).strip().split("\n\n")[0].split())
    return f"{paragraph.split('. ')[0].rstrip('.')}."


def explain(case: CheckCase, error: Exception) -> Exception:
    """An error of a check to raise in its place: of a broken property all that there is to say, else with notes."""
    again = case.repetition()
    first = f"does not hold: {property_sentence(case.check)}"
    last = f"reproduce: {again}" if again else ""
    if not isinstance(error, CheckFailure):
        for note in filter(None, (f"{case.label}: {first}", last)):
            error.add_note(note)
        return error.with_traceback(own_frames(error))
    return ExplainedFailure("\n".join(filter(None, (first, f"{case.label}: {error}", last))), error.reason)


def reason_of(error: BaseException) -> str:
    """Why a check has no result, in one line."""
    if isinstance(error, CheckFailure):
        return error.reason
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def reproduction(name: str, *, seed: int, device: str, location: str) -> str:
    """The command that runs one check in its own process."""
    command = ["python", "-m", "quantsuite", "reproduce", name, "--seed", str(seed), "--kernel", location]
    return shlex.join(command if device == resolve_device("auto") else [*command, "--device", device])


def current_test() -> str:
    """The command that runs the test in which this is called; empty outside of one."""
    name, _, _ = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")
    return shlex.join(["python", "-m", "pytest", name, "--pdb"]) if name else ""


def own_frames(error: BaseException) -> TracebackType | None:
    """The traceback from the first frame on that is neither of the checks nor of an import; else all of it."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith((*OUTSIDE, "<frozen importlib")):
        frame = frame.tb_next
    return frame or error.__traceback__
