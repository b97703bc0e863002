"""Kernel x scheme x dtype x check as test cases, and the failures that are known."""

from __future__ import annotations

import builtins
import datetime
import fnmatch
import functools
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from quantsuite.checks import CHECKS, HYGIENE, Check, CheckFailure, Measured, NotApplicable, NotSupported, property_name
from quantsuite.conformance.declared import declared
from quantsuite.conformance.explanation import current_test, explain, reason_of
from quantsuite.kernels import protocol
from quantsuite.kernels.operations import OPERATIONS
from quantsuite.records import Finding
from quantsuite.scheme import Operand, Scheme

CHECK_VERSION = 3
_KEYS = {"id", "reason", "link", "expires", "raises", "device"}


@dataclass(kw_only=True)
class CheckCase:
    """One check of one kernel; calling it runs the check and keeps what it measured.

    Args:
        kernel: what is under test.
        subject: the operand of a quantizer, the scheme of a product.
        check: one of :data:`quantsuite.checks.CHECKS`.
        device: where the inputs lie.
        dtype: of the inputs.
        seed: of the inputs.
        hygiene: cases of the same kernel, subject and dtype of :data:`quantsuite.checks.HYGIENE`.
        known: whether it is expected to fail.
        selected: whether a test of this run is of it, in whatever process.

    Attributes:
        measured: what the check measured, if the property holds.
        not_run: why it was not checked.
        failure: why it fails, in one line.
        follows: the property of ``hygiene`` that fails too, and explains the failure.
    """

    kernel: Any
    subject: Operand | Scheme
    check: Check
    device: str
    dtype: torch.dtype
    seed: int = 0
    hygiene: Sequence[CheckCase] = field(default=(), repr=False, compare=False)
    known: bool = False
    selected: bool = False
    measured: Measured | None = field(default=None, init=False)
    not_run: tuple[Finding, str] | None = field(default=None, init=False)
    failure: str | None = field(default=None, init=False)
    follows: str = field(default="", init=False)

    @property
    def ran(self) -> bool:
        return self.measured is not None or self.not_run is not None or self.failure is not None

    @property
    def label(self) -> str:
        return f"{self.kernel.name}, {self.subject}, {self.dtype_name}"

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def property(self) -> str:
        return property_name(self.check)

    def __str__(self) -> str:
        return f"{self.kernel.name}/{self.subject}/{self.dtype_name}/{self.property}"

    def run(self) -> Measured:
        """What the check measures.

        Raises:
            CheckFailure: if the kernel breaks the property.
            NotApplicable: if the scheme or the dtype does not have it.
            NotSupported: if the device does not have the scheme.
        """
        reason = protocol.unsupported(self.kernel, self.subject, self.device)
        if reason is not None:
            raise NotSupported(reason)
        found = self.check(self.kernel, self.subject, device=self.device, dtype=self.dtype, seed=self.seed)
        return found if isinstance(found, Measured) else Measured(found)

    @functools.cached_property
    def declares(self) -> dict[str, str]:
        """In what the kernel says to differ from the defaults, by name."""
        return declared(self.kernel)

    def repetition(self) -> str:
        """A command that runs it again, for a debugger; empty if there is none."""
        return current_test()

    def __call__(self) -> Measured:
        """Run the check and keep what it measured.

        Raises:
            CheckFailure: if the kernel breaks the property.
            pytest.skip.Exception: if the device or the scheme does not have it, or if it fails and so does a property
                of hygiene that is not expected to.
        """
        __tracebackhide__ = True
        error = self._try()
        if error is not None:
            if not isinstance(error, pytest.fail.Exception) and (cause := self._cause()) is not None:
                self.follows = cause.property
                pytest.skip(f"not checked: follows from {cause.property}: {cause.failure}")
            raise explain(self, error) from None
        if self.not_run is not None:
            pytest.skip(": ".join(self.not_run))
        assert self.measured is not None
        return self.measured

    def _try(self) -> Exception | None:
        """Run the check and keep how it ends; what it raised, unless that says that it does not apply."""
        __tracebackhide__ = True
        try:
            self.measured = self.run()
        except NotApplicable as error:
            self.not_run = ("not applicable", str(error))
        except NotSupported as error:
            self.not_run = ("not supported", str(error))
        except Exception as error:
            self.failure = reason_of(error)
            return error
        return None

    def _cause(self) -> CheckCase | None:
        """The first earlier case of hygiene that fails unexpectedly; one that another process runs is tried here."""
        if self.known:
            return None
        for case in self.hygiene:
            if case is self:
                break
            if case.known:
                continue
            if case.selected and not case.ran:
                case._try()
            if case.failure is not None:
                return case
        return None


def make_cases(
    kernels: Iterable[Any],
    *,
    device: str = "cpu",
    schemes: Sequence[str] | None = None,
    seed: int = 0,
    case: type[CheckCase] = CheckCase,
) -> list[CheckCase]:
    """All checks of some kernels, on the schemes they implement or on those of ``schemes`` among them.

    ``case`` is how each is run.

    Raises:
        ValueError: if one of ``schemes`` is none.
    """
    chosen = None if schemes is None else [_full_name(name) for name in schemes]
    made = []
    for kernel in kernels:
        for name in kernel.schemes:
            subject = OPERATIONS[kernel.operation].parse(name)
            if chosen is None or str(subject) in chosen:
                for dtype in protocol.dtypes(kernel):
                    made += _cases(case, kernel=kernel, subject=subject, device=device, dtype=dtype, seed=seed)
    return made


def _cases(case: type[CheckCase], *, kernel: Any, **shared: Any) -> list[CheckCase]:
    """All checks of a kernel under a scheme in a dtype, those of hygiene first."""
    checks = sorted(CHECKS[kernel.operation], key=lambda check: property_name(check) not in HYGIENE)
    cases = [case(kernel=kernel, check=check, **shared) for check in checks]
    hygiene = [each for each in cases if each.property in HYGIENE]
    for each in cases:
        each.hygiene = hygiene
    return cases


def require_cases(
    cases: Sequence[CheckCase], kernels: Iterable[Any], schemes: Sequence[str] | None = None
) -> dict[str, str]:
    """Ask for a case of every scheme that a user has named, and without any of every kernel.

    Returns:
        Of the kernels that implement none of the schemes, by name, what they implement.

    Raises:
        ValueError: naming the first that has none.
    """
    without = {}
    for kernel in kernels:
        if not any(case.kernel is kernel for case in cases):
            wanted = "any scheme" if schemes is None else ", ".join(schemes)
            without[kernel.name] = f"does not implement {wanted}; it implements {_listed(kernel.schemes)}"
    if without and (schemes is None or not cases):
        name, reason = next(iter(without.items()))
        raise ValueError(f"{name} {reason}")
    for name in schemes or ():
        if not any(str(case.subject) == _full_name(name) for case in cases):
            implemented = _listed(dict.fromkeys(str(case.subject) for case in cases))
            raise ValueError(f"no kernel implements {name}; they implement {implemented}")
    return without


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _full_name(name: str) -> str:
    """Of an operand or a scheme that may be given by its alias."""
    with suppress(ValueError):
        return str(Operand.parse(name))
    return str(Scheme.parse(name))


@dataclass(frozen=True, kw_only=True)
class KnownFailure:
    """A failure that is expected until a date.

    Args:
        id: of cases, with ``*`` for any characters: ``torchao-int8/*/bfloat16/ties_go_to_even``.
        reason: what is wrong and whose fault it is.
        link: where it is reported or explained.
        expires: the day from which on it must be looked at again.
        raises: the exception's name.
        device: where it fails, ``cpu`` or ``cuda``; everywhere if empty.
    """

    id: str
    reason: str
    link: str = ""
    expires: datetime.date = datetime.date.max
    raises: str = "CheckFailure"
    device: str = ""

    def matches(self, case: CheckCase) -> bool:
        return fnmatch.fnmatchcase(str(case), self.id) and case.device.startswith(self.device)

    @property
    def exception(self) -> type[BaseException]:
        """The class that ``raises`` names.

        Raises:
            ValueError: if there is none.
        """
        found = CheckFailure if self.raises == CheckFailure.__name__ else getattr(builtins, self.raises, None)
        if not (isinstance(found, type) and issubclass(found, BaseException)):
            raise ValueError(f"known failure {self.id!r}: raises {self.raises!r} is neither CheckFailure nor built in")
        return found

    @property
    def mark(self) -> pytest.MarkDecorator:
        reason = f"{self.reason} {self.link}".strip()
        return pytest.mark.xfail(strict=True, reason=reason, raises=self.exception)


def read_known_failures(path: Path, today: datetime.date) -> list[KnownFailure]:
    """The entries ``[[failure]]`` of a TOML file.

    Raises:
        ValueError: if an entry has unknown or missing keys, or has expired.
    """
    entries = tomllib.loads(path.read_text()).get("failure", [])
    for entry in entries:
        if (unknown := set(entry) - _KEYS) or (absent := {"id", "reason", "link", "expires"} - set(entry)):
            wrong = f"unknown {sorted(unknown)}" if unknown else f"missing {sorted(absent)}"
            raise ValueError(f"{path}: entry {entry.get('id')!r}: {wrong}; known keys: {', '.join(sorted(_KEYS))}")
    known = [KnownFailure(**entry) for entry in entries]
    if expired := [failure for failure in known if failure.expires <= today]:
        raise ValueError(
            f"{path}: {expired[0].id} expired on {expired[0].expires}; see whether it is fixed, then move the date"
        )
    return known


def parameters(cases: Sequence[CheckCase], known: Sequence[KnownFailure], names: Iterable[str]) -> Iterator[Any]:
    """The cases as pytest parameters, known failures marked ``xfail(strict=True)``.

    Args:
        cases: what runs.
        known: matched against the ids of the cases; of several the first counts.
        names: kernels whose known failures must all match a case.

    Raises:
        ValueError: if a known failure of one of ``names`` matches no case.
    """
    for name in names:
        for failure in known:
            if fnmatch.fnmatchcase(name, failure.id.split("/")[0]) and not any(
                fnmatch.fnmatchcase(str(case), failure.id) for case in cases
            ):
                raise ValueError(f"known failure {failure.id!r} matches no case; remove it or correct its id")
    for case in cases:
        match = next((failure for failure in known if failure.matches(case)), None)
        case.known = match is not None
        yield pytest.param(case, id=str(case), marks=[] if match is None else [match.mark])


def expected_failures(expected: Mapping[str, str], cases: Sequence[CheckCase]) -> list[KnownFailure]:
    """Known failures from a mapping of ids to reasons.

    Raises:
        ValueError: if an id matches no case.
    """
    known = [KnownFailure(id=name, reason=reason) for name, reason in expected.items()]
    for failure in known:
        if not any(failure.matches(case) for case in cases):
            raise ValueError(
                f"expected failure {failure.id!r} matches no case; ids look like {cases[0] if cases else 'nothing'}"
            )
    return known
