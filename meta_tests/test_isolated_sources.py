"""Kernels in a process of their own: its loss is told, what it started ends, and its results are those of this one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meta_tests.misuse import KERNEL, LIMIT, running_in, wait_for
from quantsuite.checks import CheckFailure, Measured, NotApplicable, NotSupported
from quantsuite.conformance.cases import CheckCase, make_cases
from quantsuite.conformance.isolated import MOST_LOST, IsolatedCase, IsolatedSource
from quantsuite.conformance.process import KEPT_OUTPUT, NoAnswer, ProcessLost
from quantsuite.kernels.loading import load

ROOT = Path(__file__).parent.parent


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[IsolatedSource]:
    """A source of one kernel that does on zeros what the parameter says."""
    path = tmp_path / "mine.py"
    body = f"FOLDER = {str(tmp_path)!r}\n\n\ndef act(x):\n    {request.param}\n"
    path.write_text(f'{KERNEL}\n{body}\n\nKERNELS = [Kernel("mine", act)]\n')
    made = IsolatedSource(str(path), limit=LIMIT)
    yield made
    made.close()


def cases(source: IsolatedSource, *names: str) -> list[IsolatedCase]:
    made = make_cases(source.load(), case=IsolatedCase)
    return [next(case for case in made if case.property == name) for name in names]


@pytest.mark.parametrize("source", ["os._exit(3)"], indirect=True)
def test_a_source_that_loses_its_process_again_and_again_is_given_up(source: IsolatedSource) -> None:
    zeros, repeatable = cases(source, "zeros_stay_zero", "repeatable")
    for _ in range(MOST_LOST):
        with pytest.raises(ProcessLost, match="mine: its process exited with code 3"):
            zeros()
    with pytest.raises(ProcessLost, match=f"mine: not run, mine has lost its process {MOST_LOST} times"):
        repeatable()


@pytest.mark.parametrize("source", ["os.fork()"], indirect=True)
def test_a_fork_of_a_kernel_answers_nothing(source: IsolatedSource) -> None:
    zeros, repeatable = cases(source, "zeros_stay_zero", "repeatable")
    with pytest.raises(CheckFailure, match=r"mine\.quantize returned None"):
        zeros()
    assert repeatable().tightness == 0


DAEMON = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True, cwd=FOLDER); return x"


@pytest.mark.parametrize("source", [DAEMON], indirect=True)
def test_what_a_kernel_starts_in_a_session_of_its_own_ends_too(source: IsolatedSource, tmp_path: Path) -> None:
    (zeros,) = cases(source, "zeros_stay_zero")
    assert zeros().tightness == 0
    assert len(running_in(tmp_path)) == 1
    source.close()
    assert wait_for(lambda: not running_in(tmp_path)), running_in(tmp_path)


@pytest.mark.parametrize("source", ["os.closerange(3, 100)", "forge()"], indirect=True)
def test_a_kernel_cannot_forge_an_answer(source: IsolatedSource) -> None:
    zeros, repeatable = cases(source, "zeros_stay_zero", "repeatable")
    with pytest.raises(ProcessLost, match="mine: its process"):
        zeros()
    assert repeatable().tightness == 0


@pytest.mark.parametrize("source", ["print('x' * 10**7); print('last words'); assert False"], indirect=True)
def test_the_end_of_what_a_kernel_prints_is_kept(source: IsolatedSource) -> None:
    (zeros,) = cases(source, "zeros_stay_zero")
    with pytest.raises(AssertionError) as caught:
        zeros()
    sections = dict(caught.value.report_sections)
    assert sections["output of mine"].endswith("x\nlast words\n")
    assert len(sections["output of mine"]) == KEPT_OUTPUT


@pytest.mark.parametrize("source", ["time.sleep(600)"], indirect=True)
def test_a_process_that_is_too_slow_is_ended(source: IsolatedSource, tmp_path: Path) -> None:
    (zeros,) = cases(source, "zeros_stay_zero")
    before = time.monotonic()
    with pytest.raises(NoAnswer):
        zeros()
    assert LIMIT <= time.monotonic() - before < 5 * LIMIT


def outcome(case: CheckCase) -> object:
    try:
        return case.run()
    except (CheckFailure, NotApplicable, NotSupported) as error:
        return type(error), str(error)


def test_results_of_another_process_are_those_of_this_one() -> None:
    location, schemes = str(ROOT / "kernels" / "ours.py"), ["nf4-g64", "int8-row:int8-token"]
    source = IsolatedSource(location, limit=0)
    there = make_cases(source.load(), schemes=schemes, case=IsolatedCase)
    here = make_cases(load(location).kernels, schemes=schemes)
    assert [str(case) for case in there] == [str(case) for case in here]
    found = [outcome(case) for case in there[::9]]
    source.close()
    assert found == [outcome(case) for case in here[::9]]
    assert {type(each) for each in found} == {Measured, tuple}
