"""Contestants: kernels and quantizers under test, what they must offer, and where they are loaded from.

A contestant is any object, a module too, that has the attributes of :class:`Quantizer` or of :class:`Product`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from quantsuite.scheme import Operand, Scheme

LONGEST_NAME = 100
ENTRY_POINT_GROUP = "quantsuite.kernels"
_REQUIRED = {"quantize": ("quantize",), "linear": ("pack", "linear")}


class ContestantError(ValueError):
    """A contestant that cannot be loaded, or that lacks what its operation needs."""


class MissingLibraryError(ImportError):
    """A contestant's library is not installed; the message holds the line that installs it."""


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a contestant promises beyond its schemes.

    Args:
        accumulator_bits: significand bits that its sums over K keep; 24 for float32, 31 for int32.
    """

    accumulator_bits: int = 24


class Contestant(Protocol):
    """What every contestant has.

    Attributes:
        name: shown in test ids, records and known failures.
        operation: ``"quantize"`` or ``"linear"``.
        schemes: names that it implements, of operands for ``quantize`` and of schemes for ``linear``.

    Optional attributes: ``dtypes``, names of the input dtypes it is tested with (default ``("float32",)``);
    ``claims``, a :class:`Claims`; ``unsupported(scheme, device) -> str | None``, why the device cannot run
    it, found by trying (:func:`probe`); for a product ``unsupported_shape(scheme, device, m, n, k) -> str | None``.
    """

    @property
    def name(self) -> str: ...
    @property
    def operation(self) -> str: ...
    @property
    def schemes(self) -> Sequence[str]: ...


class Quantizer(Contestant, Protocol):
    """Rounds tensors."""

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        """The values that the codes of ``x`` ``[..., K]`` stand for, in its shape."""
        ...


class Product(Contestant, Protocol):
    """Multiplies with a quantized weight."""

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        """Whatever :meth:`linear` needs of a weight ``[N, K]``."""
        ...

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        """``x W^T`` of ``x`` ``[..., K]``, as ``[..., N]`` in the dtype of ``x``."""
        ...


def claims(contestant: Contestant) -> Claims:
    """What a contestant claims, or the default."""
    return getattr(contestant, "claims", Claims())


def dtypes(contestant: Contestant) -> list[torch.dtype]:
    """The input dtypes a contestant is tested with."""
    return [getattr(torch, name) for name in getattr(contestant, "dtypes", ("float32",))]


def parse_subject(contestant: Contestant, name: str) -> Operand | Scheme:
    """An operand for a quantizer, a scheme for a product.

    Raises:
        ValueError: if the name is in neither grammar.
    """
    return Operand.parse(name) if contestant.operation == "quantize" else Scheme.parse(name)


def unsupported(contestant: Contestant, subject: Operand | Scheme, device: str) -> str | None:
    """Why a contestant cannot run a scheme on a device, in its own words, or ``None``."""
    ask = getattr(contestant, "unsupported", None)
    return None if ask is None else ask(subject, device)


def unsupported_shape(contestant: Contestant, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
    """Why a product cannot take ``x [m, k]`` and a weight ``[n, k]`` on a device, or ``None``."""
    ask = getattr(contestant, "unsupported_shape", None)
    return None if ask is None else ask(scheme, device, m, n, k)


def probe(run: Callable[[], object]) -> str | None:
    """Run a small case and return the first line of its error, or ``None`` if it ran."""
    try:
        run()
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError, ImportError) as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


@cache
def probe_product(contestant: Product, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
    """Why a product of ones ``[m, k]`` and ``[n, k]`` fails, in any of the contestant's dtypes; asked once."""

    def run(dtype: torch.dtype) -> Tensor:
        x, weight = (torch.ones(rows, k, device=device, dtype=dtype) for rows in (m, n))
        return contestant.linear(x, contestant.pack(weight, scheme))

    return next((reason for dtype in dtypes(contestant) if (reason := probe(lambda d=dtype: run(d)))), None)


def require(library: str, extra: str) -> ModuleType:
    """Import a contestant's library.

    Raises:
        MissingLibraryError: naming the extra that installs it.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise MissingLibraryError(
            f"{library} cannot be imported ({error}); pip install 'quantsuite[{extra}]'"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Source:
    """Contestants from one file, module or entry point, or the reason why there are none."""

    contestants: Sequence[Any] = field(default=())
    missing: str | None = None


def validate(contestant: Any, where: str) -> Any:
    """The contestant, if it has what its operation needs, and declares what there is.

    Raises:
        ContestantError: naming what is missing, or what is declared and what may be.
    """
    absent = [name for name in ("name", "operation", "schemes") if not hasattr(contestant, name)]
    if not absent:
        if contestant.operation not in list(_REQUIRED):  # it may be of any type, one without a hash too
            raise ContestantError(f"{where}: unknown operation {contestant.operation!r}; use quantize or linear")
        absent = [name for name in _REQUIRED[contestant.operation] if not callable(getattr(contestant, name, None))]
    if absent:
        raise ContestantError(f"{where}: a contestant needs {', '.join(absent)}; see quantsuite.contestant")
    _validate_names(contestant, where)
    return contestant


def _validate_names(contestant: Any, where: str) -> None:
    """Whether a contestant's name, schemes, dtypes and claims are such.

    Raises:
        ContestantError: naming the first that is not.
    """
    name = contestant.name
    if type(name) is not str or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        shown = ascii(name)[:LONGEST_NAME] if type(name) in (str, int, float, bytes) else f"a {type(name).__name__}"
        raise ContestantError(
            f"{where}: name is {shown}, expected a string of 1 to {LONGEST_NAME} printable characters"
        )
    schemes, names = contestant.schemes, getattr(contestant, "dtypes", ("float32",))
    for attribute, value in (("schemes", schemes), ("dtypes", names)):
        if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
            raise ContestantError(f"{where}: {attribute} of {contestant.name} is {value!r}, expected a list of strings")
    for scheme in schemes:
        try:
            parse_subject(contestant, scheme)
        except ValueError as error:
            raise ContestantError(f"{where}: {contestant.name} claims {scheme!r}: {error}") from error
    for name in names:
        if not getattr(getattr(torch, name, None), "is_floating_point", False):
            raise ContestantError(f"{where}: {contestant.name} has dtype {name!r}; use names such as 'bfloat16'")
    if not isinstance(claims(contestant), Claims):
        raise ContestantError(f"{where}: claims of {contestant.name} is {claims(contestant)!r}, expected a Claims")


def _import(location: str) -> ModuleType:
    path = Path(location)
    if path.suffix != ".py":
        return importlib.import_module(location)
    require_file(location)
    name = f"quantsuite_contestant_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _contestants_of(module: ModuleType, where: str) -> list[Any]:
    if hasattr(module, "operation"):
        return [validate(module, where)]
    if not getattr(module, "CONTESTANTS", None):
        raise ContestantError(f"{where}: set CONTESTANTS to a list of them, or name one object as {where}:name")
    return [validate(contestant, where) for contestant in module.CONTESTANTS]


def load(location: str) -> Source:
    """Contestants from ``path.py``, ``path.py:name``, ``package.module`` or ``package.module:name``.

    Without a name they are the module's list ``CONTESTANTS``, or the module itself if it has an ``operation``.

    Raises:
        ContestantError: if nothing is there, or what is there is no contestant.
    """
    place, _, attribute = location.partition(":")
    try:
        module = _import(place)
    except MissingLibraryError as error:
        return Source(missing=str(error))
    except ModuleNotFoundError as error:
        raise ContestantError(f"{location}: {error}; is its package installed?") from error
    if not attribute:
        return Source(contestants=_contestants_of(module, place))
    if not hasattr(module, attribute):
        raise ContestantError(
            f"{place} has no {attribute!r}; it has {', '.join(k for k in vars(module) if k[0] != '_')}"
        )
    return Source(contestants=[validate(getattr(module, attribute), location)])


def require_file(location: str) -> None:
    """Whether a location that is a file's is there, without loading it.

    Raises:
        ContestantError: if it is not.
    """
    path = Path(location.partition(":")[0])
    if path.suffix == ".py" and not path.is_file():
        raise ContestantError(f"{path} does not exist; give a path to a Python file or a module's name")


def discover(folder: Path | None) -> list[str]:
    """Where there are contestants, as :func:`load` takes it: Python files in a folder, then installed entry points."""
    files = [] if folder is None else [str(path) for path in sorted(folder.glob("[!_]*.py"))]
    return files + [entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)]
