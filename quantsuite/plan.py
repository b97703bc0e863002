"""Plans: what a quantization method returns and a model takes.

A plan names matrices as the model does: ``model.layers.0.mlp.up_proj`` is a layer,
``model.layers.0.mlp.experts.3.gate_proj`` a matrix of fused experts, and
``model.layers.0.self_attn.qkv_proj[0:1024]`` the first rows of a layer that holds several projections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from quantsuite import plan_files
from quantsuite.formats import IntegerFormat
from quantsuite.granularity import share_scales
from quantsuite.packing import pack_values, unpack_values
from quantsuite.plan_files import LayerEntry, PlanError
from quantsuite.quantize import QuantizedTensor, integer_range, storage_dtype
from quantsuite.scheme import REFERENCE, Operand, Scheme

__all__ = ["LayerPlan", "Plan", "PlanError", "as_plan", "name_rows", "split_rows"]

_ROWS = re.compile(r"(?P<path>.+)\[(?P<start>\d+):(?P<stop>\d+)\]")
_SCALES = ("scale", "tensor_scale", "zero_point")


def name_rows(path: str, start: int, stop: int) -> str:
    """The name of rows ``start`` to ``stop`` (exclusive) of a layer that holds several projections."""
    return f"{path}[{start}:{stop}]"


def split_rows(name: str) -> tuple[str, tuple[int, int] | None]:
    """The inverse of :func:`name_rows`; without rows for a name that has none."""
    match = _ROWS.fullmatch(name)
    return (name, None) if match is None else (match["path"], (int(match["start"]), int(match["stop"])))


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerPlan:
    """How one matrix is quantized.

    Args:
        scheme: of its weight and activations; ``Scheme()`` leaves it as it is.
        weight: ``[N, K]`` already quantized, with the codes and scales that a method chose; else it is rounded to
            nearest.
        activation_scale: float32, the scale of a static activation in a shape that its granularity broadcasts.

    Raises:
        PlanError: if the scheme has more than weight and activation, the weight is not of the scheme's operand or holds
            codes that its format does not have, or there is a scale without a static activation.
    """

    scheme: Scheme
    weight: QuantizedTensor | None = None
    activation_scale: Tensor | None = None

    def __post_init__(self) -> None:
        if self.scheme.method is not None or self.scheme.kv_cache is not None:
            raise PlanError(f"{self.scheme}: a layer has a weight and activations only; drop +kv- and @method")
        if self.weight is not None:
            if self.weight.operand != self.scheme.weight:
                raise PlanError(f"a weight of {self.weight.operand} under {self.scheme}; give the layer its own scheme")
            object.__setattr__(self, "weight", _canonical(self.weight))
        if self.activation_scale is not None:
            if self.scheme.activation is None or self.scheme.activation.dynamic:
                raise PlanError(f"{self.scheme} takes no activation scale; end the activation in -static")
            scale = self.activation_scale
            if scale.dtype != torch.float32 or not bool((scale.isfinite() & (scale > 0)).all()):
                raise PlanError(f"activation scales of {scale.dtype}; give finite, positive float32")


def _scale_shape(shape: torch.Size, operand: Operand) -> torch.Size:
    view, shared = share_scales(torch.empty(shape, device="meta"), operand.granularity)
    return view.amax(shared, keepdim=True).shape


def _canonical(weight: QuantizedTensor) -> QuantizedTensor:
    """The weight with its codes as they are read back: zero has one sign where the format has one.

    Raises:
        PlanError: if shapes or dtypes are not those of the operand, or a code or scale is none of the format.
    """
    operand, fmt = weight.operand, weight.operand.format
    if weight.values.ndim != 2 or weight.values.shape != weight.shape:
        raise PlanError(f"values of shape {list(weight.values.shape)}; give a matrix [N, K] without padding")
    expected = {
        "values": (storage_dtype(fmt) or torch.float32, weight.shape),
        "scale": (storage_dtype(operand.scale), _scale_shape(weight.shape, operand)),
        "tensor_scale": (torch.float32, torch.Size()) if operand.scale.of_tensor else None,
        "zero_point": (torch.int8, _scale_shape(weight.shape, operand)) if not operand.symmetric else None,
    }
    for name, wanted in expected.items():
        tensor = getattr(weight, name)
        found = None if tensor is None else (tensor.dtype, tensor.shape)
        if found != wanted:
            raise PlanError(f"{name} of {operand} is {found}, expected {wanted}; give what quantize gives")
    if not bool(weight.step.isfinite().all()):
        raise PlanError(f"a scale of {operand} is NaN or infinite; repair it")
    low, high = integer_range(operand) if isinstance(fmt, IntegerFormat) else (fmt.min, fmt.max)
    values = weight.values.float()
    held = fmt.decode(fmt.encode(values.nan_to_num(nan=torch.inf))) if fmt.storage is None else values
    wrong = (held != values) | ~((values >= low) & (values <= high))
    if bool(wrong.any()):
        raise PlanError(f"code {float(values[wrong][0]):g} is none of {operand}, from {low:g} to {high:g}; round codes")
    return weight if fmt.storage is not None else replace(weight, values=held)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """How a model is quantized, layer by layer.  Plans with one scheme and one hash are equal.

    Args:
        scheme: of every layer that is not named, and the plan's name; its method, if any, made the plan.
        layers: by name, the matrices that differ from the default.
        parameters: by name, what other parameters are replaced with: changes that, with those of the layers, leave the
            function as it is, such as a norm's weight divided by what the next layer's columns are multiplied with.
        model_sha256: of the weights that the plan was made from, as :func:`quantsuite.parameters.weights_sha256` gives
            it; the plan fits no other model.  Empty: any model that has its layers.

    Raises:
        PlanError: if a parameter is not finite and floating, or rows are named that are none.
    """

    scheme: Scheme
    layers: Mapping[str, LayerPlan] = field(default_factory=dict)
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    model_sha256: str = ""

    def __post_init__(self) -> None:
        for name, tensor in self.parameters.items():
            if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
                raise PlanError(f"{name}: a parameter of {tensor.dtype} that is not finite; give finite floats")
        for name in self.layers:
            _, rows = split_rows(name)
            if rows is not None and rows[0] >= rows[1]:
                raise PlanError(f"{name} names no rows; write [start:stop], stop exclusive")

    @classmethod
    def of(cls, scheme: Scheme) -> Plan:
        """Round-to-nearest of every layer.

        Raises:
            PlanError: if the scheme names a method, which makes a plan of its own.
        """
        if scheme.method is not None:
            raise PlanError(f"{scheme}: a method makes the plan first; use quantsuite.methods.make_plan")
        return cls(scheme=scheme)

    def __str__(self) -> str:
        return str(self.scheme)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and (self.scheme, self.sha256) == (other.scheme, other.sha256)

    def __hash__(self) -> int:
        return hash((self.scheme, self.sha256))

    @property
    def is_reference(self) -> bool:
        """Whether the plan changes nothing."""
        return replace(self.scheme, method=None) == REFERENCE and not self.layers and not self.parameters

    @cached_property
    def default(self) -> LayerPlan:
        """Of every layer that is not named."""
        return LayerPlan(scheme=replace(self.scheme, method=None, kv_cache=None))

    def layer(self, name: str) -> LayerPlan:
        """Of a layer, named or not."""
        return self.layers.get(name, self.default)

    def parts(self, path: str) -> dict[tuple[int, int], LayerPlan]:
        """The rows of a layer that are named one by one, in order; empty for a layer that is one matrix."""
        return self._parts.get(path, {})

    @cached_property
    def _parts(self) -> dict[str, dict[tuple[int, int], LayerPlan]]:
        parts: dict[str, dict[tuple[int, int], LayerPlan]] = {}
        for (path, rows), layer in sorted(((split_rows(name), layer) for name, layer in self.layers.items()), key=_key):
            if rows is not None:
                parts.setdefault(path, {})[rows] = layer
        return parts

    @cached_property
    def sha256(self) -> str:
        """Over all but the model's hash; empty for round-to-nearest of one scheme, whose identity is its name."""
        return plan_files.checksum(*self._stored()) if self.layers or self.parameters else ""

    def _stored(self) -> tuple[str, dict[str, LayerEntry], dict[str, Tensor]]:
        entries, tensors = {}, {f"parameters.{name}": tensor for name, tensor in self.parameters.items()}
        for name, layer in self.layers.items():
            shape = None if layer.weight is None else tuple(layer.weight.shape)
            entries[name] = LayerEntry(scheme=str(layer.scheme), shape=shape)
            tensors |= {f"layers.{name}.{part}": tensor for part, tensor in _tensors(layer).items()}
        return str(self.scheme), entries, tensors

    def save(self, folder: Path | str) -> None:
        """Write the plan to a folder, codes packed; :meth:`load` gives it back bit for bit."""
        plan_files.write(Path(folder), *self._stored(), model_sha256=self.model_sha256)

    @classmethod
    def load(cls, folder: Path | str) -> Plan:
        """The plan that :meth:`save` wrote; nothing in the folder is executed.

        Raises:
            PlanError: if the folder holds no plan, or one that was changed.
        """
        document, tensors = plan_files.read(Path(folder))
        try:
            layers = {name: _layer(name, entry, tensors) for name, entry in document.layers.items()}
            parameters = {name: tensors.pop(f"parameters.{name}") for name in _named(tensors, "parameters.")}
            if tensors:
                raise PlanError(f"{sorted(tensors)[0]} belongs to no layer")
            scheme, model = Scheme.parse(document.scheme), document.model_sha256
            return cls(scheme=scheme, layers=layers, parameters=parameters, model_sha256=model)
        except (KeyError, RuntimeError, ValueError) as error:
            raise PlanError(f"{folder}: {str(error).splitlines()[0]}; make the plan again") from error


def as_plan(plan: Plan | Scheme) -> Plan:
    """A plan as it is, a scheme as round-to-nearest.

    Raises:
        PlanError: as :meth:`Plan.of`.
    """
    return plan if isinstance(plan, Plan) else Plan.of(plan)


def _key(part: tuple[tuple[str, tuple[int, int] | None], LayerPlan]) -> tuple[str, tuple[int, int]]:
    (path, rows), _ = part
    return path, rows or (0, 0)


def _named(tensors: Mapping[str, Tensor], beginning: str) -> list[str]:
    return [name.removeprefix(beginning) for name in tensors if name.startswith(beginning)]


def _tensors(layer: LayerPlan) -> dict[str, Tensor]:
    """What is stored of a layer: codes packed, eight-bit dtypes as bytes."""
    stored = {} if layer.activation_scale is None else {"activation_scale": layer.activation_scale}
    if (weight := layer.weight) is None:
        return stored
    parts = {"codes": pack_values(weight.values, weight.operand.format), **{n: getattr(weight, n) for n in _SCALES}}
    for name, tensor in parts.items():
        if tensor is not None:
            stored[name] = tensor.view(torch.uint8) if tensor.element_size() == 1 else tensor
    return stored


def _layer(name: str, entry: LayerEntry, tensors: dict[str, Tensor]) -> LayerPlan:
    """The inverse of :func:`_tensors`; what it takes of ``tensors`` is removed."""
    scheme, taken = Scheme.parse(entry.scheme), f"layers.{name}."
    activation_scale = tensors.pop(f"{taken}activation_scale", None)
    if entry.shape is None:
        return LayerPlan(scheme=scheme, activation_scale=activation_scale)
    if (operand := scheme.weight) is None:
        raise PlanError(f"{name}: {scheme} has no weight")
    fmt, codes, scale = operand.format, tensors.pop(f"{taken}codes"), tensors.pop(f"{taken}scale")
    zero_point = tensors.pop(f"{taken}zero_point", None)
    weight = QuantizedTensor(
        values=unpack_values(codes.view(storage_dtype(fmt) or torch.uint8), fmt, entry.shape[1]),
        scale=scale.view(storage_dtype(operand.scale)) if scale.dtype == torch.uint8 else scale,
        tensor_scale=tensors.pop(f"{taken}tensor_scale", None),
        zero_point=None if zero_point is None else zero_point.view(torch.int8),
        shape=torch.Size(entry.shape),
        operand=operand,
    )
    return LayerPlan(scheme=scheme, weight=weight, activation_scale=activation_scale)
