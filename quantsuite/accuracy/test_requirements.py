"""What rows of requirements say of what was measured, row by row and scheme by scheme."""

from collections.abc import Callable

import pytest

from quantsuite.margins import Margins
from quantsuite.records import Record
from quantsuite.requirements.cases import Requirement
from quantsuite.requirements.plugin import UNDECIDED


def test_requirement(
    requirement: Requirement,
    measured_so_far: list[Record],
    margins: Margins,
    record_property: Callable[[str, object], None],
) -> None:
    """The interval of what was measured lies within what the row requires."""
    finding = requirement.judge(measured_so_far, margins)
    if finding.status == "absent":
        pytest.skip(finding.text)
    if finding.status in ("missed", "failed") or (finding.status, requirement.row.undecided) == ("undecided", "fail"):
        pytest.fail(finding.text, pytrace=False)
    if finding.status == "undecided":
        record_property(UNDECIDED, [requirement.name, finding.text])
