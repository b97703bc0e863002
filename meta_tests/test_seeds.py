"""The verdict of a property hangs on no seed."""

from __future__ import annotations

import pytest

from quantsuite.checks import CheckFailure, NotApplicable, NotSupported
from quantsuite.conformance.cases import CheckCase, make_cases
from quantsuite.kernels.loading import load

SEEDS = range(1, 21)
SOURCES = ("torchao", "bitsandbytes", "quanto", "fake_quantizers", "ours")


def verdict(case: CheckCase) -> str:
    try:
        case.run()
    except (CheckFailure, NotApplicable, NotSupported) as error:
        return type(error).__name__
    except Exception as error:  # A kernel of anyone's raises what it likes.
        return f"raises {type(error).__name__}"
    return "held"


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_every_seed_gives_the_same_verdict(name: str) -> None:
    source = load(f"quantsuite.contestants.{name}")
    if source.missing is not None:
        pytest.skip(source.missing)
    by_seed = [{str(case): verdict(case) for case in make_cases(source.kernels, seed=seed)} for seed in SEEDS]
    differing = {case: {found[case] for found in by_seed} for case in by_seed[0]}
    assert {case: verdicts for case, verdicts in differing.items() if len(verdicts) > 1} == {}
