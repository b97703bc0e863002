"""One loaded model under every variant of a run: its plans, its kernels, and the engines that are open."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from quantsuite.engine import Backend, Engine, open_backend
from quantsuite.engine.registry import close_backend
from quantsuite.evaluate.engines import Deferred, Held
from quantsuite.in_place import Placed
from quantsuite.inventory import identify
from quantsuite.kernels.user import UserKernels
from quantsuite.layer import UnsupportedError
from quantsuite.methods import MethodError
from quantsuite.plan import Plan
from quantsuite.quantize import MODEL_DTYPES
from quantsuite.records import Identity
from quantsuite.scheme import REFERENCE, Scheme, Variant


class LoadedModel:
    """A model, loaded when it is first asked for, and quantized for one variant after the other.

    Args:
        name: as the engine takes it.
        engine: name of what runs it.
        device: as torch names it.
        dtype: of the reference: ``bf16``, ``fp16`` or ``fp32``.
        include_head: quantize the output head too.
        methods: places of a user's methods, which schemes may name.
        plans: for the schemes that they are named by.
        kernels: where kernels are, as :func:`quantsuite.kernels.loading.load` takes it; if any is given, real
            execution multiplies by them alone.

    Raises:
        ValueError: if a kernel cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        *,
        engine: str,
        device: str,
        dtype: str,
        include_head: bool = False,
        methods: Sequence[str] = (),
        plans: Sequence[Plan] = (),
        kernels: Sequence[str] = (),
    ) -> None:
        self.name, self.engine_name, self.include_head = name, engine, include_head
        self._device, self._dtype, self._methods = device, dtype, methods
        self._plans = {plan.scheme: plan for plan in plans}
        self._kernels = UserKernels(kernels, MODEL_DTYPES[dtype]) if kernels else None
        self._opened: Backend | Exception | None = None
        self._misfits: dict[Variant, str | None] = {}
        self._unquantized: dict[Scheme, float] = {}
        self._current: tuple[Variant, Engine] | None = None
        self._held: Held | None = None
        self._simulated: tuple[Scheme, Held] | None = None
        self._identities: dict[Variant, Identity | None] = {}
        self._current_stack, self._reference_stack = ExitStack(), ExitStack()
        self._open_reference: Engine | None = None

    @property
    def backend(self) -> Backend:
        """The loaded model; one that cannot be loaded is tried once, and fails each time with the same error.

        Raises:
            ValueError: if there is no such engine, or the model cannot be loaded.
        """
        if self._opened is None:
            try:
                self._opened = open_backend(self.engine_name, self.name, device=self._device, dtype=self._dtype)
            except Exception as error:
                self._opened = error
        if isinstance(self._opened, Exception):
            raise self._opened
        return self._opened

    @property
    def sha256(self) -> str:
        """Of the model that is loaded; empty if none is."""
        return "" if self._opened is None or isinstance(self._opened, Exception) else self._opened.model_sha256

    def close(self) -> None:
        """Leave the engines that are open, and let the model go."""
        self._leave()
        self._reference_stack.close()
        self._open_reference = self._simulated = None
        if self._opened is not None and not isinstance(self._opened, Exception):
            close_backend(self._opened)

    def _leave(self) -> None:
        self._current_stack.close()
        if self._held is not None and self._current is not None and self._current[0].execution == "simulated":
            self._simulated = self._current[0].scheme, self._held
        self._current = self._held = None
        self._identities.clear()

    def engine(self, variant: Variant) -> Engine:
        """The engine of a variant, which stays open until another one's is asked for."""
        if self._current is None or self._current[0] != variant:
            self._leave()
            plan, kernel = self.plan(variant.scheme), self.kernel(variant)
            opened = self.backend.engine(plan, variant.execution, include_head=self.include_head, kernel=kernel)
            self._current = variant, self._current_stack.enter_context(opened)
        return self._current[1]

    def held(self, variant: Variant) -> Engine:
        """The engine of a variant with the rows that it gave kept, as far as they fit."""
        engine = self.engine(variant)
        if self._held is None:
            self._held = Held(engine)
        return self._held

    @property
    def kernel_names(self) -> dict[str, list[str]]:
        """Of the kernels that were given, by place."""
        return {} if self._kernels is None else self._kernels.names

    def kernel(self, variant: Variant) -> str | None:
        """Name of the given kernel that multiplies, or ``None`` if it is for the engine to choose.

        Raises:
            UnsupportedError: if kernels are given, and none claims the scheme.
        """
        if self._kernels is None or variant.execution != "real":
            return None
        return self._kernels.of(variant.scheme)

    def kernel_sha256(self, name: str) -> str:
        """Of the file of a kernel that was given; empty of any other."""
        return "" if self._kernels is None else self._kernels.sha256.get(name, "")

    def reference(self) -> Engine:
        """The engine of the model as it is, beside that of a variant."""
        if self._open_reference is None:
            self._open_reference = Held(self._reference_stack.enter_context(self.backend.engine(REFERENCE, None)))
        return self._open_reference

    def simulated(self, variant: Variant) -> Engine:
        """The engine of a real variant's scheme in simulated execution, beside the variant's own, until that is left.

        Rows that the scheme's simulated execution gave before are given again; only for others is it opened.

        Raises:
            UnsupportedError: if the variant is not real, or the scheme cannot be simulated.
        """
        if variant.execution != "real":
            raise UnsupportedError(f"{variant.label} is not real, and has no simulated execution to be compared with")
        simulated = Variant(variant.scheme, "simulated")
        if (reason := self.misfit(simulated)) is not None:
            raise UnsupportedError(f"{simulated.label}: {reason}")
        plan = self.plan(variant.scheme)
        opened = self.backend.engine(plan, "simulated", include_head=self.include_head, kernel=None)
        engine = Deferred(lambda: self._current_stack.enter_context(opened))
        if self._simulated is None or self._simulated[0] != variant.scheme:
            return engine
        return self._simulated[1].over(engine)

    def matrices(self, variant: Variant) -> Sequence[Placed] | None:
        """What stands for each matrix of the model in a variant's engine; ``None`` if the engine does not show it."""
        if (show := getattr(self.backend, "matrices", None)) is None:
            return None
        return show(self.engine(variant), self.plan(variant.scheme), include_head=self.include_head)

    def identity(self, variant: Variant) -> Identity | None:
        """What stands in a variant's engine, counted once while it is open; ``None`` if the engine does not show it."""
        self.engine(variant)
        if variant not in self._identities:
            matrices = self.matrices(variant)
            parameters = getattr(self.backend, "parameters", None)
            self._identities[variant] = None if matrices is None else identify(matrices, parameters)
        return self._identities[variant]

    def plan(self, scheme: Scheme) -> Plan | Scheme:
        """The plan of a scheme that a plan is named by, or that names a method, made once; else the scheme.

        Raises:
            ValueError: if the method cannot make it, or the engine makes none.
        """
        if scheme.method is not None and scheme not in self._plans:
            make = getattr(self.backend, "plan", None)
            if make is None:
                raise UnsupportedError(
                    f"{scheme}: the engine {self.engine_name} makes no plans; drop @{scheme.method}, or give a saved "
                    "one with --plan"
                )
            self._plans[scheme] = make(scheme, methods=self._methods, include_head=self.include_head)
        return self._plans.get(scheme, scheme)

    def plan_sha256(self, scheme: Scheme) -> str:
        """Of the plan of a scheme, as far as it was made; empty for a scheme's own."""
        return self._plans[scheme].sha256 if scheme in self._plans else ""

    def misfit(self, variant: Variant) -> str | None:
        """Why a scheme cannot be executed so on this model and device, or ``None`` if it can."""
        execution = variant.execution
        if execution is None:
            return None
        if variant not in self._misfits:
            try:
                plan, kernel = self.plan(variant.scheme), self.kernel(variant)
                reason = self.backend.unsupported(plan, execution, include_head=self.include_head, kernel=kernel)
            except (MethodError, UnsupportedError) as error:
                reason = str(error)
            self._misfits[variant] = reason
        return self._misfits[variant]

    def unquantized(self, scheme: Scheme) -> float:
        """The share of all parameters that a scheme leaves in the model's dtype.

        Raises:
            UnsupportedError: if that is more than embeddings, norms, biases, routers and the head.
        """
        if scheme not in self._unquantized:
            shares = self.backend.unquantized(self.plan(scheme), include_head=self.include_head)
            self._unquantized[scheme] = sum(shares.values())
        return self._unquantized[scheme]
