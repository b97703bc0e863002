"""A weight in memory in the bits of its format, as quantsuite's own kernels share it.

Codes of eight bits are kept in the format's dtype, narrower ones as a bit stream (:mod:`quantsuite.packing`).  They
are widened by table: each byte of it stands for two or four codes, of three and six bits each half of three bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from quantsuite.formats import Format
from quantsuite.packing import pack, unpack
from quantsuite.quantize import QuantizedTensor, quantize, storage_dtype
from quantsuite.scheme import Operand, Scheme

PACKING = "quantsuite"
WHOLE_BYTES = 8
"""Codes of any width fill whole bytes eight at a time."""


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
    fmt, codes = quantized.operand.format, quantized.values
    if fmt.storage is None:
        codes = fmt.encode(codes)
        codes = pack(functional.pad(codes, (0, -codes.shape[-1] % WHOLE_BYTES)), fmt.bits)
    return StoredWeight(
        codes=codes,
        scale=quantized.scale,
        tensor_scale=quantized.tensor_scale,
        zero_point=quantized.zero_point,
        shape=quantized.shape,
        scheme=scheme,
    )


def unpack_weight(stored: StoredWeight) -> QuantizedTensor:
    """The inverse of :func:`pack_quantized`."""
    fmt, codes = stored.operand.format, stored.codes
    return QuantizedTensor(
        values=codes if fmt.storage is not None else widen(codes, fmt)[:, : stored.shape[1]],
        scale=stored.scale,
        tensor_scale=stored.tensor_scale,
        zero_point=stored.zero_point,
        shape=stored.shape,
        operand=stored.operand,
    )


@cache
def _table(fmt: Format, device: torch.device) -> Tensor:
    """The codes' values in every byte, or in every 12 bits of codes of three and six: float32 ``[2^bits, codes]``."""
    if 8 % fmt.bits == 0:
        streams = torch.arange(256).byte().unsqueeze(1)
    else:
        halves = torch.arange(2**12)
        streams = torch.stack([halves & 255, halves >> 8, torch.zeros_like(halves)], dim=1).byte()
    codes = unpack(streams, fmt.bits)
    return fmt.decode(codes if 8 % fmt.bits == 0 else codes[:, : 12 // fmt.bits]).to(device)


def widen(stream: Tensor, fmt: Format) -> Tensor:
    """The values (float32 ``[N, bytes * 8 / bits]``) of a bit stream (uint8 ``[N, bytes]``)."""
    places = stream.int()
    if 8 % fmt.bits:
        first, middle, last = places.unflatten(-1, (-1, 3)).unbind(-1)
        places = torch.stack([first | (middle & 15) << 8, middle >> 4 | last << 4], dim=-1).flatten(-2)
    return functional.embedding(places, _table(fmt, stream.device)).flatten(-2)


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
