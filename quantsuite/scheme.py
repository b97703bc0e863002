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
from dataclasses import dataclass, replace
from typing import Literal, get_args

from quantsuite.formats import FORMATS, Format, IntegerFormat
from quantsuite.granularity import Granularity, PerGroup, PerRow, PerTensor, parse_granularity

Execution = Literal["simulated", "real"]
EXECUTIONS: tuple[Execution, ...] = get_args(Execution)
REFERENCE_NAME = "bf16"
GROUP_SIZES = (64, 128, 256, 512)
ScaleFormat = Literal["fp32", "bf16", "e8m0", "e4m3"]
SCALE_FORMATS: tuple[ScaleFormat, ...] = get_args(ScaleFormat)
_FLAGS = ("asym", "full", *(f"s{scale}" for scale in SCALE_FORMATS[1:]), "clip", "static")


@dataclass(frozen=True, kw_only=True)
class Operand:
    """How one tensor is quantized.

    Args:
        format: the number format of its codes.
        granularity: which elements share a scale.
        symmetric: whether zero is the middle of the codes; otherwise there is a zero point.
        full_range: whether symmetric integers use the most negative code too; otherwise the range is
            ``-max .. max``.
        scale: the format of the scales: float32, bfloat16, a power of two (E8M0), or E4M3 with a float32 scale
            for the tensor.
        clip: whether each scale is searched for the least squared error, clipping the largest values.
        dynamic: whether scales are taken from the tensor at hand; otherwise from calibration.
    """

    format: Format
    granularity: Granularity
    symmetric: bool = True
    full_range: bool = False
    scale: ScaleFormat = "fp32"
    clip: bool = False
    dynamic: bool = True

    def __post_init__(self) -> None:
        integer = isinstance(self.format, IntegerFormat)
        if not self.symmetric and not integer:
            raise ValueError(f"a zero point needs an integer format, not {self.format.name}; drop -asym")
        if self.full_range and not (integer and self.symmetric):
            raise ValueError(f"the full range is one of symmetric integers, not of {self.format.name}; drop -full")
        if self.scale != "fp32" and (self.full_range or not self.symmetric):
            raise ValueError(f"scales in {self.scale} need the symmetric, restricted range; drop -s{self.scale}")
        if self.clip and (self.full_range or not self.symmetric or self.scale != "fp32"):
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
        scales = [scale for scale in SCALE_FORMATS if f"s{scale}" in flags]
        if len(scales) > 1:
            raise ValueError(f"{text!r} names {len(scales)} formats of its scales; keep one of {', '.join(scales)}")
        return cls(
            format=FORMATS[name],
            granularity=parse_granularity(granularity),
            symmetric="asym" not in flags,
            full_range="full" in flags,
            scale=scales[0] if scales else "fp32",
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
            f"s{self.scale}": self.scale != "fp32",
            "clip": self.clip,
            "static": not self.dynamic,
        }
        return "-".join([self.format.name, str(self.granularity), *(name for name, there in endings.items() if there)])


def _block_format(name: str, size: int, scale: ScaleFormat) -> Operand:
    return Operand(format=FORMATS[name], granularity=PerGroup(size), scale=scale)


BLOCK_FORMATS: dict[str, Operand] = {
    "mxfp8": _block_format("fp8", 32, "e8m0"),
    "mxfp8e5m2": _block_format("fp8e5m2", 32, "e8m0"),
    "mxfp6e2m3": _block_format("fp6e2m3", 32, "e8m0"),
    "mxfp6e3m2": _block_format("fp6e3m2", 32, "e8m0"),
    "mxfp4": _block_format("fp4", 32, "e8m0"),
    "mxint8": _block_format("int8", 32, "e8m0"),
    "nvfp4": _block_format("fp4", 16, "e4m3"),
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


REFERENCE = Scheme()

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
