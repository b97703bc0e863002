"""The check of a model's layers in place finds every wrong layer, by its cause, and no right one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from meta_tests.checkpoints import MIXTURES, PLAIN, save_checkpoint
from meta_tests.layer_faults import FAULTS, Fault, half_up, packs
from quantsuite.adapters.backend import TransformersBackend
from quantsuite.checks.in_place import Execute
from quantsuite.evaluate.layers import check_layers
from quantsuite.metrics import Layers
from quantsuite.plan import Plan
from quantsuite.scheme import CATALOGUE, EXECUTIONS, Execution, Scheme

TEXT = "The old lighthouse stood at the edge of the sea, and every evening its keeper climbed the stairs. " * 4
Check = Callable[..., Layers]
SMALL = ("layers.0.self_attn.k_proj", "layers.1.self_attn.k_proj", "layers.1.self_attn.v_proj")
"""Of the embedded model, matrices that are looked at where a fault is in every layer."""


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TransformersBackend]:
    """A model by its name, loaded once."""
    configs = {"qwen2": PLAIN["qwen2-untied"], "tied": PLAIN["qwen3-tied"]} | MIXTURES

    @cache
    def load(name: str, dtype: str = "bf16") -> TransformersBackend:
        model = save_checkpoint(tmp_path_factory.mktemp(name), configs[name]) if name in configs else name
        return TransformersBackend(str(model), device="cpu", dtype=dtype)

    return load


@pytest.fixture
def check(backend: Callable[..., TransformersBackend]) -> Check:
    def run(
        model: str,
        plan: Plan | Scheme | str,
        execution: Execution | None,
        *,
        dtype: str = "bf16",
        include_head: bool = False,
        kernel: str | None = None,
        only: tuple[str, ...] = (),
    ) -> Layers:
        plan, opened = Scheme.parse(plan) if isinstance(plan, str) else plan, backend(model, dtype)
        tokens = opened.tokenizer(TEXT)["input_ids"]
        with opened.engine(plan, execution, include_head=include_head, kernel=kernel) as engine:
            shown = opened.matrices(engine, plan, include_head=include_head)
            chosen = [placed for placed in shown if not only or placed.name.endswith(only)]
            return check_layers(engine, chosen, tokens, Execute(execution=execution, kernel=kernel))

    return run


def faults(layers: Layers) -> list[str]:
    return [fault for fault in layers.faults if fault]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_wrong_layer_is_found_by_its_cause(fault: Fault, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    fault.plant(monkeypatch)
    found = check(fault.model, fault.scheme, fault.execution, only=SMALL if fault.model == "tiny" else ())
    assert faults(found) and {each[: len(fault.finds)] for each in faults(found)} == {fault.finds}, faults(found)


NULL = [
    *CATALOGUE,
    *map(
        Scheme.parse,
        (
            *("int8-row-asym", "int4-g32-asym", "int8-row-full", "int4-g32-clip", "int8-row-clip", "int8-tensor-clip"),
            *("int3-g64", "int2-row", "nf4-g64", "fp4-g32", "fp6e3m2-g32", "fp8e5m2-row", "int8-g128-sbf16"),
            *("mxfp4", "mxfp8", "mxfp6e2m3", "mxint8", "nvfp4", "int8-b64x64", "fp8-b128x128:fp8-g128"),
            *("int8-row:int8-token", "int8-tensor:int8-tensor", "int4-row:int8-token", "int8-row-full:int8-token-full"),
            *(
                "fp8-row:fp8-token",
                "fp8-tensor:fp8-tensor",
                "mxfp4:mxfp8",
                "nvfp4:nvfp4",
                "int8-row-asym:int8-token-asym",
            ),
        ),
    ),
]


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("scheme", NULL, ids=str)
def test_right_layers_are_found_right(scheme: Scheme, execution: Execution, check: Check) -> None:
    assert faults(check("tiny", scheme, execution, only=SMALL)) == []
