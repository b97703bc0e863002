"""Whole runs of the embedded model: right code never fails one, and each wrong kernel fails it by its layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path

import pytest
import torch

from meta_tests.command import accuracy
from meta_tests.layer_faults import FAULTS, Fault
from quantsuite.adapters import transformers as engine
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.layer import QuantizedLinear
from quantsuite.scheme import CATALOGUE

pytestmark = pytest.mark.slow
TOKENS = 128
"""Of a text of the embedded world, about."""
GATED = ("--gate=worse", "--fresh")
CATALOGUE_NAMES = [*map(str, CATALOGUE)]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_of_any_number_of_threads_passes(count: int, tmp_path: Path) -> None:
    with threads(count):
        result = accuracy(*GATED, "--output", str(tmp_path / "run.jsonl"))
    assert result.status == 0, result.shown


@pytest.mark.parametrize("sequences", [1, 8, 64])
def test_a_run_in_batches_of_any_size_passes(sequences: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sized = partialmethod(TransformersEngine.__init__, batch_tokens=TOKENS * sequences)
    monkeypatch.setattr(TransformersEngine, "__init__", sized)
    result = accuracy(*GATED, "--output", str(tmp_path / "run.jsonl"))
    assert result.status == 0, result.shown


def test_a_run_that_shares_no_prefix_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "shared_prefix", lambda sequences, limit: 0)
    result = accuracy(*GATED, "--output", str(tmp_path / "run.jsonl"))
    assert result.status == 0, result.shown


@pytest.mark.parametrize("scheme", ["int8-row", "fp8-g128"])
def test_a_run_of_compiled_layers_passes(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze = QuantizedLinear.freeze

    def compiled(layer: QuantizedLinear) -> QuantizedLinear:
        layer = freeze(layer)
        layer.compile(dynamic=True)
        return layer

    monkeypatch.setattr(QuantizedLinear, "freeze", compiled)
    result = accuracy(*GATED, "--scheme", f"bf16,{scheme}", "--output", str(tmp_path / "run.jsonl"))
    assert result.status == 0, result.shown


@pytest.mark.parametrize("fault", [each for each in FAULTS if each.model == "tiny"], ids=lambda fault: fault.name)
def test_the_whole_matrix_fails_with_each_fault(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault.plant(monkeypatch)
    asked = () if fault.scheme in CATALOGUE_NAMES else ("--scheme", f"all,{fault.scheme}")
    result = accuracy(*asked, "--output", str(tmp_path / "run.jsonl"))
    assert result.status == pytest.ExitCode.TESTS_FAILED
    assert f"test_layers[layers/in-place-{fault.scheme}-{fault.execution}]" in result.shown
    assert fault.finds in " ".join(result.shown.split())
