"""The checks in other people's projects: a wheel of the package, a kernel and a suite of its own."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from meta_tests.mutants import AsymmetricQuantizer, PlainQuantizer
from quantsuite.checks import CheckFailure, NotApplicable
from quantsuite.conformance.cases import KnownFailure, make_cases, parameters, read_known_failures, require_cases
from quantsuite.kernels.loading import ENTRY_POINT_GROUP, load
from quantsuite.kernels.validation import KernelError
from quantsuite.quantize import dequantize, quantize
from quantsuite.reading import read_run

KERNEL = """
import torch


class Kernel:
    name = "mine"
    operation = "quantize"
    schemes = ("int8-row",)
    dtypes = ("float32",)

    def quantize(self, x, operand):
        if not torch.isfinite(x).all():
            raise ValueError("not finite")
        scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=2.0**-126)
        return ROUND(x / scale).clamp(-127, 127) * scale


kernel = Kernel()
"""
NEAREST, AWAY = "torch.round", "(lambda v: v.sign() * (v.abs() + 0.5).floor())"

SUITE = """
from mypackage.module import kernel

from quantsuite.conformance import parametrize_with_checks


@parametrize_with_checks([kernel], expected_failures=EXPECTED)
def test_kernel(check):
    check()
"""
NOT_INSTALLED = "from quantsuite.kernels.loading import require\nrequire('not_there', extra='theirs')\n"
TIES = "mine/int8-row/float32/ties_go_to_even"


@pytest.fixture
def project(tmp_path: Path, site: Path) -> Path:
    """A project with a right kernel, outside of this repository."""
    return make_project(tmp_path, NEAREST)


def make_project(folder: Path, rounding: str, expected: dict[str, str] | None = None) -> Path:
    (folder / "mypackage").mkdir()
    (folder / "mypackage" / "__init__.py").touch()
    (folder / "mypackage" / "module.py").write_text(KERNEL.replace("ROUND", rounding))
    (folder / "test_mine.py").write_text(SUITE.replace("EXPECTED", repr(expected)))
    return folder


def run(project: Path, site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in a project, with the wheel's package before every other."""
    environment = {**os.environ, "PYTHONPATH": f"{site}:{project}", "COLUMNS": "200"}
    command = [sys.executable, "-m", "pytest", "-q", "-rfx", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)


CONFORMANCE = ["--pyargs", "quantsuite.conformance", "--kernel"]


def test_conformance_runs_on_a_kernel_of_another_package_from_any_folder(project: Path, site: Path) -> None:
    result = run(project, site, *CONFORMANCE, "mypackage.module:kernel")
    assert result.returncode == 0, result.stdout + result.stderr
    results = read_run(project / "reports" / "numerics.jsonl").properties
    assert {found.contestant for found in results} == {"mine"}
    assert {found.outcome for found in results} <= {"exact", "within bound", "not applicable"}
    assert next(found for found in results if found.property == "ties_go_to_even").outcome == "exact"


def test_an_unreadable_file_of_an_earlier_run_is_set_aside(project: Path, site: Path) -> None:
    reports = project / "reports"
    reports.mkdir()
    (reports / "numerics.jsonl").write_text("{")
    result = run(project, site, *CONFORMANCE, "mypackage.module:kernel")
    assert result.returncode == 0, result.stdout + result.stderr
    assert read_run(reports / "numerics.jsonl").properties
    (aside,) = set(reports.iterdir()) - {reports / "numerics.jsonl"}
    assert aside.read_text() == "{"


def test_an_installed_package_offers_its_kernels_by_an_entry_point(project: Path, site: Path) -> None:
    metadata = project / "mypackage-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nmine = mypackage.module:kernel\n")
    result = run(project, site, *CONFORMANCE[:2])
    assert result.returncode == 0, result.stdout + result.stderr
    results = read_run(project / "reports" / "numerics.jsonl").properties
    assert {found.contestant for found in results} == {"mine"}


def test_a_wrong_kernel_fails_with_its_case_and_excess(tmp_path: Path, site: Path) -> None:
    project = make_project(tmp_path, AWAY)
    result = run(project, site, *CONFORMANCE, "mypackage/module.py:kernel")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "all midpoints at scale 1: element" in result.stdout
    found = {found.property: found for found in read_run(project / "reports" / "numerics.jsonl").properties}
    assert found["ties_go_to_even"].outcome == "fails"
    assert "no error is allowed" in found["ties_go_to_even"].reason


def test_the_checks_run_inside_another_suite(project: Path, site: Path) -> None:
    result = run(project, site, "test_mine.py")
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


def test_an_expected_failure_is_expected(tmp_path: Path, site: Path) -> None:
    result = run(make_project(tmp_path, AWAY, {"mine/int8-row/float32/*ties*": "rounds away"}), site, "test_mine.py")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "rounds away" in result.stdout and "2 xfailed" in result.stdout


def test_an_expected_failure_that_does_not_fail_fails(tmp_path: Path, site: Path) -> None:
    result = run(make_project(tmp_path, NEAREST, {TIES: "rounds away"}), site, "test_mine.py")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "XPASS(strict)" in result.stdout


def test_an_expected_failure_that_names_nothing_is_an_error(tmp_path: Path, site: Path) -> None:
    result = run(make_project(tmp_path, NEAREST, {"mine/int8-row/typo": "?"}), site, "test_mine.py")
    assert result.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    assert "expected failure 'mine/int8-row/typo' matches no case; ids look like mine/int8-row" in result.stdout


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("nowhere.py", "nowhere.py does not exist; give a path to a Python file"),
        ("mypackage.module:other", "mypackage.module has no 'other'; it has"),
        ("empty.py", "set KERNELS to a list of them, or name one object as empty.py:name"),
        ("mypackage.module", "set KERNELS to a list of them, or name one object as mypackage.module:name"),
        ("mypackage.module:Kernel.quantize", "mypackage.module has no 'Kernel.quantize'"),
        ("mypackage.module:torch", "a kernel needs name, operation, schemes"),
        ("not_installed.kernel:kernel", "is its package installed?"),
    ],
)
def test_what_cannot_be_loaded_says_what_can(
    kernel: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path, NEAREST)
    (tmp_path / "empty.py").write_text("KERNELS = []")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KernelError, match=re.escape(message)):
        load(kernel)
    sys.modules.pop("mypackage.module", None)
    sys.modules.pop("mypackage", None)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("name = 3", "name is 3, expected a string"),
        ("name = ''", "name is '', expected a string"),
        ("schemes = 'int8-row'", "schemes of mine is 'int8-row', expected a list of strings"),
        ("schemes = None", "schemes of mine is None, expected a list of strings"),
        ("schemes = ('int9-row',)", "mine claims 'int9-row': unknown"),
        ("schemes = ('int8-row', 8)", "schemes of mine is ('int8-row', 8), expected a list of strings"),
        ("dtypes = ('float31',)", "mine has dtype 'float31'; use names such as 'bfloat16'"),
        ("dtypes = ('int8',)", "mine has dtype 'int8'; use names such as 'bfloat16'"),
        ("accumulator_bits = 0", "accumulator_bits of mine is 0, expected a whole number from 1"),
        ("operation = ['quantize']", "unknown operation ['quantize']; use quantize or linear"),
    ],
)
def test_what_a_kernel_declares_wrongly_is_named(attribute: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"{KERNEL.replace('ROUND', NEAREST)}\nKernel.{attribute}\nKERNELS = [kernel]\n")
    with pytest.raises(KernelError, match=re.escape(f"{path}: {message}")):
        load(str(path))


def test_a_missing_library_is_named_with_the_line_that_installs_it(tmp_path: Path) -> None:
    path = tmp_path / "theirs.py"
    path.write_text(NOT_INSTALLED)
    source = load(str(path))
    assert source.kernels == ()
    assert source.missing is not None and source.missing.endswith("pip install 'quantsuite[theirs]'")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "from quantsuite.kernels.loading import require\nrequire('not_there', extra='theirs')",
            "pip install 'quantsuite[",
        ),
        (
            f"{KERNEL}\nKernel.unsupported = lambda *case: 'no such unit'\nKERNELS = [kernel]",
            "no check of mine ran: no such unit",
        ),
        (f"{KERNEL}\nKernel.schemes = ()\nKERNELS = [kernel]", "mine does not implement any scheme"),
    ],
)
def test_a_kernel_that_was_asked_for_and_cannot_run_fails_the_run(
    content: str, message: str, tmp_path: Path, site: Path
) -> None:
    (tmp_path / "mine.py").write_text(content)
    result = run(tmp_path, site, *CONFORMANCE, "mine.py")
    assert result.returncode != pytest.ExitCode.OK
    assert message in result.stdout + result.stderr


class Careless:
    """Right arithmetic on what it first changes in its caller's tensors."""

    name, schemes, dtypes = "careless", ("int8-row",), ("float32",)

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def quantize(self, x, operand):
        return dequantize(quantize(x.clamp_(-1, 1), operand))

    def pack(self, weight, scheme):
        return weight

    def linear(self, x, packed):
        return x.clamp_(-1, 1) @ packed.T


@pytest.mark.parametrize("operation", ["quantize", "linear"])
def test_a_kernel_that_changes_its_input_holds_no_property_of_values(operation: str) -> None:
    """Expected values come from the tensor that it was given."""
    failed = {}
    for case in make_cases([Careless(operation)]):
        try:
            case.run()
        except CheckFailure as error:
            failed[case.property] = str(error)
        except NotApplicable:
            continue
    names = {"quantize": "elements_within_bound", "linear": "product_within_bound"}
    assert "changed its input" in failed[names[operation]]
    assert len(failed) > 6


def test_schemes_are_chosen_by_any_of_their_names() -> None:
    cases = make_cases([PlainQuantizer()], schemes=["INT8_Per_Row", "fp4-g32"])
    assert {str(case.subject) for case in cases} == {"int8-row", "fp4-g32"}


@pytest.mark.parametrize(
    ("schemes", "message"),
    [
        (["int8-g37"], "plain does not implement int8-g37; it implements int8-row, int8-row-full"),
        (["int8-row", "int8-g37"], "no kernel implements int8-g37; they implement int8-row"),
        (["int9-row"], "unknown scheme 'int9-row'"),
    ],
)
def test_a_scheme_that_no_chosen_kernel_implements_is_an_error(schemes: list[str], message: str) -> None:
    kernels = [PlainQuantizer()]
    with pytest.raises(ValueError, match=message):
        require_cases(make_cases(kernels, schemes=schemes), kernels, schemes)


def test_a_kernel_without_a_scheme_is_told_beside_one_that_has_it() -> None:
    kernels = [PlainQuantizer(), AsymmetricQuantizer()]
    without = require_cases(make_cases(kernels, schemes=["int8-row"]), kernels, ["int8-row"])
    assert list(without) == ["plain-asymmetric"]
    assert without["plain-asymmetric"].startswith("does not implement int8-row; it implements int8-row-asym")
    assert not require_cases(make_cases(kernels[:1], schemes=["int8-row"]), kernels[:1], ["int8-row"])


ENTRY = """[[failure]]
id = "{id}"
reason = "why"
link = "https://example.org"
expires = {expires}
"""


def known(tmp_path: Path, entry: str) -> list[KnownFailure]:
    path = tmp_path / "known_failures.toml"
    path.write_text(entry)
    return read_known_failures(path, datetime.date(2026, 1, 1))


def test_a_known_failure_expires(tmp_path: Path) -> None:
    assert len(known(tmp_path, ENTRY.format(id="a/*", expires="2026-01-02"))) == 1
    with pytest.raises(ValueError, match=r"a/\* expired on 2026-01-01; see whether it is fixed"):
        known(tmp_path, ENTRY.format(id="a/*", expires="2026-01-01"))


def test_a_known_failure_raises_what_there_is(tmp_path: Path) -> None:
    entry = ENTRY.format(id="plain/*", expires="2027-01-01") + 'raises = "RuntimeEror"'
    with pytest.raises(ValueError, match="raises 'RuntimeEror' is neither CheckFailure nor built in"):
        list(parameters(make_cases([PlainQuantizer()]), known(tmp_path, entry), []))


@pytest.mark.parametrize(("line", "message"), [("because = 1", "unknown"), ("", "missing")])
def test_a_known_failure_has_all_keys_and_no_others(line: str, message: str, tmp_path: Path) -> None:
    entry = ENTRY.format(id="a", expires="2027-01-01") if line else '[[failure]]\nid = "a"\n'
    with pytest.raises(ValueError, match=f"entry 'a': {message}"):
        known(tmp_path, entry + line)


def test_a_known_failure_that_matches_no_case_is_an_error(tmp_path: Path) -> None:
    cases = make_cases([PlainQuantizer()])
    typo = known(tmp_path, ENTRY.format(id="plain/*/typo", expires="2027-01-01"))
    with pytest.raises(ValueError, match=r"known failure 'plain/\*/typo' matches no case; remove it or correct its id"):
        list(parameters(cases, typo, ["plain"]))
    assert len(list(parameters(cases, typo, []))) == len(cases)


def test_without_a_kernel_conformance_says_how_to_give_one(project: Path, site: Path) -> None:
    result = run(project, site, "--pyargs", "quantsuite.conformance")
    assert result.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    assert "give one with --kernel path.py[:name]" in result.stdout + result.stderr
