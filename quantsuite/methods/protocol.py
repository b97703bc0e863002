"""What a method offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args

from torch import nn

from quantsuite.plan import Plan
from quantsuite.scheme import Scheme

Needs = Literal["weights"]
"""What a method looks at: the model's weights alone."""


class MethodError(ValueError):
    """A method that is not there, cannot be loaded, or lacks what a method needs; the message says what there is."""


class Method(Protocol):
    """Any object, a module too.

    Attributes:
        name: as a scheme names it: ``int4-g128@name``.
        needs: what it looks at.
    """

    @property
    def name(self) -> str: ...
    @property
    def needs(self) -> Needs: ...

    def plan(self, model: nn.Module, scheme: Scheme, *, include_head: bool, progress: Callable[[str], None]) -> Plan:
        """How each layer of a model is quantized.

        Args:
            model: not changed; :func:`quantsuite.coverage.matrices` gives its matrices by name.
            scheme: without method; what layers get that the plan does not name.
            include_head: whether the output head is one of the layers.
            progress: to be called with the name of each layer before it is quantized.

        Raises:
            ValueError: if the method cannot quantize so, in one line with the way out.
        """
        ...


def validate(method: Any, where: str) -> Any:
    """The method, if it has what a method needs.

    Raises:
        MethodError: naming what is missing.
    """
    name, needs = getattr(method, "name", None), getattr(method, "needs", None)
    if type(name) is not str or not name.isidentifier():
        raise MethodError(f"{where}: name is {name!r}, expected a word such as 'mine', as in int4-g128@mine")
    if needs not in get_args(Needs):
        raise MethodError(f"{where}: needs is {needs!r}, expected one of {', '.join(map(repr, get_args(Needs)))}")
    if not callable(getattr(method, "plan", None)):
        raise MethodError(f"{where}: {name} has no function plan; see quantsuite.methods.Method")
    return method
