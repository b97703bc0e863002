"""The layers of a model checked where they stand, on activations of real text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.checks.in_place import Execute, PlacedLayer
from quantsuite.checks.outcome import CheckFailure
from quantsuite.engine import Engine, GenerateRequest, ScoreRequest
from quantsuite.in_place import Placed
from quantsuite.layer import UnsupportedError
from quantsuite.metrics import Layers

PREFILL = 128
"""Tokens of text that are read at once."""
PROMPT = 9
"""Tokens of text before the first that is written."""
WRITTEN = 2
"""Tokens that are written, the second of them from the first alone."""


def check_layers(
    engine: Engine,
    matrices: Sequence[Placed],
    tokens: Sequence[int],
    how: Execute,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Layers:
    """Each matrix by itself, and its products as the engine reads a text and writes two tokens after its beginning.

    Args:
        engine: of a model whose modules stand in ``matrices``.
        matrices: of the model.
        tokens: of a text, two or more.
        how: the model was to be executed.
        progress: called with the number of matrices that are done.

    Raises:
        ValueError: if there are no matrices, or too few tokens.
    """
    if not matrices:
        raise ValueError("the model has no linear layer that could be checked")
    if len(tokens) < 2:
        raise ValueError(f"{len(tokens)} token is no text to run the layers on; use a text of two tokens or more")
    findings = [_Finding(PlacedLayer(each, how)) for each in matrices]
    with torch.inference_mode():
        for done, finding in enumerate(findings):
            finding.check_alone()
            progress(done)
    with ExitStack() as stack:
        for finding in findings:
            stack.enter_context(finding.watched())
        _run(engine, list(tokens))
    progress(len(findings))
    return Layers(
        names=[each.name for each in findings],
        factors=[each.factor for each in findings],
        bits=[each.bits for each in findings],
        kernels=[each.kernels for each in findings],
        faults=[each.fault for each in findings],
    )


def _run(engine: Engine, tokens: list[int]) -> None:
    """One prefill, and a prefill and a decoding step of a shorter one."""
    length = min(PREFILL, len(tokens) - 1)
    for _ in engine.score([ScoreRequest(tokens=tuple(tokens[: length + 1]), first=length)]):
        pass
    engine.generate([GenerateRequest(tokens=tuple(tokens[:PROMPT]), max_new_tokens=WRITTEN)])


class _Finding:
    """What is found of one matrix: the first fault, and how near it came to its bounds."""

    def __init__(self, layer: PlacedLayer) -> None:
        self._layer, self.name = layer, layer.placed.name
        self.fault, self.bits = "", 0.0
        self._kernels: dict[str, None] = {}

    @property
    def factor(self) -> float:
        return 0.0 if self.fault else self._layer.factor

    @property
    def kernels(self) -> str:
        return ", ".join(self._kernels)

    @contextmanager
    def _finding(self, what: str) -> Iterator[None]:
        """Keeps the first fault; whatever else a kernel raises is one too."""
        try:
            yield
        except CheckFailure as error:
            self.fault = self.fault or f"{what}: {error}"
        except UnsupportedError:
            pass  # A shape that the kernel does not claim.
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            self.fault = self.fault or f"{what}: {type(error).__name__}: {first}"

    def check_alone(self) -> None:
        layer = self._layer
        checks = {
            "not as planned": layer.check_identity,
            "storage": layer.check_storage,
            "codes and scales": layer.check_weight,
            "weights as multiplied": layer.check_columns,
            "bias": layer.check_bias,
        }
        for what, check in checks.items():
            with self._finding(what):
                check()
            if self.fault:
                break
        with self._finding("storage"):
            self.bits = layer.bits

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Products of the matrix are checked inside the block."""
        module = self._layer.placed.module
        if module is None or self.fault:
            yield
            return
        handle = module.register_forward_hook(self._watch)
        try:
            yield
        finally:
            handle.remove()

    def _watch(self, module: nn.Module, given: tuple[Any, ...], y: Tensor) -> None:
        x = given[0]
        if self.fault or x.numel() == 0:
            return
        with self._finding("products of activations"):
            self._kernels.setdefault(self._layer.kernel_name(x))
            self._layer.check_product(f"{x.numel() // x.shape[-1]} tokens", x, y)
