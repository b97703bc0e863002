"""Schemes: what is quantized and how, as data whose name is its identity.

::

    scheme     = "bf16" | weight [":" activation]  then  ["+kv-" operand] ["@" method]
    operand    = format "-" granularity ["-asym" | "-full"] ["-s" scale] ["-clip"] ["-static"]
               | block format ["-static"]

``int8-row``, ``fp8-g128``, ``int4-g128-asym``, ``int8-g128-sbf16``, ``int8-row:int8-token``, ``mxfp4``, ``nvfp4``,
``bf16+kv-int8-token``, ``int4-g128@awq``.  ``Scheme.parse`` and ``str`` are inverses.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args

from quantsuite.formats import FORMATS, Format, IntegerFormat
from quantsuite.granularity import Granularity, PerGroup, PerRow, PerTensor, parse_granularity
from quantsuite.scale_formats import E4M3_SCALE, E8M0_SCALE, FP32_SCALE, SCALE_FORMATS, ScaleFormat

Execution = Literal["simulated", "real"]
EXECUTIONS: tuple[Execution, ...] = get_args(Execution)
REFERENCE_NAME = "bf16"
DTYPES = ("bf16", "fp16", "fp32")
"""In which a model may be run."""
GROUP_SIZES = (64, 128, 256, 512)
_SCALE_FLAGS = {f"s{name}": scale for name, scale in SCALE_FORMATS.items() if scale != FP32_SCALE}
_FLAGS = ("asym", "full", *_SCALE_FLAGS, "clip", "static")


@dataclass(frozen=True, kw_only=True)
class Operand:
    """How one tensor is quantized.

    Args:
        format: the number format of its codes.
        granularity: which elements share a scale.
        symmetric: whether zero is the middle of the codes; otherwise there is a zero point.
        full_range: whether symmetric integers use the most negative code too; otherwise the range is
            ``-max .. max``.
        scale: the format of the scales.
        clip: whether each scale is searched for the least squared error, clipping the largest values.
        dynamic: whether scales are taken from the tensor at hand; otherwise from calibration.
    """

    format: Format
    granularity: Granularity
    symmetric: bool = True
    full_range: bool = False
    scale: ScaleFormat = FP32_SCALE
    clip: bool = False
    dynamic: bool = True

    def __post_init__(self) -> None:
        integer = isinstance(self.format, IntegerFormat)
        if not self.symmetric and not integer:
            raise ValueError(f"a zero point needs an integer format, not {self.format.name}; drop -asym")
        if self.full_range and not (integer and self.symmetric):
            raise ValueError(f"the full range is one of symmetric integers, not of {self.format.name}; drop -full")
        if self.scale != FP32_SCALE and (self.full_range or not self.symmetric):
            name = self.scale.name
            raise ValueError(f"scales in {name} need the symmetric, restricted range; drop -s{name}")
        if self.clip and (self.full_range or not self.symmetric or self.scale != FP32_SCALE):
            raise ValueError("clip search needs the symmetric, restricted range and float32 scales; drop -clip")

    @classmethod
    def parse(cls, text: str) -> Operand:
        """The inverse of ``str``, for example ``int4-g128-asym``.

        Raises:
            ValueError: if the format or the granularity is unknown.
        """
        name, *rest = text.split("-")
        if name in BLOCK_FORMATS:
            if rest not in ([], ["static"]):
                raise ValueError(f"{name} has its own block and scale; write {name} or {name}-static, not {text!r}")
            return replace(BLOCK_FORMATS[name], dynamic=not rest)
        if name not in FORMATS:
            known = [*FORMATS, *BLOCK_FORMATS]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"unknown number format {name!r} in {text!r}; {hint}known: {', '.join(known)}")
        if not rest:
            raise ValueError(f"{text!r} names no granularity; write for example {name}-row or {name}-g128")
        granularity, *flags = rest
        expected = [flag for flag in _FLAGS if flag in flags]
        if flags != expected:
            raise ValueError(
                f"unknown ending {'-'.join(flags)!r} in {text!r}; known: {', '.join(_FLAGS)}, in this order"
            )
        scales = [scale for flag, scale in _SCALE_FLAGS.items() if flag in flags]
        if len(scales) > 1:
            raise ValueError(
                f"{text!r} names {len(scales)} formats of its scales; keep one of {', '.join(s.name for s in scales)}"
            )
        return cls(
            format=FORMATS[name],
            granularity=parse_granularity(granularity),
            symmetric="asym" not in flags,
            full_range="full" in flags,
            scale=scales[0] if scales else FP32_SCALE,
            clip="clip" in flags,
            dynamic="static" not in flags,
        )

    def __str__(self) -> str:
        always = replace(self, dynamic=True)
        for name, operand in BLOCK_FORMATS.items():
            if operand == always:
                return name if self.dynamic else f"{name}-static"
        endings = {
            "asym": not self.symmetric,
            "full": self.full_range,
            f"s{self.scale.name}": self.scale != FP32_SCALE,
            "clip": self.clip,
            "static": not self.dynamic,
        }
        return "-".join([self.format.name, str(self.granularity), *(name for name, there in endings.items() if there)])


def _block_format(name: str, size: int, scale: ScaleFormat) -> Operand:
    return Operand(format=FORMATS[name], granularity=PerGroup(size), scale=scale)


BLOCK_FORMATS: dict[str, Operand] = {
    "mxfp8": _block_format("fp8", 32, E8M0_SCALE),
    "mxfp8e5m2": _block_format("fp8e5m2", 32, E8M0_SCALE),
    "mxfp6e2m3": _block_format("fp6e2m3", 32, E8M0_SCALE),
    "mxfp6e3m2": _block_format("fp6e3m2", 32, E8M0_SCALE),
    "mxfp4": _block_format("fp4", 32, E8M0_SCALE),
    "mxint8": _block_format("int8", 32, E8M0_SCALE),
    "nvfp4": _block_format("fp4", 16, E4M3_SCALE),
}
"""Formats with a block and a scale of their own: OCP Microscaling v1.0, and NVIDIA's NVFP4."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What is quantized; ``None`` stays in the model's own dtype.  ``Scheme()`` is the reference."""

    weight: Operand | None = None
    activation: Operand | None = None
    kv_cache: Operand | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        if self.activation is not None and self.weight is None:
            raise ValueError(f"activations in {self.activation} need quantized weights; write weight:activation")

    @classmethod
    @cache
    def parse(cls, name: str) -> Scheme:
        """The scheme of a name in this module's grammar, or of a course report's name.

        Raises:
            ValueError: if the name is in neither grammar.
        """
        if (alias := parse_alias(name)) is not None:
            return alias[0]
        match = re.fullmatch(
            r"(?P<weight>[^:+@]+)(:(?P<activation>[^:+@]+))?(\+kv-(?P<kv>[^:+@]+))?(@(?P<method>\w+))?", name
        )
        if match is None:
            raise ValueError(f"{name!r} is not a scheme; write bf16, int8-row, fp8-g128 or int8-row:int8-token")
        try:
            return cls(
                weight=None if match["weight"] == REFERENCE_NAME else Operand.parse(match["weight"]),
                activation=Operand.parse(match["activation"]) if match["activation"] else None,
                kv_cache=Operand.parse(match["kv"]) if match["kv"] else None,
                method=match["method"],
            )
        except ValueError as error:
            raise ValueError(f"unknown scheme {name!r}: {error}") from error

    def __str__(self) -> str:
        text = REFERENCE_NAME if self.weight is None else str(self.weight)
        if self.activation is not None:
            text += f":{self.activation}"
        if self.kv_cache is not None:
            text += f"+kv-{self.kv_cache}"
        return text if self.method is None else f"{text}@{self.method}"

    @property
    def is_reference(self) -> bool:
        return self == REFERENCE

    @property
    def is_weight_only(self) -> bool:
        """Whether format and granularity of the weight are all that there is to say."""
        weight = self.weight
        return weight is not None and self == Scheme(
            weight=Operand(format=weight.format, granularity=weight.granularity)
        )


REFERENCE = Scheme()


@dataclass(frozen=True)
class Variant:
    """A scheme in an execution; the reference has none."""

    scheme: Scheme
    execution: Execution | None = None

    @property
    def label(self) -> str:
        """``int8-row-real``; ``bf16`` for the reference."""
        return str(self.scheme) if self.execution is None else f"{self.scheme}-{self.execution}"

    @property
    def alias(self) -> str | None:
        """A course report's name, such as ``INT8_Per_Row_Real``, where it has one."""
        return alias(self.scheme, self.execution)

    def __str__(self) -> str:
        return self.label


REFERENCE_VARIANT = Variant(REFERENCE)

_GRANULARITIES: tuple[Granularity, ...] = (PerTensor(), PerRow(), *map(PerGroup, GROUP_SIZES))

CATALOGUE: tuple[Scheme, ...] = tuple(
    Scheme(weight=Operand(format=FORMATS[name], granularity=granularity))
    for name in ("int8", "fp8")
    for granularity in _GRANULARITIES
)
"""The twelve weight-only schemes that a bare run compares with the reference."""

_ALIAS = re.compile(r"(INT8|FP8)_Per_(Tensor|Row|Group_(\d+))(?:_(Fake|Real))?", re.IGNORECASE)


def parse_alias(name: str) -> tuple[Scheme, Execution | None] | None:
    """The scheme and execution of a course report's name, such as ``INT8_Per_Group_512_Fake``."""
    if name.upper() == "BF16":
        return REFERENCE, None
    match = _ALIAS.fullmatch(name)
    if match is None:
        return None
    granularity = PerGroup(int(match[3])) if match[3] else {"tensor": PerTensor(), "row": PerRow()}[match[2].lower()]
    execution: Execution | None = None
    if match[4]:
        execution = "simulated" if match[4].lower() == "fake" else "real"
    return Scheme(weight=Operand(format=FORMATS[match[1].lower()], granularity=granularity)), execution


def alias(scheme: Scheme, execution: Execution | None) -> str | None:
    """A course report's name of a scheme, or ``None`` where it has none."""
    if scheme.is_reference:
        return "BF16"
    if scheme not in CATALOGUE:
        return None
    assert scheme.weight is not None
    granularity = scheme.weight.granularity
    part = f"Group_{granularity.size}" if isinstance(granularity, PerGroup) else str(granularity).capitalize()
    ending = {"simulated": "_Fake", "real": "_Real", None: ""}[execution]
    return f"{scheme.weight.format.name.upper()}_Per_{part}{ending}"


def parse_variants(names: Iterable[str], executions: Sequence[Execution]) -> list[Variant]:
    """Schemes in executions, the reference first whether it is named or not.

    A course report's name that ends in ``_Fake`` or ``_Real`` brings its own execution; ``all`` stands for the
    catalogue.

    Raises:
        ValueError: if a name is no scheme.
    """
    variants = {REFERENCE_VARIANT: None}
    for name in names:
        own = parse_alias(name)
        for scheme in CATALOGUE if name == "all" else (Scheme.parse(name),):
            if not scheme.is_reference:
                chosen = (own[1],) if own and own[1] else executions
                variants |= dict.fromkeys(Variant(scheme, execution) for execution in chosen)
    return list(variants)
