"""One check of one kernel in this process, by the id of its test: for a debugger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantsuite import contestants
from quantsuite.checks import CheckFailure, NotApplicable, NotSupported
from quantsuite.conformance.cases import CheckCase, make_cases
from quantsuite.conformance.explanation import explain, reproduction
from quantsuite.environment import resolve_device
from quantsuite.kernels.loading import discover, load


@dataclass(kw_only=True)
class LocatedCase(CheckCase):
    """A check of a kernel that was loaded from a file or module."""

    location: str = ""

    def repetition(self) -> str:
        return reproduction(str(self), seed=self.seed, device=self.device, location=self.location)


def find_case(name: str, locations: Sequence[str] = (), *, device: str = "auto", seed: int = 0) -> LocatedCase:
    """The case of an id ``kernel/scheme/dtype/property``.

    Args:
        name: the id.
        locations: as :func:`quantsuite.kernels.loading.load` takes them; without, the shipped kernels and those of
            installed packages.
        device: where the inputs lie.
        seed: of the inputs.

    Raises:
        ValueError: if the id is none, or no kernel that was found has it.
        KernelError: if a location cannot be loaded.
    """
    parts = name.rsplit("/", 3)
    if len(parts) != 4:
        raise ValueError(f"{name!r} is no id of a check; use kernel/scheme/dtype/property, as the test is called")
    place, known = resolve_device(device), []
    for location in locations or discover(Path(contestants.__file__).parent):
        for kernel in load(location).kernels:
            known.append(kernel.name)
            if kernel.name != parts[0]:
                continue
            cases = make_cases([kernel], device=place, seed=seed, case=LocatedCase)
            for case in cases:
                case.location = location
                if str(case) == name:
                    return case
            raise ValueError(f"{kernel.name} has no check {name!r}; its ids look like {cases[0] if cases else 'none'}")
    raise ValueError(f"no kernel {parts[0]!r} of {name!r}; {_found(known)}; give its file or module with --kernel")


def _found(names: Sequence[str]) -> str:
    return f"found: {', '.join(names)}" if names else "found none"


def reproduce(case: LocatedCase) -> int:
    """Run a case and print how it ends; returns 0 if the property holds, 1 if not, 2 if it could not be checked.

    Raises:
        Exception: whatever the kernel raises, for a debugger to stop at.
    """
    try:
        measured = case.run()
    except NotApplicable as error:
        print(f"{case}: not applicable: {error}")
        return 2
    except NotSupported as error:
        print(f"{case}: not supported: {error}")
        return 2
    except CheckFailure as error:
        print(explain(case, error))
        return 1
    except Exception as error:
        raise explain(case, error) from None
    print(f"{case}: holds, {'exact' if measured.tightness == 0 else f'within {measured.tightness:.4g} of the bound'}")
    return 0
