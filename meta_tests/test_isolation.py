"""Kernels that end, block or misuse their process cost their own cells and nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from meta_tests.misuse import KERNEL, LIMIT, running_in, wait_for
from quantsuite.conformance.process import KEPT_OUTPUT
from quantsuite.reading import read_run
from quantsuite.records import PropertyResult

ROOT = Path(__file__).parent.parent

RAISING = """
def right(x):
    return x


def fork_and_go_on(x):
    if os.fork() == 0:
        time.sleep(600)
    return x


def fork_twice_the_same(x):
    os.fork()
    return x


def interrupt(x):
    raise KeyboardInterrupt("stop")


def raise_odd(x):
    raise Odd("not today")


KERNELS = [
    Kernel("interrupts", interrupt),
    Kernel("exits", lambda x: sys.exit(2)),
    Kernel("asks", lambda x: input()),
    Kernel("nothing", lambda x: None),
    Kernel("number", lambda x: 3),
    Kernel("narrow", lambda x: x[..., :1]),
    Kernel("integers", lambda x: x.char()),
    Kernel("known", raise_odd),
    Kernel("forks", fork_and_go_on),
    Kernel("doubles", fork_twice_the_same),
]
"""
ENDING = """
KERNELS = [
    Kernel("faults", lambda x: os.kill(os.getpid(), signal.SIGSEGV)),
    Kernel("leaves", lambda x: os._exit(3)),
]
"""
BLOCKING = """
def block(x):
    while True:
        pass


def chatter(x):
    while True:
        print("chatter")


KERNELS = [Kernel("blocks", block), Kernel("chatters", chatter)]
"""
HOLDING = """
def hold(x):
    if os.fork() == 0:
        time.sleep(600)
    os._exit(4)


KERNELS = [Kernel("floods", lambda x: write_forever()), Kernel("holds", hold)]
"""
FILES = {
    "raising": KERNEL + RAISING,
    "ending": KERNEL + ENDING,
    "blocking": KERNEL + BLOCKING,
    "holding": KERNEL + HOLDING,
    "good": KERNEL + 'KERNELS = [Kernel("good", lambda x: x)]\n',
    "import_ends": "import os\nos._exit(7)\n",
    "import_blocks": "while True:\n    pass\n",
    "import_floods": KERNEL + "write_forever()\n",
    "import_fails": "import nowhere\n",
    "import_exits": "import sys\n\nsys.exit(1)\n",
}
NO_ANSWER = f"no answer within {LIMIT} s (--check-timeout); the process was ended"
KNOWN = """[[failure]]
id = "known/*/zeros_stay_zero"
reason = "odd"
link = "https://example.org"
expires = 2999-01-01
raises = "RuntimeError"
"""
SUITE = """
from pathlib import Path

kernel_folder = Path(__file__).parent / "kernels"


def test_all(conformance_check):
    conformance_check()
"""
CHECKS = ["-k", "/load or zeros_stay_zero or repeatable"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_all.py", *CHECKS, *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, env=environment())


def project(folder: Path, files: dict[str, str]) -> Path:
    """A folder with one test of every kernel of ``kernels/``."""
    (folder / "kernels").mkdir()
    (folder / "reports").mkdir()
    for name, content in files.items():
        (folder / "kernels" / f"{name}.py").write_text(content)
    (folder / "pytest.ini").write_text("[pytest]\nstrict = true\n")
    (folder / "conftest.py").write_text('pytest_plugins = ["quantsuite.plugin"]\n')
    (folder / "test_all.py").write_text(SUITE)
    return folder


@dataclass(frozen=True)
class Finished:
    folder: Path
    process: subprocess.CompletedProcess[str]
    properties: dict[tuple[str, str], PropertyResult]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run over all kernels here."""
    folder = project(tmp_path_factory.mktemp("contestants"), FILES)
    (folder / "reports" / "known_failures.toml").write_text(KNOWN)
    process = run(folder, "--check-timeout", str(LIMIT))
    results = read_run(folder / "reports" / "numerics.jsonl").properties
    return Finished(folder, process, {(found.contestant, found.property): found for found in results})


LOST = {
    "interrupts": "KeyboardInterrupt: stop",
    "exits": "SystemExit: 2",
    "asks": "EOFError: EOF when reading a line",
    "nothing": "nothing.quantize returned None, expected a Tensor [2, 4]",
    "number": "number.quantize returned an object of type int, expected a Tensor [2, 4]",
    "narrow": "narrow.quantize returned a Tensor [2, 1], expected a Tensor [2, 4]",
    "integers": "integers.quantize returned a Tensor of torch.int8, expected one of floating-point values",
    "faults": "faults: its process was ended by SIGSEGV",
    "leaves": "leaves: its process exited with code 3",
    "blocks": f"blocks: {NO_ANSWER}",
    "chatters": f"chatters: {NO_ANSWER}",
    "floods": f"floods: {NO_ANSWER}",
    "holds": "holds: its process exited with code 4",
}


@pytest.mark.parametrize("name", LOST)
def test_a_check_that_does_not_return_fails_alone_and_says_why(finished: Finished, name: str) -> None:
    assert finished.properties[name, "zeros_stay_zero"].outcome == "fails"
    assert finished.properties[name, "zeros_stay_zero"].reason == LOST[name]
    assert finished.properties[name, "repeatable"].outcome == "exact"


@pytest.mark.parametrize("name", ["good", "forks", "doubles"])
def test_checks_beside_those_that_do_not_return_hold(finished: Finished, name: str) -> None:
    assert finished.properties[name, "zeros_stay_zero"].outcome == "exact"
    assert finished.properties[name, "repeatable"].outcome == "exact"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("import_ends", "its process exited with code 7"),
        ("import_blocks", NO_ANSWER),
        ("import_floods", NO_ANSWER),
        ("import_fails", "No module named 'nowhere'; is its package installed?"),
        ("import_exits", "SystemExit: 1 (line 3 of"),
    ],
)
def test_a_file_of_kernels_that_cannot_be_loaded_is_one_failure_of_one_line(
    finished: Finished, name: str, line: str
) -> None:
    lines = finished.process.stdout.splitlines()
    (heading,) = (i for i, text in enumerate(lines) if f" test_all[{name}/load] " in text)
    assert lines[heading + 1].startswith(str(finished.folder / "kernels" / f"{name}.py: ") + line)
    assert lines[heading + 2].startswith(("---", "___", "==="))


def test_a_known_failure_names_the_builtin_class_of_what_is_raised(finished: Finished) -> None:
    found = finished.properties["known", "zeros_stay_zero"]
    assert found.outcome == "known failure"
    assert re.fullmatch(r"odd https://example\.org: raising_\w{16}\.Odd: not today", found.reason)


def test_the_run_goes_on_to_its_end_and_fails(finished: Finished) -> None:
    assert finished.process.returncode == pytest.ExitCode.TESTS_FAILED
    assert f"{len(LOST) + 5} failed" in finished.process.stdout


def test_a_failure_shows_the_kernels_own_frames_and_output(finished: Finished) -> None:
    text = finished.process.stdout
    assert "- output of blocking -" in text and text.count("chatter\n") < KEPT_OUTPUT
    frames = text.split("- traceback in the kernel -")[1].split("- traceback")[0]
    assert frames.splitlines()[2].startswith(f'  File "{finished.folder}/kernels/raising.py", line ')
    assert "in interrupt" in frames


def test_nothing_is_left_running(finished: Finished) -> None:
    assert wait_for(lambda: not running_in(finished.folder)), running_in(finished.folder)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_a_kernel_that_is_named_and_not_there_is_a_usage_error(workers: list[str], tmp_path: Path) -> None:
    project(tmp_path, {})
    result = run(tmp_path, "--kernel", "mine.py", *workers)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.strip() == "ERROR: mine.py does not exist; give a path to a Python file or a module's name"
    assert "INTERNALERROR" not in result.stdout


def test_a_kernel_that_is_named_and_cannot_be_loaded_costs_no_other(tmp_path: Path) -> None:
    folder = project(tmp_path, {"good": FILES["good"]})
    (folder / "mine.py").write_text("import nowhere")
    result = run(tmp_path, "--kernel", "mine.py", "--kernel", "kernels/good.py")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "mine.py: No module named 'nowhere'; is its package installed?" in result.stdout
    results = read_run(tmp_path / "reports" / "numerics.jsonl").properties
    assert {found.contestant for found in results} == {"good"}


def test_kernels_of_one_name_are_refused_with_their_places(tmp_path: Path) -> None:
    project(tmp_path, {"good": FILES["good"], "twin": FILES["good"]})
    result = run(tmp_path)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert re.search(r"kernels/good.py and \S+kernels/twin.py have kernels of one name, 'good'", result.stderr)


IGNORING = "for number in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(number, signal.SIG_IGN)"


def test_workers_check_kernels_too(tmp_path: Path) -> None:
    project(tmp_path, {"ending": FILES["ending"]})
    result = run(tmp_path, "-n", "2")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    results = read_run(tmp_path / "reports" / "numerics.jsonl").properties
    lost = {found.reason for found in results if found.outcome == "fails"}
    assert len(results) == 4 and lost == {LOST["faults"], LOST["leaves"]}


@pytest.mark.parametrize("before", ["pass", IGNORING], ids=["plain", "ignoring-signals"])
def test_a_check_that_holds_the_interpreter_ends_with_a_run_that_was_killed(before: str, tmp_path: Path) -> None:
    hold = "open('busy', 'w'); os.fork() or time.sleep(600); ctypes.PyDLL(None).sleep(600)"
    busy = f"def busy(x):\n    {before}\n    {hold}\n\n\nKERNELS = [Kernel('busy', busy)]\n"
    project(tmp_path, {"busy": KERNEL + busy})
    process = subprocess.Popen(command(), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    assert wait_for((tmp_path / "busy").exists, 60) and len(running_in(tmp_path)) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wait_for(lambda: not running_in(tmp_path)), running_in(tmp_path)
