"""Templates and expressions of a task: jinja2 in a sandbox, in which a name that is not there is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from quantsuite.evaluate.cleanups import CLEANUPS

LONGEST_PRODUCT = 1_000_000
"""Of numbers, or characters of a text that is repeated."""


class TemplateFault(ValueError):
    """A template that cannot be compiled, or not be filled in; the message says why."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """One in which no product of a text or a power grows beyond what a prompt can be."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(each) if isinstance(each, str | list | tuple) else abs(each) for each in (left, right)]
        if operator == "**" or sizes[0] * sizes[1] > LONGEST_PRODUCT:
            raise SecurityError(f"{operator} of values up to {max(sizes):,}; products end at {LONGEST_PRODUCT:,}")
        return super().call_binop(context, operator, left, right)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Sandbox(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= CLEANUPS
    return environment


def _guarded(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    try:
        return call(*arguments, **keywords)
    except TemplateError as error:
        raise TemplateFault(str(error.message or type(error).__name__).splitlines()[0].rstrip(".")) from error
    except Exception as error:  # What operators and filters raise of values that they were not made for.
        raise TemplateFault(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}") from error


def names(source: str, *, expression: bool) -> set[str]:
    """The names that a template or an expression needs.

    Raises:
        TemplateFault: if it cannot be compiled.
    """
    environment = _environment()
    compiled = "{{ (" + source + "\n) }}" if expression else source
    _guarded(environment.compile, compiled)
    return _guarded(lambda: meta.find_undeclared_variables(environment.parse(compiled)))


@cache
def _template(source: str) -> Any:
    return _environment().from_string(source)


@cache
def _expression(source: str) -> Any:
    return _environment().compile_expression(source, undefined_to_none=False)


def render(source: str, row: Mapping[str, Any]) -> str:
    """A template, filled in.

    Raises:
        TemplateFault: if it needs what the row has not.
    """
    return _guarded(_template(source).render, row)


def evaluate(source: str, row: Mapping[str, Any]) -> Any:
    """The value of an expression.

    Raises:
        TemplateFault: if it needs what the row has not.
    """
    value = _guarded(_expression(source), row)
    if isinstance(value, Undefined):
        raise TemplateFault(f"{source} is undefined")
    return value
