"""Kernels that are loaded and checked in a process of their own, and their cases."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from quantsuite.checks import Measured
from quantsuite.checks.drawing import examples
from quantsuite.conformance.cases import CheckCase
from quantsuite.conformance.explanation import reproduction
from quantsuite.conformance.messages import CheckRequest, Declaration, LoadRequest, Request, add_section
from quantsuite.conformance.process import KernelProcess, NoAnswer, ProcessLost
from quantsuite.kernels.validation import KernelError

LOAD_ERRORS = (KernelError, ProcessLost, NoAnswer)
"""Why a source cannot be loaded, beside a library that is missing."""
MOST_LOST = 3
"""How often the process of a source may die or be ended before its remaining cases are given up."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IsolatedKernel:
    """What a kernel of another process says of itself; ``place`` is its number in its source."""

    source: IsolatedSource
    place: int
    name: str
    operation: str
    schemes: list[str]
    dtypes: list[str]
    declares: dict[str, str] = field(default_factory=dict)


class IsolatedSource:
    """A file, module or entry point, in a process that is started when it is needed.

    Args:
        location: as :func:`quantsuite.kernels.loading.load` takes it.
        limit: seconds that loading, and each check, may take; 0 for no limit.
    """

    def __init__(self, location: str, *, limit: float) -> None:
        self.location = location
        self.name = Path(location).stem if location.endswith(".py") else location
        self._limit = limit
        self._launch = partial(KernelProcess, path=tuple(sys.path), folder=os.getcwd())
        self._process: KernelProcess | None = None
        self._lost = 0

    def start(self) -> None:
        """Start the process without waiting for it."""
        if self._process is None:
            self._process = self._launch()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.end()
        self._process = None

    def load(self) -> list[IsolatedKernel]:
        """What the source declares.

        Raises:
            MissingLibraryError: if a library is not installed.
            KernelError: if it cannot be loaded.
            ProcessLost: if loading it ends the process.
            NoAnswer: if loading it takes longer than the limit.
        """
        return [
            IsolatedKernel(source=self, place=place, **msgspec.structs.asdict(declaration))
            for place, declaration in enumerate(self._load())
        ]

    def check(self, request: CheckRequest, name: str) -> Measured:
        """What a check measured; in a fresh process, if the last one was lost.

        Raises:
            ProcessLost: if the process dies, or died or was ended :data:`MOST_LOST` times before.
            NoAnswer: if the check takes longer than the limit.
            BaseException: what the check raised.
        """
        __tracebackhide__ = True
        if self._lost >= MOST_LOST:
            raise ProcessLost(f"{name}: not run, {self.name} has lost its process {self._lost} times", pytrace=False)
        if self._process is None:
            self._load()
        return self._ask(request, name)

    def _load(self) -> list[Declaration]:
        __tracebackhide__ = True
        self.start()
        try:
            return self._ask(LoadRequest(location=self.location), self.location)
        except BaseException:
            self.close()
            raise

    def _ask(self, request: Request, name: str) -> Any:
        __tracebackhide__ = True
        process = self._process
        assert process is not None
        try:
            return process.ask(request, name=name, limit=self._limit).unwrap()
        except BaseException as error:
            if process.ended:
                self._lost, self._process = self._lost + 1, None
            add_section(error, f"output of {self.name}", process.output.decode(errors="replace"))
            raise


@dataclass(kw_only=True)
class IsolatedCase(CheckCase):
    """One check of a kernel in its own process."""

    kernel: IsolatedKernel

    @property
    def declares(self) -> dict[str, str]:
        return self.kernel.declares

    def repetition(self) -> str:
        return reproduction(str(self), seed=self.seed, device=self.device, location=self.kernel.source.location)

    def run(self) -> Measured:
        __tracebackhide__ = True
        request = CheckRequest(
            place=self.kernel.place,
            scheme=str(self.subject),
            property=self.property,
            device=self.device,
            dtype=self.dtype_name,
            seed=self.seed,
            examples=examples(),
        )
        return self.kernel.source.check(request, self.kernel.name)
