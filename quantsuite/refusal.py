"""What makes a run impossible, carried from where tests are parametrized to where a run can be ended.

An error in ``pytest_generate_tests`` would be one of each test file; in a worker of pytest-xdist nothing can end the
run.  So a single parameter whose id is the message stands for the tests that cannot be made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

_MARK = "[refused: "


def refused(error: Exception) -> Any:
    """The parameter that stands for what cannot be made."""
    return pytest.param(None, id=f"{_MARK[1:]}{error}")


def refusal(ids: Iterable[str]) -> str | None:
    """The message of the first test's id that holds one; pytest escapes what is not ASCII in ids."""
    first = next((name for name in ids if _MARK in name), None)
    if first is None:
        return None
    text = first.partition(_MARK)[2].rpartition("]")[0]
    return text.encode("ascii", "backslashreplace").decode("unicode_escape")
