"""Methods by name: this package's, those of installed packages, and of a user's file."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from torch import nn

from quantsuite.methods import clip, rtn
from quantsuite.methods.protocol import Method, MethodError, validate
from quantsuite.parameters import weights_sha256
from quantsuite.places import is_missing, load_module, public_names, split
from quantsuite.plan import Plan
from quantsuite.scheme import Scheme

ENTRY_POINT_GROUP = "quantsuite.methods"
BUILT_IN: dict[str, Method] = {method.name: method for method in (rtn, clip)}


def _own(places: Sequence[str]) -> dict[str, Method]:
    """A user's methods by name.

    Raises:
        MethodError: as :func:`load`, or if a name is that of a method of this package, of an installed one, or of
            another place.
    """
    taken = {entry.name: f"the installed {entry.value}" for entry in entry_points(group=ENTRY_POINT_GROUP)}
    taken |= dict.fromkeys(BUILT_IN, "quantsuite's own")
    found: dict[str, Method] = {}
    for place in dict.fromkeys(places):
        method = load(place)
        if method.name in taken:
            other = taken[method.name]
            raise MethodError(f"method {place!r} is named {method.name!r}, as is {other}; give it another name")
        taken[method.name], found[method.name] = repr(place), method
    return found


def known(places: Sequence[str] = ()) -> list[str]:
    """Names of the methods that there are, a user's first; installed ones are named, not loaded.

    Raises:
        MethodError: as :func:`load`, or if two have one name.
    """
    return [*_own(places), *BUILT_IN, *(e.name for e in entry_points(group=ENTRY_POINT_GROUP))]


def find(name: str, places: Sequence[str] = ()) -> Method:
    """A method by its name.

    Args:
        name: of a method, a user's, of this package, or of an installed one's entry point ``quantsuite.methods``.
        places: of a user's methods, as :func:`load` takes them.

    Raises:
        MethodError: if there is none, it is no method, or a user's has the name of another.
    """
    own = _own(places) | BUILT_IN
    if name in own:
        return own[name]
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
        return load(entry.value)
    names = known(places)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise MethodError(f"unknown method {name!r}; {hint}known: {', '.join(names)}; --method my.py adds one of your own")


def load(place: str) -> Method:
    """The method of ``path.py``, ``path.py:NAME``, ``package.module`` or ``package.module:NAME``.

    Without a name the module itself is the method.

    Raises:
        MethodError: if nothing is there, or what is there is no method.
    """
    module, attribute = split(place)
    found = _module(module)
    if not attribute:
        return validate(found, place)
    if not hasattr(found, attribute):
        raise MethodError(f"{module} has no {attribute!r}; it has {public_names(found)}")
    method = getattr(found, attribute)
    return validate(method() if isinstance(method, type) else method, place)


def _module(place: str) -> ModuleType:
    if is_missing(place):
        raise MethodError(f"{place} does not exist; give the path of a Python file, or a module's name")
    try:
        return load_module(place)
    except Exception as error:  # A file of anyone's raises what it likes while it is imported.
        text = " ".join(str(error).split())
        raise MethodError(f"{place} cannot be imported: {type(error).__name__}: {text}") from error


def make_plan(
    model: nn.Module,
    scheme: Scheme,
    *,
    places: Sequence[str] = (),
    include_head: bool = False,
    progress: Callable[[str], None] = lambda name: None,
) -> Plan:
    """The plan of a scheme: its method's, with the hash of the model's weights, or round-to-nearest of none.

    Args:
        model: not changed.
        scheme: whose name the plan has.
        places: of a user's methods, as :func:`load` takes them.
        include_head: whether the output head is quantized too.
        progress: called with the name of each layer before it is quantized.

    Raises:
        MethodError: if there is no such method, it cannot quantize so, or what it returns is no plan.
    """
    if scheme.method is None:
        return Plan.of(scheme)
    method, bare = find(scheme.method, places), replace(scheme, method=None)
    try:
        plan = method.plan(model, bare, include_head=include_head, progress=progress)
    except Exception as error:  # A method of anyone's raises what it likes.
        said = " ".join(str(error).split())
        if not isinstance(error, ValueError):
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{Path(place.filename).name}:{place.lineno}: {type(error).__name__}: {said}"
        raise MethodError(f"{scheme}: {said}") from error
    if not isinstance(plan, Plan) or replace(plan.scheme, method=None) != bare:
        raise MethodError(f"{scheme}: the method returned {plan}, expected a Plan of {bare}")
    fitted = bool(plan.layers or plan.parameters) and not plan.model_sha256
    return replace(plan, scheme=scheme, model_sha256=weights_sha256(model) if fitted else plan.model_sha256)
