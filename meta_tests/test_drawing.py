"""Searches by Hypothesis inside a check: what they let through, and that the profile decides how much they draw."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from meta_tests.lifetime_faults import CachedProduct, shape
from quantsuite.checks.drawing import History, examples, search, search_histories
from quantsuite.checks.outcome import CheckFailure, NotApplicable
from quantsuite.checks.product_draws import check_product_histories
from quantsuite.scheme import Scheme


def fail_from_ten_on(number: int) -> float:
    if number >= 10:
        raise CheckFailure(f"{number} is too large")
    return 0.0


def test_the_smallest_failure_is_let_through_without_a_word_of_hypothesis() -> None:
    with pytest.raises(CheckFailure) as caught:
        search(st.integers(0, 1000), fail_from_ten_on, seed=0, count=50)
    assert str(caught.value) == "10 is too large"
    assert not getattr(caught.value, "__notes__", [])


def test_a_failure_that_does_not_recur_is_let_through() -> None:
    calls = []

    def once(_: int) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise CheckFailure("once")
        return 0.0

    with pytest.raises(CheckFailure, match="once"):
        search(st.integers(), once, seed=0, count=10)


def test_an_exception_of_a_kernel_is_let_through_with_its_class() -> None:
    def divide(number: int) -> float:
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        search(st.integers(0, 3), divide, seed=0, count=50)


def test_the_largest_error_is_returned() -> None:
    assert search(st.sampled_from([0.25, 0.5]), float, seed=0, count=20) == 0.5


def test_cases_that_do_not_apply_are_left_out_unless_all_are() -> None:
    def even(number: int) -> float:
        if number % 2:
            raise NotApplicable("odd")
        return 0.0

    assert search(st.integers(0, 9), even, seed=0, count=20) == 0
    with pytest.raises(NotApplicable, match="odd"):
        search(st.just(1), even, seed=0, count=20)


def drawn(seed: int, count: int | None = None) -> list[int]:
    found: list[int] = []

    def keep(number: int) -> float:
        found.append(number)
        return 0.0

    search(st.integers(0, 2**60), keep, seed=seed, count=count)
    return found


def test_the_seed_decides_what_is_drawn() -> None:
    assert drawn(1, 10) == drawn(1, 10)
    assert drawn(1, 10) != drawn(2, 10)


def test_the_profile_decides_how_much_is_drawn() -> None:
    before = settings.get_current_profile_name()
    settings.load_profile("thorough")
    try:
        assert examples() == 2000
        assert len(drawn(0)) == 2000
    finally:
        settings.load_profile(before)


class Counter(History):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @rule()
    def rest(self) -> None:
        self.step("rest", lambda: None)

    @rule()
    def add(self) -> None:
        self.count += 1
        self.step("add", lambda: fail_from_ten_on(9 if self.count < 2 else 10))


def test_the_shortest_history_is_listed_step_by_step() -> None:
    with pytest.raises(CheckFailure) as caught:
        search_histories(Counter, seed=0, steps=8, count=50)
    assert str(caught.value) == "after add; add: 10 is too large"


def test_the_failure_of_a_kernel_lists_the_steps_before_it() -> None:
    with pytest.raises(
        CheckFailure, match=r"^after a = pack\(weight \d\); y0 = linear\(x\[:1\] = activations \d, a\): "
    ):
        check_product_histories(
            CachedProduct(weight_key=shape), Scheme.parse("int8-row"), device="cpu", dtype=torch.float32, seed=7
        )


COUNTING = """
from quantsuite.checks.drawing import examples
class Kernel:
    name, operation, schemes = "counting", "linear", ("int8-row",)
    def pack(self, weight, scheme):
        raise RuntimeError(f"{examples()} examples")
    def linear(self, x, packed): ...
KERNELS = [Kernel()]
"""


@pytest.mark.parametrize(("profile", "count"), [("ci", 25), ("thorough", 2000)])
def test_the_profile_reaches_the_process_of_a_kernel(profile: str, count: int, tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    suite = "-m", "pytest", "--pyargs", "quantsuite.conformance", "--numerics-output=numerics.jsonl"
    options = "--kernel=counting.py", "-k", "product_repeatable", f"--hypothesis-profile={profile}"
    result = subprocess.run([sys.executable, *suite, *options], cwd=tmp_path, capture_output=True, text=True)
    assert f"RuntimeError: {count} examples" in result.stdout, result.stdout + result.stderr
