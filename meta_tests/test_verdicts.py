"""What a run says of kernels that fail: order, causes, messages, what was not checked, and how to see it again."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantsuite.checks import CHECKS, HYGIENE, CheckFailure, property_name
from quantsuite.conformance.cases import CheckCase, KnownFailure, make_cases, parameters
from quantsuite.conformance.explanation import property_sentence
from quantsuite.conformance.reproduction import find_case
from quantsuite.reading import read_run
from quantsuite.records import PropertyResult

ROOT = Path(__file__).parent.parent
KERNELS = """
class Kernel:
    operation, schemes, dtypes = "quantize", ("int8-row", "int4-row"), ("float32", "bfloat16", "float16")

    def __init__(self, name, change=lambda values: values, before=lambda x: x, **declared):
        self.name, self.change, self.before = name, change, before
        self.__dict__.update(declared)

    def quantize(self, x, operand):
        x = self.before(x)
        largest = 127 if "int8" in str(operand) else 7
        scale = (x.float().abs().amax(-1, keepdim=True) / largest).clamp(min=2.0**-126)
        return self.change(((x.float() / scale).round().clamp(-largest, largest) * scale).to(x.dtype))


def double_last(values):
    values[..., -1] *= 2
    return values


def fail(x):
    raise RuntimeError("no such tile")


right = Kernel("right", dtypes=("float32",))
doubled = Kernel("doubled", double_last)
careless = Kernel("careless", before=lambda x: x.mul_(3))
raising = Kernel("raising", before=fail)
partial = Kernel("partial", unsupported=lambda scheme, device: "no INT4 here" if "int4" in str(scheme) else None)
narrow = Kernel("narrow", schemes=("int8-row",))
KERNELS = [right, doubled, careless, raising, partial]
"""
FEW = "repeatable or ties or zeros or elements or signs or codes_are_used"


@dataclass(frozen=True)
class Ended:
    """A finished pytest run: its status, what it printed, what it recorded."""

    status: int
    shown: str
    results: list[PropertyResult]

    def of(self, kernel: str) -> list[PropertyResult]:
        return [result for result in self.results if result.contestant == kernel]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("verdicts")
    (made / "mine.py").write_text(KERNELS)
    return made


def run(folder: Path, *arguments: str, kernel: str = "mine.py", few: str = FEW) -> Ended:
    output = folder / "found.jsonl"
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "--pyargs", "quantsuite.conformance", "-q", "-p", "no:cacheprovider"]
    command += ["--numerics-output", str(output), "-k", few, "--kernel", *kernel.split(), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=600)
    results = read_run(output).properties if output.exists() else []
    return Ended(done.returncode, done.stdout + done.stderr, results)


@pytest.fixture(scope="module")
def all_of_them(folder: Path) -> Ended:
    return run(folder)


def test_a_failure_says_property_case_pattern_and_how_to_see_it_again(all_of_them: Ended) -> None:
    (first,) = re.findall(r"_ test_conformance\[doubled/int8-row/float32/elements_within_bound\] _+\n(.*\n.*\n.*\n.*)",
        all_of_them.shown)  # fmt: skip
    sentence, case, pattern, again = first.splitlines()
    assert re.fullmatch(
        "does not hold: No element is further from its value than .*, whatever the magnitudes.", sentence
    )
    assert case.startswith("doubled, int8-row, float32: ") and "times the bound" in case
    assert pattern.startswith("wrong: ") and "1 of 1 elements of [1, 1]" in pattern
    assert again.startswith("reproduce: python -m quantsuite reproduce doubled/int8-row/float32/elements_within_bound")


def test_the_line_that_reproduces_a_failure_does(all_of_them: Ended, folder: Path) -> None:
    line = next(line for line in all_of_them.shown.splitlines() if "reproduce doubled/int8-row/float32/elem" in line)
    command = shlex.split(line.removeprefix("reproduce: "))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=folder, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.strip() in all_of_them.shown
    assert done.stderr == ""


def test_a_failure_shows_no_source_of_the_suite(all_of_them: Ended) -> None:
    for place in ("quantsuite/checks/", "quantsuite/conformance/cases.py", "conformance_check()", "site-packages"):
        assert place not in all_of_them.shown.split("short test summary")[0]


def test_what_a_kernel_raises_is_shown_with_its_own_lines(all_of_them: Ended) -> None:
    assert "RuntimeError: no such tile" in all_of_them.shown
    assert 'raise RuntimeError("no such tile")' in all_of_them.shown
    assert "reproduce: python -m quantsuite reproduce raising/int8-row/float32/repeatable" in all_of_them.shown


def test_a_broken_kernel_prints_each_property_once(all_of_them: Ended) -> None:
    failed = [result for result in all_of_them.of("doubled") if result.outcome == "fails"]
    assert len(failed) >= 18
    assert len(re.findall(r"^_+ .*doubled.* _+$", all_of_them.shown, re.M)) <= 4
    (line,) = re.findall(r"^also: (.*int4-row float16)$", all_of_them.shown.split("raising/")[0], re.M)[:1]
    assert line.startswith("int8-row bfloat16, int8-row float16, int4-row float32, ")


def test_the_short_summary_has_a_line_for_each_property_with_its_reason(all_of_them: Ended) -> None:
    summary = all_of_them.shown.split("short test summary info")[1]
    lines = [line for line in summary.splitlines() if "doubled" in line]
    broken = {result.property for result in all_of_them.of("doubled") if result.outcome == "fails"}
    assert len(lines) == len(broken)
    assert all(re.match(r"FAILED doubled/int8-row/float32/\w+ - 6 cases: .{20}", line) for line in lines)


def test_the_number_of_failures_is_that_of_all_cases(all_of_them: Ended) -> None:
    fails = [result for result in all_of_them.results if result.outcome == "fails" and not result.follows]
    assert f"{len(fails)} failed" in all_of_them.shown


def test_every_case_is_shown_by_itself_on_demand(folder: Path) -> None:
    ended = run(folder, "-vvv", kernel="mine.py:doubled", few="ties")
    assert len(re.findall(r"^_+ test_conformance\[doubled/.*ties_go_to_even\] _+$", ended.shown, re.M)) == 6


def test_what_follows_from_broken_hygiene_is_no_fault_of_its_own(all_of_them: Ended) -> None:
    for kernel in ("careless", "raising"):
        results = all_of_them.of(kernel)
        own = [result for result in results if result.outcome == "fails" and not result.follows]
        assert {result.property for result in own} == {"repeatable"}
        following = [result for result in results if result.follows]
        assert {result.follows for result in following} == {"repeatable"}
        assert len({result.property for result in following}) >= 3


def test_under_xdist_what_follows_is_told_too(folder: Path) -> None:
    ended = run(folder, "-n", "2", kernel="mine.py:careless")
    own = [result for result in ended.results if result.outcome == "fails" and not result.follows]
    assert {result.property for result in own} == {"repeatable"} and len(own) == 6
    assert {result.follows for result in ended.results if result.outcome == "fails" and result not in own} == {
        "repeatable"
    }


def test_a_check_that_is_selected_alone_simply_runs(folder: Path) -> None:
    ended = run(folder, kernel="mine.py:careless", few="elements")
    assert {(result.outcome, result.follows) for result in ended.results} == {("fails", "")}


def cases_of(folder: Path, name: str) -> dict[str, CheckCase]:
    case = find_case(f"{name}/int8-row/float32/repeatable", [f"{folder / 'mine.py'}:{name}"], device="cpu")
    made = make_cases([case.kernel], schemes=["int8-row"])
    return {each.property: each for each in made if each.dtype_name == "float32"}


def test_hygiene_is_checked_first(folder: Path) -> None:
    names = list(cases_of(folder, "right"))
    count = sum(name in HYGIENE for name in names)
    assert count and set(names[:count]) <= HYGIENE and not set(names[count:]) & HYGIENE


def test_every_property_of_hygiene_is_one_of_a_check() -> None:
    names = {property_name(check) for checks in CHECKS.values() for check in checks}
    assert names >= HYGIENE


def test_an_expected_failure_of_hygiene_explains_no_other(folder: Path) -> None:
    cases = cases_of(folder, "careless")
    known = [KnownFailure(id="*/repeatable", reason="changes its input")]
    list(parameters(list(cases.values()), known, ()))
    for name in ("repeatable", "elements_within_bound"):
        with pytest.raises(CheckFailure, match="changed its input"):
            cases[name]()


def test_an_expected_failure_is_not_explained_away(folder: Path) -> None:
    cases = cases_of(folder, "careless")
    known = [KnownFailure(id="*/elements_within_bound", reason="changes its input")]
    list(parameters(list(cases.values()), known, ()))
    for name in ("repeatable", "elements_within_bound"):
        with pytest.raises(CheckFailure, match="changed its input"):
            cases[name]()
    with pytest.raises(pytest.skip.Exception, match=r"not checked: follows from repeatable: .* changed its input"):
        cases["zeros_stay_zero"]()


def test_properties_that_were_not_checked_are_told_with_their_reason(all_of_them: Ended) -> None:
    assert re.search(r"^partial: (\d) of \1 properties hold$", all_of_them.shown, re.M)
    assert "  not checked of int4-row: no INT4 here (repeatable, elements_within_bound, " in all_of_them.shown
    assert re.search(r"^careless: 0 of \d properties hold, 1 fail, \d not checked$", all_of_them.shown, re.M)
    assert "  not checked: follows from repeatable (" in all_of_them.shown


def test_dtypes_that_were_not_tried_are_told(all_of_them: Ended) -> None:
    assert re.search(r"^right: (\d) of \1 properties hold$", all_of_them.shown, re.M)
    assert "  dtypes declared: float32 only; bfloat16 and float16 were not tried" in all_of_them.shown
    assert all_of_them.shown.count("dtypes declared") == 1


@pytest.mark.parametrize(("kernel", "status"), [("partial", 1), ("right", 0)])
def test_a_property_that_was_not_checked_fails_a_run_that_requires_all(folder: Path, kernel: str, status: int) -> None:
    ended = run(folder, "--require-all", kernel=f"mine.py:{kernel}", few="ties or zeros or search")
    assert ended.status == status, ended.shown
    assert ("--require-all: not all properties were checked of partial" in ended.shown) == bool(status)


def test_without_that_option_it_does_not(folder: Path) -> None:
    assert run(folder, kernel="mine.py:partial", few="ties").status == 0


def test_a_scheme_skips_the_kernels_that_lack_it(folder: Path) -> None:
    ended = run(
        folder, "--scheme", "int4-row", "-rs", kernel="mine.py:right --kernel mine.py:narrow", few="ties or scheme"
    )
    assert ended.status == 0, ended.shown
    assert "narrow does not implement int4-row; it implements int8-row" in ended.shown
    assert {result.contestant for result in ended.results} == {"right"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ties", "'ties' is no id of a check; use kernel/scheme/dtype/property, as the test is called"),
        (
            "right/int8-row/float32/typo",
            "right has no check 'right/int8-row/float32/typo'; its ids look like right/int8",
        ),
        ("other/int8-row/float32/typo", "no kernel 'other' of 'other/int8-row/float32/typo'; found: right, doubled,"),
    ],
)
def test_an_id_that_names_nothing_says_what_does(folder: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        find_case(name, [str(folder / "mine.py")], device="cpu")


SUITE = """
from mine import doubled, raising

from quantsuite.conformance import parametrize_with_checks


@parametrize_with_checks([doubled, raising])
def test_kernel(check):
    check()
"""


def test_in_another_suite_a_failure_shows_that_suite_and_the_kernel_alone(folder: Path) -> None:
    (folder / "test_mine.py").write_text(SUITE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "test_mine.py",
        "-k",
        "ties or repeatable",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert "E       quantsuite.conformance.explanation.ExplainedFailure: does not hold: Halfway" in done.stdout
    assert (
        "reproduce: python -m pytest 'test_mine.py::test_kernel[doubled/int8-row/float32/ties_go_to_even]' --pdb"
        in (done.stdout)
    )
    assert re.search(r"^mine.py:\d+: RuntimeError$", done.stdout, re.M)
    assert not re.search(r"^\S*quantsuite/\S+:\d+: ", done.stdout.replace("SKIPPED", ""), re.M)


@pytest.mark.parametrize("name", [property_name(check) for checks in CHECKS.values() for check in checks])
def test_every_check_states_its_property_in_one_sentence(name: str) -> None:
    check = next(check for checks in CHECKS.values() for check in checks if property_name(check) == name)
    sentence = property_sentence(check)
    assert sentence.endswith(".") and len(sentence) > 20 and "\n" not in sentence
    assert sentence.rstrip(".") != check.__name__
