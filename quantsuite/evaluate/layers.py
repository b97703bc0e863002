"""The layers of a model checked where they stand, on activations of real text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.checks.in_place import Execute
from quantsuite.checks.outcome import CheckFailure
from quantsuite.checks.products_in_place import MultipliedLayer
from quantsuite.engine import Engine, GenerateRequest, ScoreRequest
from quantsuite.in_place import Placed
from quantsuite.kernels.validation import KernelError
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
    reference: Engine | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Layers:
    """Each matrix by itself, and its products as the engine reads a text and writes two tokens after its beginning.

    Args:
        engine: of a model whose modules stand in ``matrices``.
        matrices: of the model.
        tokens: of a text, two or more.
        how: the model was to be executed.
        reference: the model as it was loaded, in which each matrix's ``loaded`` stands; what it multiplies by, the
            engine must.
        progress: called with the number of matrices that are done.

    Raises:
        ValueError: if there are no matrices, or too few tokens.
    """
    if not matrices:
        raise ValueError("the model has no linear layer that could be checked")
    if len(tokens) < 2:
        raise ValueError(f"{len(tokens)} token is no text to run the layers on; use a text of two tokens or more")
    findings = [_Finding(each) for each in matrices]
    with torch.inference_mode():
        stopped = _run(engine, list(tokens), findings)
        if reference is not None and stopped is None:
            _find_bypassed(reference, list(tokens), findings)
        for done, finding in enumerate(findings):
            finding.check(how, next((each.placed.module for each in findings if finding.is_like(each)), None))
            progress(done + 1)
    if stopped is not None and not any(finding.fault for finding in findings):
        raise stopped
    return Layers(
        names=[each.name for each in findings],
        factors=[each.factor for each in findings],
        bits=[each.bits for each in findings],
        kernels=[each.kernels for each in findings],
        faults=[each.fault for each in findings],
    )


def _read(engine: Engine, tokens: list[int]) -> None:
    length = min(PREFILL, len(tokens) - 1)
    for _ in engine.score([ScoreRequest(tokens=tuple(tokens[: length + 1]), first=length)]):
        pass


def _run(engine: Engine, tokens: list[int], findings: Sequence[_Finding]) -> Exception | None:
    """One prefill, and a prefill and a decoding step of a shorter one; what ended them, if anything did.

    A kernel may take no single token: then there is no decoding to look at.
    """
    with ExitStack() as stack:
        for finding in findings:
            stack.enter_context(finding.watched())
        try:
            _read(engine, tokens)
        except Exception as error:
            return error
        try:
            engine.generate([GenerateRequest(tokens=tuple(tokens[:PROMPT]), max_new_tokens=WRITTEN)])
        except UnsupportedError:
            pass
        except Exception as error:
            return error
    if not any(finding.products for finding in findings):
        return ValueError("the engine multiplied by none of the layers that it shows; show those that it multiplies by")
    return None


def _find_bypassed(reference: Engine, tokens: list[int], findings: Sequence[_Finding]) -> None:
    """Tells of quantized matrices by which the engine multiplied nothing, and the model as it was loaded does."""
    idle = [finding for finding in findings if finding.is_idle]
    if not idle:
        return
    called: set[nn.Module] = set()
    with ExitStack() as stack:
        for module in {finding.placed.loaded for finding in idle}:
            assert module is not None
            handle = module.register_forward_hook(lambda module, given, y: called.add(module))
            stack.callback(handle.remove)
        _read(reference, tokens)
    for finding in idle:
        if finding.placed.loaded in called:
            finding.fault = "not as planned: nothing is multiplied by it, the loaded model multiplies by its own"


class _Finding:
    """What is found of one matrix: the first fault, and how near it came to its bounds.

    Activations and products of the pass are kept (a row of each a token) and checked afterwards, matrix by matrix, so
    that no more than one is held in float64 at a time.
    """

    def __init__(self, placed: Placed) -> None:
        self.placed, self.name = placed, placed.name
        self.fault, self.bits, self.factor = "", 0.0, 0.0
        self.products: list[tuple[Tensor, Tensor]] = []
        self._kernels: dict[str, None] = {}

    @property
    def is_idle(self) -> bool:
        """Whether it is to be quantized and multiplied nothing; experts may, as no token need come to them."""
        is_asked = self.placed.loaded is not None and self.placed.plan.scheme.weight is not None
        return is_asked and not self.products and not self.fault

    @property
    def kernels(self) -> str:
        return ", ".join(self._kernels)

    @contextmanager
    def _finding(self, what: str) -> Iterator[None]:
        """Keeps the first fault; whatever else a kernel raises is one too."""
        try:
            yield
        except CheckFailure as error:
            self.fault = self.fault or f"{what}: {error.reason}"
        except UnsupportedError:
            pass  # A shape that the kernel does not claim.
        except KernelError as error:
            self.fault = self.fault or f"execution: {error}"
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            self.fault = self.fault or f"execution: {type(error).__name__}: {first}"

    def is_like(self, other: _Finding) -> bool:
        """Whether another is another matrix of the same shape."""
        return other is not self and other.placed.weight.shape == self.placed.weight.shape

    def check(self, how: Execute, other: nn.Module | None) -> None:
        """The matrix by itself, then its products, also beside another one; nothing more once a fault is found."""
        layer = MultipliedLayer(self.placed, how)
        checks = [
            ("not as planned", layer.check_identity),
            ("storage", layer.check_storage),
            ("codes and scales", layer.check_weight),
            ("bias", layer.check_bias),
            ("weights as multiplied", layer.check_columns),
            ("weights as multiplied", layer.check_columns_decoding),
            ("weights as multiplied", layer.check_columns_of_few),
            ("weights as multiplied", layer.check_large_activations),
        ]
        for x, y in self.products:
            case = f"{x.numel() // x.shape[-1]} tokens"
            checks.append(("products of activations", partial(layer.check_product, case, x, y)))
        if self.products:
            x = self.products[0][0]
            checks.append(("products of activations", partial(layer.check_product_of_many, x)))
            checks.append(("products of activations", partial(layer.check_product_is_kept, x, other)))
            checks.append(("products of activations", partial(layer.check_rows_of_whole, x)))
            checks.append(("codes and scales", partial(layer.check_chosen, x)))
        for what, check in checks:
            if not self.fault:
                with self._finding(what):
                    check()
        with self._finding("storage"):
            self.bits = layer.bits
        self.products, self.factor = [], 0.0 if self.fault else layer.factor

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Products of the matrix are kept inside the block."""
        if (module := self.placed.module) is None:
            yield
            return
        handles = [module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._watch)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        self._given = given[0].detach().clone()

    def _watch(self, module: nn.Module, given: tuple[Any, ...], y: Tensor) -> None:
        if (x := self._given).numel() == 0:
            return
        if not torch.equal(x, given[0]) and bool(x.isfinite().all()):
            self.fault = self.fault or f"execution: a product of {list(x.shape)} activations changed them"
        self.products.append((x, y.detach().clone()))  # What comes after may write to it.
        kernel = module.kernel_for(x).name if getattr(module, "kernel", None) is not None else ""
        self._kernels.setdefault(kernel)
