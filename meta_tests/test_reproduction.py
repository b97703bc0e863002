"""``python -m quantsuite reproduce``: one check in this process, its message, its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from meta_tests.command import quantsuite
from meta_tests.test_verdicts import KERNELS


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(KERNELS)
    return str(path)


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("right/int8-row/float32/ties_go_to_even", 0, "right/int8-row/float32/ties_go_to_even: holds, exact"),
        ("doubled/int8-row/float32/ties_go_to_even", 1, "does not hold: Halfway"),
        ("right/int8-row/float32/search_reduces_errors", 2, "not applicable: int8-row searches no scales"),
        ("partial/int4-row/float32/ties_go_to_even", 2, "not supported: no INT4 here"),
        ("right/int8-row", 2, "is no id of a check"),
    ],
)
def test_its_end_is_told_and_is_the_exit_status(kernel: str, name: str, status: int, message: str) -> None:
    ended = quantsuite("reproduce", name, "--kernel", kernel, "--seed", "3", "--device", "cpu")
    assert (ended.status, message in ended.shown) == (status, True), ended.shown


def test_the_message_holds_the_very_command(kernel: str) -> None:
    arguments = ["reproduce", "doubled/int8-row/float32/ties_go_to_even", "--seed", "3", "--kernel", kernel]
    ended = quantsuite(*arguments, "--device", "cpu")
    assert f"python -m quantsuite {' '.join(arguments)}\n" in ended.shown


def test_what_the_kernel_raises_reaches_a_debugger(kernel: str) -> None:
    with pytest.raises(RuntimeError, match="no such tile") as caught:
        quantsuite("reproduce", "raising/int8-row/float32/zeros_stay_zero", "--kernel", kernel, "--device", "cpu")
    assert caught.traceback[-1].name == "fail"
    assert any("reproduce: python -m quantsuite" in note for note in caught.value.__notes__)
