"""A weight in memory in the bits of its format (:mod:`quantsuite.packing`), as quantsuite's own kernels share it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from quantsuite.packing import pack_values, unpack_values
from quantsuite.quantize import QuantizedTensor, quantize, storage_dtype
from quantsuite.scheme import Operand, Scheme

PACKING = "quantsuite"


@dataclass(frozen=True, kw_only=True)
class StoredWeight:
    """A packed weight ``[N, K]``, with the scheme whose activations it meets.

    Args:
        codes: ``[N, K]`` in the format's dtype, or uint8 ``[N, bytes]``.
        scale: as :class:`~quantsuite.quantize.QuantizedTensor` has it.
        tensor_scale: likewise.
        zero_point: likewise.
        shape: ``N, K``.
        scheme: of the layer.
    """

    codes: Tensor
    scale: Tensor
    tensor_scale: Tensor | None
    zero_point: Tensor | None
    shape: torch.Size
    scheme: Scheme

    @property
    def operand(self) -> Operand:
        assert self.scheme.weight is not None
        return self.scheme.weight


def pack_weight(weight: Tensor, scheme: Scheme) -> StoredWeight:
    """Quantize and store a weight ``[N, K]``.

    Raises:
        ValueError: as :func:`~quantsuite.quantize.quantize`.
    """
    assert scheme.weight is not None
    return pack_quantized(quantize(weight, scheme.weight), scheme)


def pack_quantized(quantized: QuantizedTensor, scheme: Scheme) -> StoredWeight:
    """Store codes that were chosen elsewhere.

    Raises:
        ValueError: if they are not of the scheme's weight.
    """
    if quantized.operand != scheme.weight:
        raise ValueError(f"codes of {quantized.operand} are no weight of {scheme}; give codes of {scheme.weight}")
    return StoredWeight(
        codes=pack_values(quantized.values, quantized.operand.format),
        scale=quantized.scale,
        tensor_scale=quantized.tensor_scale,
        zero_point=quantized.zero_point,
        shape=quantized.shape,
        scheme=scheme,
    )


def unpack_weight(stored: StoredWeight) -> QuantizedTensor:
    """The inverse of :func:`pack_quantized`."""
    return QuantizedTensor(
        values=unpack_values(stored.codes, stored.operand.format, stored.shape[1]),
        scale=stored.scale,
        tensor_scale=stored.tensor_scale,
        zero_point=stored.zero_point,
        shape=stored.shape,
        operand=stored.operand,
    )


@cache
def missing_storage(storage: torch.dtype, device: str) -> str | None:
    """Why the device cannot store and widen a dtype: the device is asked, not looked up by name."""
    try:
        torch.ones(8, device=device).to(storage).to(torch.bfloat16)
    except torch.OutOfMemoryError:  # It says nothing of the dtype.
        raise
    except (RuntimeError, NotImplementedError, TypeError) as error:
        return f"{device} cannot convert {storage}: {str(error).splitlines()[0]}"
    return None


def missing_dtypes(scheme: Scheme, device: str) -> str | None:
    """Why the device cannot hold the operands of a scheme, or ``None`` if it can."""
    operands = [operand for operand in (scheme.weight, scheme.activation) if operand is not None]
    needed = [storage_dtype(part) for operand in operands for part in (operand.format, operand.scale)]
    missing = (missing_storage(dtype, device) for dtype in needed if dtype is not None)
    return next((reason for reason in missing if reason), None)
