"""What opens engines: a model loaded once, run under one plan after the other, or under two at once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from quantsuite.engine.protocol import Engine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quantsuite.scheme import Execution


class Backend(Protocol):
    """A loaded model that opens engines.

    A plan says how the model's weights and activations are represented; callers pass it through as it is.  A backend
    whose model methods can read has a ``plan(scheme, *, methods, include_head) -> Plan`` too: the plan of a scheme that
    names a method, of the places ``methods`` besides those that there are (:func:`quantsuite.methods.make_plan`); one
    whose layers are torch modules a ``matrices(engine, plan, *, include_head) -> list[Placed]``, what stands in an open
    engine for each matrix of the model (:func:`quantsuite.in_place.placed`), and the number of its ``parameters``, tied
    ones once, of which records then say what was quantized; one that holds a server or the like has a
    ``close()``.  An execution of ``None`` stands for the model as it was loaded,
    whatever the plan.

    Attributes:
        name: for messages; records name the engine as ``--engine`` does.
        tokenizer: of the model, with the calls of a tokenizer of ``transformers``.
        model_sha256: hash of weights and configuration; records of another one are not reused.
        max_length: the longest context in tokens, or ``None`` if there is no limit.
    """

    @property
    def name(self) -> str: ...
    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...
    @property
    def model_sha256(self) -> str: ...
    @property
    def max_length(self) -> int | None: ...

    def unsupported(
        self, plan: Any, execution: Execution | None, *, include_head: bool = False, kernel: str | None = None
    ) -> str | None:
        """Why the model cannot be run so on this device, or ``None`` if it can."""
        ...

    def unquantized(self, plan: Any, *, include_head: bool = False) -> Mapping[str, float]:
        """What a plan leaves in the model's dtype, as shares of all parameters by kind.

        Raises:
            UnsupportedError: if that is more than embeddings, norms, biases, routers and the head.
        """
        ...

    def engine(
        self, plan: Any, execution: Execution | None, *, include_head: bool = False, kernel: str | None = None
    ) -> AbstractContextManager[Engine]:
        """The model under a plan, inside the ``with`` block; several may be open at once.

        Args:
            plan: how weights and activations are represented.
            execution: simulated or real; ``None`` for the model as it was loaded.
            include_head: quantize the output head too.
            kernel: name of the one that multiplies in real execution, or ``None`` for the backend's own.

        Raises:
            UnsupportedError: if :meth:`unsupported` says so.
        """
        ...

    def weight_bytes(self, engine: Engine) -> int:
        """Bytes of the weights of an open engine as it stores them."""
        ...


class OpensBackends(Protocol):
    """What an entry point of the group ``quantsuite.engines`` names: a class or a function.

    It may have an attribute ``context_length(model) -> int | None``, the longest context of a model that is not loaded
    yet; otherwise a run is planned as if there were no limit.
    """

    def __call__(self, model: str, *, device: str, dtype: str) -> Backend:
        """Load a model.

        Args:
            model: what ``--model`` names.
            device: as torch names it.
            dtype: of the reference: ``bf16``, ``fp16`` or ``fp32``.

        Raises:
            ValueError: if the model cannot be loaded, with the reason in one line.
        """
        ...
