"""Models of ``transformers``, their layers exchanged for quantized ones, as a backend."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from quantsuite.adapters.loading import context_length, load_model
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.in_place import Placed, placed
from quantsuite.kernels.registry import find
from quantsuite.kernels.validation import KernelError
from quantsuite.linear import UnsupportedError, check_plan, misfits, quantized, unquantized, weight_bytes
from quantsuite.methods import make_plan
from quantsuite.parameters import exchanged
from quantsuite.plan import PlanError, as_plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from quantsuite.plan import Plan
    from quantsuite.scheme import Execution, Scheme


class TransformersBackend:
    """A model that is loaded once and never changed: what is quantized is a copy that shares its weights.

    Args:
        model: as :func:`~quantsuite.adapters.loading.load_model` takes it.
        device: as torch names it.
        dtype: ``bf16``, ``fp16`` or ``fp32``.

    Raises:
        CheckpointError: if the model cannot be loaded.
    """

    name = TransformersEngine.name
    context_length = staticmethod(context_length)

    def __init__(self, model: str, *, device: str, dtype: str) -> None:
        self._loaded = load_model(model, device=device, dtype=dtype)
        self._device = device

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._loaded.tokenizer

    @property
    def model_sha256(self) -> str:
        return self._loaded.sha256

    @property
    def max_length(self) -> int | None:
        return self._reference.max_length

    @cached_property
    def _reference(self) -> TransformersEngine:
        return TransformersEngine(self._loaded.model, tokenizer=self.tokenizer)

    def plan(self, scheme: Scheme, *, methods: Sequence[str] = (), include_head: bool = False) -> Plan:
        """The plan of a scheme, as :func:`quantsuite.methods.make_plan` makes it."""
        return make_plan(self._loaded.model, scheme, places=methods, include_head=include_head)

    def unsupported(
        self, plan: Plan | Scheme, execution: Execution | None, *, include_head: bool = False, kernel: str | None = None
    ) -> str | None:
        """See :meth:`quantsuite.engine.Backend.unsupported`: of the device, and of layers that the plan misfits."""
        if execution is None:
            return None
        try:
            check_plan(plan, execution, self._device, None if kernel is None else find(kernel))
        except (UnsupportedError, PlanError, KernelError) as error:
            return str(error)
        return misfits(self._loaded.model, plan, include_head)

    def unquantized(self, plan: Plan | Scheme, *, include_head: bool = False) -> dict[str, float]:
        """See :meth:`quantsuite.engine.Backend.unquantized`."""
        return unquantized(self._loaded.model, include_head, plan=plan)

    @contextmanager
    def engine(
        self, plan: Plan | Scheme, execution: Execution | None, *, include_head: bool = False, kernel: str | None = None
    ) -> Iterator[TransformersEngine]:
        """See :meth:`quantsuite.engine.Backend.engine`."""
        if reason := self.unsupported(plan, execution, include_head=include_head, kernel=kernel):
            raise UnsupportedError(reason)
        if execution is None:
            yield self._reference
            return
        model = _sharing_weights(self._loaded.model)
        engine = TransformersEngine(model, tokenizer=self.tokenizer)
        with quantized(model, plan, execution, include_head=include_head, kernel=kernel):
            yield engine

    def matrices(self, engine: TransformersEngine, plan: Plan | Scheme, *, include_head: bool = False) -> list[Placed]:
        """What stands in an engine of this backend for each matrix: see :func:`quantsuite.in_place.placed`."""
        loaded = self._loaded.model
        original = _sharing_weights(loaded)
        own = dict(zip(original.modules(), loaded.modules(), strict=True))
        with exchanged(original, as_plan(plan).parameters):
            found = list(placed(original, engine.model, plan, include_head))
        return [each if each.loaded is None else replace(each, loaded=own[each.loaded]) for each in found]

    @property
    def parameters(self) -> int:
        """Of the model, tied ones once."""
        return sum(parameter.numel() for parameter in self._loaded.model.parameters())

    def weight_bytes(self, engine: TransformersEngine) -> int:
        """See :meth:`quantsuite.engine.Backend.weight_bytes`."""
        return weight_bytes(engine.model)


def _sharing_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same tensors whose layers can be exchanged without a trace in the first."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
