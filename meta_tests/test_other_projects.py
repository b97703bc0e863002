"""With quantsuite installed, tests of other projects run as without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from meta_tests.wheels import run_python
from quantsuite.options import RunOptions

OTHER_PYTEST = os.environ.get("QUANTSUITE_OTHER_PYTEST")
NAMES = ("--device", "--seed", "--model", "--dtype", "--output", "--baseline", "--limit", "--kernel")
OWN_OPTIONS = """
def pytest_addoption(parser):
    for name in NAMES:
        parser.addoption(name, default="theirs")
"""
OWN_TEST = """
import os
import sys

from hypothesis import given, settings, strategies


def test_options_are_theirs(pytestconfig):
    assert {pytestconfig.getoption(name[2:]) for name in NAMES} == {"mine", "theirs"}


def test_nothing_is_imported():
    assert {name for name in sys.modules if name.startswith("quantsuite.")} <= {"quantsuite.entry"}
    assert "torch" not in sys.modules


def test_the_profile_is_theirs():
    assert repr(settings.default) == os.environ["PROFILE_WITHOUT"]


def test_known_markers(request):
    assert not any("cells" in line for line in request.config.getini("markers"))
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(
    params=[
        "this pytest",
        pytest.param(
            "pytest 8.4",
            marks=pytest.mark.skipif(
                OTHER_PYTEST is None,
                reason="QUANTSUITE_OTHER_PYTEST names no folder: pip install --target FOLDER pytest==8.4.2",
            ),
        ),
    ]
)
def run(request: pytest.FixtureRequest, site: Path, tmp_path: Path) -> Run:
    """pytest in a scratch folder beside the installed package."""
    extra = (Path(OTHER_PYTEST),) if request.param == "pytest 8.4" and OTHER_PYTEST else ()

    def start(*arguments: str, path: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        return run_python(tmp_path, "pytest", "-p", "no:cacheprovider", *arguments, path=(*path, *extra, site))

    return start


def plugin(folder: Path, name: str, source: str, *, group: str = "pytest11", attribute: str = "") -> Path:
    """A folder that holds another installed package: a pytest plugin, or what a group of entry points takes."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{name}.py").write_text(source)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {name}{attribute}\n")
    return folder


@pytest.mark.parametrize("where", ["as here", "continuous integration"])
def test_options_profile_and_imports_of_a_project_are_its_own(
    where: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "continuous integration":  # where Hypothesis itself takes another profile
        monkeypatch.setenv("CI", "true")
    command = [sys.executable, "-c", "from hypothesis import settings; print(settings.default)"]
    alone = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    monkeypatch.setenv("PROFILE_WITHOUT", alone.strip())
    (tmp_path / "conftest.py").write_text(f"NAMES = {NAMES}\n{OWN_OPTIONS}")
    (tmp_path / "test_own.py").write_text(f"NAMES = {NAMES}\n{OWN_TEST}")
    result = run("--device", "mine", "--seed=mine", "--strict-markers", "-W", "error")
    assert "4 passed" in result.stdout, result.stdout + result.stderr


def test_output_is_as_without(run: Run, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("def test(): pass\n")
    output = run().stdout
    assert "quantsuite:" not in output and "records:" not in output
    assert list(tmp_path.glob("reports")) == []


@pytest.mark.parametrize("where", ["another plugin", "conftest"])
def test_short_options_give_way_and_say_so(where: str, run: Run, tmp_path: Path) -> None:
    source = 'def pytest_addoption(parser):\n    parser.addoption("--device", default="theirs")\n'
    path = ()
    if where == "conftest":
        (tmp_path / "conftest.py").write_text(source)
    else:
        path = (plugin(tmp_path / "plugins", "theirs", source),)
    arguments = ("--pyargs", "quantsuite.accuracy", "--co", "-q", "--scheme", "bf16")
    result = run("--pyargs", "quantsuite.accuracy", "--co", "--scheme", "bf16", path=path)
    assert "--device of another plugin or conftest.py; for ours use --quantsuite-device" in result.stdout, (
        result.stdout + result.stderr
    )
    result = run(*arguments, "--quantsuite-device", "abacus", "--device", "cpu", path=path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_option_has_a_long_form(run: Run) -> None:
    arguments = ["--quantsuite-model=tiny", "--quantsuite-limit=4", "--quantsuite-scheme=bf16", "--quantsuite-seed=3"]
    result = run("--pyargs", "quantsuite.accuracy", "--co", "-q", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "limit 4, seed 3" in run("--pyargs", "quantsuite.accuracy", "--co", *arguments).stdout
    help_text = run("--pyargs", "quantsuite.accuracy", "--help").stdout
    missing = [
        name for name in RunOptions.__dataclass_fields__ if f"--quantsuite-{name.replace('_', '-')}" not in help_text
    ]
    assert missing == []


@pytest.mark.parametrize("option", ["--model", "--wikitext", "--output", "--quantsuite-model"])
def test_a_folder_that_an_option_names_is_no_place_of_tests(option: str, run: Run, tmp_path: Path) -> None:
    """pytest takes values of options that it does not know yet for places of tests, and imports their conftest.py."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "conftest.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\n")
    run("--pyargs", "quantsuite.accuracy", "--scheme", "bf16", option, "./checkpoint")
    assert not (tmp_path / "marker").exists()


def test_starting_costs_other_projects_next_to_nothing(run: Run, tmp_path: Path) -> None:
    """Modules are counted, since seconds depend on the machine."""
    heavy = {"msgspec", "rich", "scipy", "tqdm", "torch", "quantsuite.options"}
    (tmp_path / "test_own.py").write_text(f"import sys\ndef test(): assert not {heavy} & set(sys.modules)\n")
    assert "1 passed" in run().stdout
