"""What a run and the process of a kernel say to each other, as lines of JSON."""

from __future__ import annotations

import builtins
from typing import Any, Literal, NoReturn

import msgspec

from quantsuite.checks import CheckFailure, Measured, NotApplicable, NotSupported
from quantsuite.kernels.loading import MissingLibraryError
from quantsuite.kernels.validation import KernelError

UNSUITABLE = {
    "KeyboardInterrupt",
    "BaseExceptionGroup",
    "ExceptionGroup",
    "SyntaxError",
    "IndentationError",
    "TabError",
}
"""Builtin exceptions that would end the run, or that cannot be made of a message."""
TRACEBACK = "traceback in the kernel"


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Load what is at a location, as :func:`quantsuite.kernels.loading.load` does."""

    location: str


class CheckRequest(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Run one check of a loaded kernel, ``place`` its number among them, with the profile's number of examples."""

    place: int
    scheme: str
    property: str
    device: str
    dtype: str
    seed: int
    examples: int


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a kernel says of itself; ``declares`` is in what it says to differ from the defaults."""

    name: str
    operation: str
    schemes: list[str]
    dtypes: list[str]
    declares: dict[str, str] = {}


class Loaded(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """The kernels of a location."""

    kernels: list[Declaration]

    def unwrap(self) -> list[Declaration]:
        return self.kernels


class Missing(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """A library that a location needs is not installed."""

    reason: str

    def unwrap(self) -> NoReturn:
        raise MissingLibraryError(self.reason)


class NotLoaded(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """A location cannot be loaded, said in one line."""

    reason: str
    traceback: str = ""

    def unwrap(self) -> NoReturn:
        raise add_section(KernelError(self.reason), TRACEBACK, self.traceback)


class Held(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """A property holds."""

    tightness: float
    details: dict[str, float]

    def unwrap(self) -> Measured:
        return Measured(self.tightness, self.details)


class NotRun(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """A check does not apply, or the kernel does not support its case."""

    finding: Literal["not applicable", "not supported"]
    reason: str

    def unwrap(self) -> NoReturn:
        raise {"not applicable": NotApplicable, "not supported": NotSupported}[self.finding](self.reason)


class Broken(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """A property does not hold."""

    message: str

    def unwrap(self) -> NoReturn:
        __tracebackhide__ = True
        raise CheckFailure(self.message)


class Raised(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """A kernel raised an exception; ``builtins`` are its builtin classes, the nearest first."""

    module: str
    name: str
    builtins: list[str]
    message: str
    traceback: str

    def unwrap(self) -> NoReturn:
        """Raise an exception of the same name and message, of the nearest builtin class that can be raised here."""
        __tracebackhide__ = True
        nearest: Any = getattr(builtins, next(name for name in self.builtins if name not in UNSUITABLE))
        shown = {"__module__": self.module, "__qualname__": self.name, "__str__": lambda _: self.message}
        kind = type(self.name, (nearest,), shown)
        raise add_section(kind.__new__(kind), TRACEBACK, self.traceback)


Request = LoadRequest | CheckRequest
Answer = Loaded | Missing | NotLoaded | Held | NotRun | Broken | Raised


def add_section(error: BaseException, title: str, text: str) -> BaseException:
    """An exception with a section for pytest's report of it, unless that were empty."""
    if text:
        error.__dict__.setdefault("report_sections", []).append((title, text))
    return error
