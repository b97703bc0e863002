"""Torch's fake quantizers, whose observers take the range of the tensor at hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.ao import quantization

from quantsuite.kernels.layers import kernel_of_fake_quantizer

FLOAT32 = ("float32",)
"""The dtype in which observers compute."""


def _of_tensor() -> nn.Module:
    return quantization.FakeQuantize(observer=quantization.MinMaxObserver, quant_min=0, quant_max=255)


def _of_rows() -> nn.Module:
    return quantization.FakeQuantize(
        observer=quantization.PerChannelMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
    )


KERNELS: list[Any] = [
    kernel_of_fake_quantizer("torch-fake-quantize", _of_tensor, ["int8-tensor-asym"], dtypes=FLOAT32),
    kernel_of_fake_quantizer("torch-fake-quantize-rows", _of_rows, ["int8-row-full"], dtypes=FLOAT32),
]
