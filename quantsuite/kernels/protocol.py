"""Kernels: what one must have, what it may say besides, and how it is asked.

A kernel is any object, a module too, with the attributes of :class:`Kernel` and the functions of its operation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from quantsuite.kernels import tensors
from quantsuite.quantize import QuantizedTensor, quantize
from quantsuite.scheme import Operand, Scheme

Layouts = Literal["any", "contiguous"]
DEFAULT_DTYPES = ("float32", "bfloat16", "float16")
DTYPES = [getattr(torch, name) for name in DEFAULT_DTYPES]
"""In which a kernel is tried that does not say what it takes."""
FEWEST_BITS = 11
"""Of an accumulator, at least: float16's, and of all in which hardware sums the fewest."""


class UnsupportedError(ValueError):
    """A scheme that cannot be run so, here; the message says why and what can."""


class Kernel(Protocol):
    """What every kernel has.

    Attributes:
        name: shown in test ids, records and known failures.
        operation: one of :data:`~quantsuite.kernels.operations.OPERATIONS`: ``"quantize"``, ``"linear"``.
        schemes: names that it implements, of operands for ``quantize`` and of schemes for ``linear``.

    Optional attributes, with what holds without them:

    ``dtypes`` (``("float32", "bfloat16", "float16")``)
        names of the input dtypes that it takes, in all of which it is tried.
    ``output_dtype`` (``None``: that of ``x``)
        name of the dtype that it returns, whatever the input's, whose values it must hold.
    ``accumulator_bits`` (24)
        significand bits that its sums over K keep; 24 for float32, 31 for int32.  From 11 on, which are float16's: at
        nine, sums of 64 products may err by a third of their magnitudes, so that all zeros were within the bound.
    ``layouts`` (``"any"``)
        ``"contiguous"`` if it takes no other tensors: its caller copies them then.
    ``takes_bias`` (``False``)
        whether ``linear`` takes ``bias=``; else it is added to what ``linear`` returns.
    ``rounds_scales`` (``False``)
        whether it rounds scales to the dtype of its input.
    ``deterministic`` (``True``)
        whether the same input gives the same output, bit for bit; sums by atomic additions do not.
    ``flushes_subnormals`` (``False``)
        whether what is below the smallest normal number, an input, a scale or an output, may become zero.
    ``packing`` (the kernel's name)
        kernels of one packing take each other's packed weights, so that one may be chosen at each call.
    ``work`` (no limit)
        the most multiply-adds that one product of a check may have; for an interpreter.
    ``keeps_values`` (``False``)
        whether it keeps a weight's values rather than its codes: simulated execution.
    ``takes(scheme) -> bool``
        whether it implements a scheme, where ``schemes`` holds but examples of them.
    ``unsupported(scheme, device) -> str | None``
        why the device cannot run it, found by trying (:func:`probe`).
    """

    @property
    def name(self) -> str: ...
    @property
    def operation(self) -> str: ...
    @property
    def schemes(self) -> Sequence[str]: ...


class Quantizer(Kernel, Protocol):
    """Rounds tensors."""

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        """The values that the codes of ``x`` ``[..., K]`` stand for, in its shape."""
        ...


class Product(Kernel, Protocol):
    """Multiplies with a quantized weight.

    Optional functions:

    ``pack_quantized(quantized, scheme)``
        the same as :meth:`pack` of a :class:`~quantsuite.quantize.QuantizedTensor` ``[N, K]``, whose codes are kept.
    ``unpack(packed) -> QuantizedTensor``
        the codes and scales that are kept.
    ``trainable(packed) -> nn.Module``
        the layer that is trained with its quantization in place; called with ``x`` after ``train()``.
    ``nbytes(packed) -> int``
        bytes that stay in memory (all tensors that are found in it).
    ``unsupported_shape(scheme, device, m, n, k) -> str | None``
        why ``x [m, k]`` and a weight ``[n, k]`` cannot be multiplied.
    """

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        """Whatever :meth:`linear` needs of a weight ``[N, K]``."""
        ...

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        """``x W^T`` of ``x`` ``[..., K]``, as ``[..., N]`` in the dtype of ``x``, or in the one that is declared.

        Called with ``bias=`` ``[N]`` if the kernel takes one, and with ``activation_scale=`` (float32, of a token, a
        group or the tensor) if the scheme's activations are static.
        """
        ...


def dtypes(kernel: Kernel) -> list[torch.dtype]:
    """The input dtypes that a kernel takes."""
    return [getattr(torch, name) for name in getattr(kernel, "dtypes", DEFAULT_DTYPES)]


def output_dtype(kernel: Kernel) -> torch.dtype | None:
    """The dtype that a kernel returns, ``None`` for that of its input."""
    name = getattr(kernel, "output_dtype", None)
    return None if name is None else getattr(torch, name)


def accumulator_bits(kernel: Kernel) -> int:
    """Significand bits that a kernel says its sums over K keep."""
    return getattr(kernel, "accumulator_bits", 24)


def work(kernel: Kernel) -> int | None:
    """The most multiply-adds that one product of a check may have, or ``None`` for any number."""
    return getattr(kernel, "work", None)


def layouts(kernel: Kernel) -> Layouts:
    """Which tensors a kernel takes."""
    return getattr(kernel, "layouts", "any")


def rounds_scales(kernel: Kernel) -> bool:
    """Whether a product multiplies with scales that are rounded to the dtype of its input."""
    return bool(getattr(kernel, "rounds_scales", False))


def deterministic(kernel: Kernel) -> bool:
    """Whether the same input gives the same output, bit for bit."""
    return bool(getattr(kernel, "deterministic", True))


def flushes_subnormals(kernel: Kernel) -> bool:
    """Whether numbers below the smallest normal one may become zero."""
    return bool(getattr(kernel, "flushes_subnormals", False))


def keeps_values(kernel: Kernel) -> bool:
    """Whether a packed weight holds values rather than codes."""
    return bool(getattr(kernel, "keeps_values", False))


def static_schemes(kernel: Kernel) -> list[str]:
    """Those of a kernel's schemes whose scales of activations are given to it."""
    return [name for name in kernel.schemes if "static" in re.split("[+@]", name)[0].split("-")]


def declarations(kernel: Kernel) -> dict[str, str]:
    """What a kernel declares otherwise than what holds without a word: by name, as short text for a report."""
    declared = {
        "dtypes": "" if {*dtypes(kernel)} == {*DTYPES} else _named(*dtypes(kernel)),
        "output_dtype": _named(output_dtype(kernel)),
        "accumulator_bits": "" if accumulator_bits(kernel) == 24 else str(accumulator_bits(kernel)),
        "layouts": "" if layouts(kernel) == "any" else layouts(kernel),
        "static_scales": ", ".join(static_schemes(kernel)),
        "takes_bias": "adds the bias itself" if takes_bias(kernel) else "",
        "rounds_scales": "to the dtype of the input" if rounds_scales(kernel) else "",
        "deterministic": "" if deterministic(kernel) else "no",
        "flushes_subnormals": "may become zero" if flushes_subnormals(kernel) else "",
        "keeps_values": "values, not codes" if keeps_values(kernel) else "",
        "work": "" if work(kernel) is None else f"at most {work(kernel):,} multiply-adds",
    }
    return {name: text for name, text in declared.items() if text}


def _named(*dtypes: torch.dtype | None) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes if dtype is not None)


def packing(kernel: Kernel) -> str:
    """What kernels that take each other's packed weights have in common."""
    return getattr(kernel, "packing", kernel.name)


def takes_bias(kernel: Kernel) -> bool:
    """Whether a product adds a bias itself."""
    return bool(getattr(kernel, "takes_bias", False))


def nbytes(kernel: Kernel, packed: object) -> int:
    """Bytes that a packed weight occupies."""
    ask = getattr(kernel, "nbytes", None)
    return tensors.nbytes(packed) if ask is None else ask(packed)


def takes(kernel: Kernel, scheme: Operand | Scheme) -> bool:
    """Whether a kernel says that it implements a scheme."""
    ask = getattr(kernel, "takes", None)
    parse = Operand.parse if isinstance(scheme, Operand) else Scheme.parse
    return scheme in map(parse, kernel.schemes) if ask is None else bool(ask(scheme))


def unsupported(kernel: Kernel, scheme: Operand | Scheme, device: str) -> str | None:
    """Why a kernel cannot run a scheme on a device, in its own words, or ``None``."""
    ask = getattr(kernel, "unsupported", None)
    return None if ask is None else ask(scheme, device)


def unsupported_shape(kernel: Kernel, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
    """Why a product cannot take ``x [m, k]`` and a weight ``[n, k]`` on a device, or ``None``."""
    ask = getattr(kernel, "unsupported_shape", None)
    return None if ask is None else ask(scheme, device, m, n, k)


def pack(kernel: Any, weight: Tensor | QuantizedTensor, scheme: Scheme) -> Any:
    """The packed weight of values, or of codes that a method chose.

    Raises:
        UnsupportedError: if the kernel chooses all codes itself.
    """
    if isinstance(weight, Tensor):
        return kernel.pack(weight.contiguous() if layouts(kernel) == "contiguous" else weight, scheme)
    if not hasattr(kernel, "pack_quantized"):
        raise UnsupportedError(f"{kernel.name} has no pack_quantized, so that it takes no codes that a method chose")
    return kernel.pack_quantized(weight, scheme)


def multiply(
    kernel: Any, x: Tensor, packed: Any, *, bias: Tensor | None = None, activation_scale: Tensor | None = None
) -> Tensor:
    """``x W^T + b`` by a kernel, with what it does not do itself done around it."""
    if layouts(kernel) == "contiguous":
        x, bias = x.contiguous(), None if bias is None else bias.contiguous()
    given = {} if activation_scale is None else {"activation_scale": activation_scale}
    if bias is not None and takes_bias(kernel):
        return kernel.linear(x, packed, bias=bias, **given)
    y = kernel.linear(x, packed, **given)
    return y if bias is None else (y + bias).to(y.dtype)


def probe(run: Callable[[], object]) -> str | None:
    """Run a small case and return the first line of its error, or ``None`` if it ran.

    Raises:
        torch.OutOfMemoryError: which says nothing of what the device can.
    """
    try:
        run()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError, ImportError) as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


@cache
def probe_product(kernel: Product, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
    """Why a product of ones ``[m, k]`` and ``[n, k]`` fails, in any of the kernel's dtypes; asked once."""
    # Of other libraries' kernels no smaller shape says the same: they choose another path, or refuse, by M, N and K
    # themselves (tiles, alignment, limits of a grid).  That of a scheme alone is asked with a small shape.

    operand = scheme.activation
    static = operand is not None and not operand.dynamic

    def run(dtype: torch.dtype) -> Tensor:
        x, weight = (torch.ones(rows, k, device=device, dtype=dtype) for rows in (m, n))
        scale = quantize(x, replace(operand, dynamic=True)).scale if static else None  # type: ignore[type-var]
        return multiply(kernel, x, kernel.pack(weight, scheme), activation_scale=scale)

    return next((reason for dtype in dtypes(kernel) if (reason := probe(lambda d=dtype: run(d)))), None)
