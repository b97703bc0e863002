"""torchao's ``quantize_`` configurations, applied to a linear layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantsuite.granularity import PerGroup
from quantsuite.kernels.layers import kernel_of_layer
from quantsuite.kernels.loading import require
from quantsuite.kernels.protocol import probe_product
from quantsuite.scheme import Operand, Scheme

require("torchao", extra="torchao")
from torchao import quantization as ao  # noqa: E402
from torchao.prototype import mx_formats as mx  # noqa: E402
from torchao.quantization import qat  # noqa: E402


def _granularity(operand: Operand) -> Any:
    return ao.PerGroup(operand.granularity.size) if isinstance(operand.granularity, PerGroup) else ao.PerAxis(0)


def _weight(scheme: Scheme) -> Operand:
    assert scheme.weight is not None
    return scheme.weight


def _groups_or_row(operand: Operand) -> Any:
    return ao.PerGroup(operand.granularity.size) if isinstance(operand.granularity, PerGroup) else ao.PerRow()


def _float8_granularity(scheme: Scheme) -> Any:
    return ao.PerTensor() if str(_weight(scheme).granularity) == "tensor" else ao.PerRow()


def _intx(scheme: Scheme) -> Any:
    weight = _weight(scheme)
    dtype = getattr(torch, weight.format.name)
    mapping = ao.quant_primitives.MappingType
    return ao.IntxWeightOnlyConfig(
        weight_dtype=dtype,
        granularity=_granularity(weight),
        mapping_type=mapping.SYMMETRIC if weight.symmetric else mapping.ASYMMETRIC,
    )


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One of torchao's configurations, as a function of the scheme."""

    name: str
    schemes: tuple[str, ...]
    configure: Callable[[Scheme], Any]
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    operation: str = "linear"

    def unsupported(self, scheme: Scheme, device: str) -> str | None:
        return probe_product(self, scheme, device, 32, 256, 256)

    def unsupported_shape(self, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
        return probe_product(self, scheme, device, m, n, k)

    def pack(self, weight: Tensor, scheme: Scheme) -> nn.Module:
        n, k = weight.shape
        layer = nn.Linear(k, n, bias=False, device="meta")
        layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
        holder = nn.Sequential(layer)
        ao.quantize_(holder, self.configure(scheme))
        return holder

    @torch.no_grad()
    def linear(self, x: Tensor, packed: nn.Module) -> Tensor:
        return packed(x)


_INT4 = qat.IntxFakeQuantizeConfig(torch.int4, group_size=32, is_symmetric=True)
_INT8_TOKENS = qat.IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)

KERNELS = [
    Configuration(
        name="torchao-int8-weight-only",
        schemes=("int8-row-full", "int8-g64-full"),
        configure=lambda scheme: ao.Int8WeightOnlyConfig(granularity=_groups_or_row(_weight(scheme))),
    ),
    Configuration(
        name="torchao-int8-dynamic",
        schemes=("int8-row-full:int8-token-full",),
        configure=lambda scheme: ao.Int8DynamicActivationInt8WeightConfig(),
    ),
    Configuration(
        name="torchao-float8-weight-only",
        schemes=("fp8-row",),
        configure=lambda scheme: ao.Float8WeightOnlyConfig(),
    ),
    Configuration(
        name="torchao-float8-dynamic",
        schemes=("fp8-row:fp8-token", "fp8-tensor:fp8-tensor"),
        configure=lambda scheme: ao.Float8DynamicActivationFloat8WeightConfig(granularity=_float8_granularity(scheme)),
        dtypes=("bfloat16",),
    ),
    Configuration(
        name="torchao-intx-weight-only",
        schemes=("int4-g64-full", "int4-g64-asym", "int8-row-full"),
        configure=_intx,
    ),
    Configuration(
        name="torchao-int4-weight-only",
        schemes=("int4-g64",),
        configure=lambda scheme: ao.Int4WeightOnlyConfig(group_size=_weight(scheme).granularity.size),
        dtypes=("bfloat16",),
    ),
    Configuration(
        name="torchao-mxfp8",
        schemes=("mxfp8:mxfp8",),
        configure=lambda scheme: mx.MXDynamicActivationMXWeightConfig(),
        dtypes=("bfloat16",),
    ),
    Configuration(
        name="torchao-nvfp4",
        schemes=("nvfp4",),
        configure=lambda scheme: mx.NVFP4WeightOnlyConfig(),
    ),
    kernel_of_layer(
        "torchao-fake-quantized",
        lambda layer: qat.FakeQuantizedLinear.from_linear(layer, weight_config=_INT4),
        ["int4-g32-full"],
        trains=True,
    ),
    kernel_of_layer(
        "torchao-fake-quantized-dynamic",
        lambda layer: qat.FakeQuantizedLinear.from_linear(layer, _INT8_TOKENS, _INT4),
        ["int4-g32-full:int8-token-asym"],
        trains=True,
    ),
]
