"""The pytest side of the checks: ``--kernel``, the parameter ``conformance_check``, a record of each case.

torch is imported only once a test asks for a check, and kernels only in processes of their own.
"""

from __future__ import annotations

import datetime
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quantsuite import contestants
from quantsuite.conformance.condensed import Failures, ShortSummary
from quantsuite.conformance.reports import as_shown, property_result
from quantsuite.lines import encode_line
from quantsuite.options import RunOptions
from quantsuite.records import RESULT
from quantsuite.refusal import refused
from quantsuite.runfile import RunFile

if TYPE_CHECKING:
    from quantsuite.conformance.cases import CheckCase
    from quantsuite.conformance.isolated import IsolatedKernel, IsolatedSource

CASE = "conformance_check"
KNOWN_FAILURES = Path("reports/known_failures.toml")
SHIPPED_KNOWN_FAILURES = Path(contestants.__file__).parent / "known_failures.toml"
"""Of the shipped kernels; they do not expire in an installed version."""
FOLDER = "kernel_folder"
"""The name in a module of tests of the folder whose kernels are tested if no ``--kernel`` is named."""


@dataclass(frozen=True)
class LoadFailure:
    """In the place of the cases of a source that cannot be loaded."""

    error: BaseException

    def __call__(self) -> None:
        """Fail with one line."""
        __tracebackhide__ = True
        failure = pytest.fail.Exception(str(self.error), pytrace=False)
        failure.__dict__.update(report_sections=getattr(self.error, "report_sections", []))
        raise failure


@dataclass(kw_only=True)
class Found:
    """Sources, what they declare, and parameters in the place of those that declare nothing.

    Args:
        named: whether a user asked for these, so that a missing library is a failure.
    """

    sources: list[IsolatedSource]
    named: bool = False
    kernels: list[IsolatedKernel] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)

    def load(self) -> None:
        """Load all sources, each in its process."""
        from quantsuite.conformance.isolated import LOAD_ERRORS
        from quantsuite.kernels.loading import MissingLibraryError

        for source in self.sources:
            source.start()
        for source in self.sources:
            try:
                self.kernels += source.load()
            except MissingLibraryError as error:
                if self.named:
                    self.others.append(pytest.param(LoadFailure(error), id=f"{source.name}/load"))
                else:
                    self.others.append(pytest.param(None, id=source.name, marks=pytest.mark.skip(reason=str(error))))
            except LOAD_ERRORS as error:
                self.others.append(pytest.param(LoadFailure(error), id=f"{source.name}/load"))


FOUND = pytest.StashKey[dict["Path | None", Found]]()


def _found(config: pytest.Config, folder: Path | None) -> Found:
    """The kernels of ``--kernel``, else those of a folder and of installed packages."""
    from quantsuite.conformance.isolated import IsolatedSource
    from quantsuite.kernels.loading import discover, require_file

    options = RunOptions.read(config.option)
    found = config.stash.setdefault(FOUND, {})
    if folder not in found:
        locations = options.kernel or discover(folder)
        for location in locations:
            require_file(location)
        sources = [IsolatedSource(location, limit=options.check_timeout) for location in dict.fromkeys(locations)]
        found[folder] = Found(sources=sources, named=bool(options.kernel))
        found[folder].load()
    return found[folder]


def pytest_configure(config: pytest.Config) -> None:
    for plugin in (Failures(), ShortSummary()):
        config.pluginmanager.register(plugin)


def pytest_unconfigure(config: pytest.Config) -> None:
    for found in config.stash.get(FOUND, {}).values():
        for source in found.sources:
            source.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if CASE not in metafunc.fixturenames:
        return
    try:
        cases = list(_parameters(metafunc.config, getattr(metafunc.module, FOLDER, None)))
    except ValueError as error:
        cases = [refused(error)]
    metafunc.parametrize(CASE, cases)


def _parameters(config: pytest.Config, folder: Path | None) -> Iterator[Any]:
    from quantsuite.conformance import cases as made
    from quantsuite.conformance.isolated import IsolatedCase
    from quantsuite.environment import resolve_device

    options = RunOptions.read(config.option)
    RunFile(options.numerics_output, option="--numerics-output").check_writable()
    found = _found(config, None if config.option.quantsuite_kernel else folder)
    device, schemes = resolve_device(options.device), None if list(options.scheme) == ["all"] else options.scheme
    if not found.sources:
        raise ValueError("there are no kernels; give one with --kernel path.py[:name]")
    kernels = found.kernels
    for name, count in Counter(kernel.name for kernel in kernels).items():
        if count > 1:
            places = " and ".join(kernel.source.location for kernel in kernels if kernel.name == name)
            raise ValueError(f"{places} have kernels of one name, {name!r}; give each its own")
    own = config.rootpath / KNOWN_FAILURES
    known = made.read_known_failures(own, datetime.date.today()) if own.exists() else []
    known += made.read_known_failures(SHIPPED_KNOWN_FAILURES, datetime.date.min)
    names = [kernel.name for kernel in kernels] if schemes is None else []
    cases = made.make_cases(kernels, device=device, schemes=schemes, seed=options.seed, case=IsolatedCase)
    if options.kernel and kernels:
        for name, reason in made.require_cases(cases, kernels, schemes).items():
            yield pytest.param(None, id=f"{name}/scheme", marks=pytest.mark.skip(reason=f"{name} {reason}"))
    yield from made.parameters(cases, known, names)
    yield from found.others


def _case(item: pytest.Item) -> CheckCase | None:
    made = sys.modules.get("quantsuite.conformance.cases")
    callspec = getattr(item, "callspec", None)
    if made is None or callspec is None:
        return None
    return next((value for value in callspec.params.values() if isinstance(value, made.CheckCase)), None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Under xdist in each worker, which collects all tests and runs some."""
    for item in session.items:
        if (case := _case(item)) is not None:
            case.selected = True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when != "call":
        return report
    if call.excinfo is not None:
        report.sections.extend(getattr(call.excinfo.value, "report_sections", ()))
    if (case := _case(item)) is not None:
        if report.failed and call.excinfo is not None and not item.config.option.fulltrace:
            report.longrepr = as_shown(call.excinfo.value, report)
        report.user_properties.append((RESULT, encode_line(property_result(case, report, call)).decode()))
    return report
