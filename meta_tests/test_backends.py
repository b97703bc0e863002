"""Engines are opened by name, and several of one loaded model run beside each other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from meta_tests.command import accuracy
from meta_tests.test_engine import uneven
from meta_tests.test_other_projects import plugin
from quantsuite.adapters.backend import TransformersBackend
from quantsuite.adapters.loading import load_model
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.engine import Engine, Rows, ScoreRequest, ScoreResult, open_backend, open_engine
from quantsuite.environment import describe_environment, resolve_device
from quantsuite.layer import UnsupportedError
from quantsuite.linear import quantized
from quantsuite.scheme import REFERENCE, Scheme

INT8, INT4 = Scheme.parse("int8-row"), Scheme.parse("int4-g64")
REQUESTS = [ScoreRequest(tokens=tuple(tokens), first=21, want=Rows()) for tokens in uneven(shared=20)]


def rows(results: Iterator[ScoreResult]) -> torch.Tensor:
    return torch.cat([result.log_probs for result in sorted(results, key=lambda r: (r.request, r.first))])


def scores(engine: Engine) -> torch.Tensor:
    return rows(engine.score(REQUESTS))


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return open_backend("transformers", "tiny", device="cpu")


@pytest.fixture(scope="module")
def untouched() -> torch.Tensor:
    """What the model predicts before anything was quantized."""
    return scores(TransformersEngine(load_model("tiny").model))


@pytest.mark.parametrize("execution", ["simulated", "real"])
@pytest.mark.parametrize("scheme", [INT8, INT4], ids=str)
def test_an_opened_engine_runs_the_quantized_model(scheme: Scheme, execution: str, untouched: torch.Tensor) -> None:
    model = load_model("tiny").model
    with quantized(model, scheme, execution):
        expected = scores(TransformersEngine(model))
    with open_engine("transformers", "tiny", scheme, execution=execution, device="cpu") as engine:
        assert torch.equal(scores(engine), expected)
    assert not torch.equal(expected, untouched)


def test_no_execution_is_the_model_as_it_is(backend: TransformersBackend, untouched: torch.Tensor) -> None:
    with backend.engine(INT8, None) as engine:
        assert torch.equal(scores(engine), untouched)


def test_engines_of_one_backend_run_in_turns_without_a_trace_in_each_other(backend, untouched: torch.Tensor) -> None:
    def alone(scheme: Scheme) -> torch.Tensor:
        with backend.engine(scheme, "simulated") as engine:
            return scores(engine)

    with backend.engine(INT8, "simulated") as int8, backend.engine(REFERENCE, None) as reference:
        with backend.engine(INT4, "simulated") as int4:
            in_turns = list(zip(*(engine.score(REQUESTS) for engine in (int8, reference, int4)), strict=True))
        found = [rows(iter(results)) for results in zip(*in_turns, strict=True)]
        assert torch.equal(found[0], scores(int8))
    assert all(map(torch.equal, found, (alone(INT8), untouched, alone(INT4))))


def test_a_quantized_engine_shares_the_weights_that_are_left(backend: TransformersBackend) -> None:
    with backend.engine(REFERENCE, None) as reference, backend.engine(INT8, "real") as engine:
        ours, theirs = (e.model.get_input_embeddings().weight.data_ptr() for e in (engine, reference))
        assert ours == theirs
        assert backend.weight_bytes(engine) < 0.7 * backend.weight_bytes(reference)


@pytest.mark.parametrize(
    ("scheme", "options", "reason"),
    [
        ("int8-g96", {}, "group size 96 does not divide K="),
        ("int8-row", {"kernel": "mine"}, "there is no kernel 'mine'; known: ours-int32"),
    ],
)
def test_what_cannot_run_is_said_and_refused(backend, scheme: str, options: dict[str, str], reason: str) -> None:
    plan = Scheme.parse(scheme)
    assert reason in backend.unsupported(plan, "simulated", **options)
    assert backend.unsupported(plan, None, **options) is None
    with pytest.raises(UnsupportedError, match=reason), backend.engine(plan, "simulated", **options):
        raise AssertionError


def test_the_head_is_quantized_where_it_is_asked_for(backend: TransformersBackend) -> None:
    with backend.engine(INT8, "real") as without, backend.engine(INT8, "real", include_head=True) as with_head:
        assert not torch.equal(scores(without), scores(with_head))


def test_an_unknown_engine_is_one_line_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"unknown engine 'transfomers'; did you mean 'transformers'\? known: "):
        open_backend("transfomers", "tiny")


def test_an_unknown_engine_ends_a_run_before_it_begins(tmp_path: Path) -> None:
    result = accuracy("--engine", "abacus", "--output", str(tmp_path / "run.json"))
    assert result.status == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: unknown engine 'abacus'; known: " in result.shown and "Traceback" not in result.shown


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed packages: one that cannot be imported, and one that takes the built-in engine's name."""
    broken = plugin(tmp_path / "a", "broken", "import nowhere", group="quantsuite.engines", attribute=":open")
    thief = plugin(tmp_path / "b", "transformers", "", group="quantsuite.engines", attribute=".nowhere:open")
    for folder in (broken, thief):
        monkeypatch.syspath_prepend(str(folder))


@pytest.mark.usefixtures("offered")
def test_an_engine_that_cannot_be_imported_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"the engine 'broken' \(broken:open\) cannot be imported: No module named"):
        open_backend("broken", "tiny")


@pytest.mark.usefixtures("offered")
def test_a_package_cannot_take_the_name_of_a_built_in_engine(untouched: torch.Tensor) -> None:
    with open_engine("transformers", "tiny", REFERENCE, execution=None, device="cpu") as engine:
        assert torch.equal(scores(engine), untouched)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"device 'abacus' is not usable: .*; use --device cpu"):
        resolve_device("abacus")


def test_the_environment_names_versions_and_processor() -> None:
    found = describe_environment("cpu", "bf16", packages=("pytest", "nowhere"))
    assert found.versions["torch"] == torch.__version__ and found.versions["pytest"] == pytest.__version__
    assert "nowhere" not in found.versions
    assert torch.backends.cpu.get_cpu_capability() in found.hardware
    assert found.threads == torch.get_num_threads()


COLLECT = """
import sys
import pytest
chosen = ["--pyargs", "quantsuite.conformance", "--kernel", "quantsuite.contestants.ours"]
status = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *chosen])
from quantsuite.environment import describe_environment
describe_environment("cpu", "bf16")
print(int(status), "torch" in sys.modules, "transformers" in sys.modules)
"""


def test_conformance_is_collected_and_recorded_without_transformers(tmp_path: Path) -> None:
    """In a fresh interpreter, with the modules that its plugin imports on the way."""
    result = subprocess.run([sys.executable, "-c", COLLECT], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1:] == ["0 True False"], result.stdout[-2000:] + result.stderr
