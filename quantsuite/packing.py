"""Codes in bytes and words: those of eight bits in their format's dtype, narrower ones as a bit stream.

The layout is a little-endian bit stream along the last dimension: bit ``j`` of code ``i`` is bit
``bits * i + j`` of the row, and bit ``n`` of the row is bit ``n % 8`` of byte ``n // 8``.  So

====  =====================  ===========================================================
bits  codes in bytes         byte 0 holds
====  =====================  ===========================================================
2     4 in 1                 code 0 in bits 0-1, code 1 in 2-3, code 2 in 4-5, 3 in 6-7
3     8 in 3                 code 0 in bits 0-2, code 1 in 3-5, low two of code 2 in 6-7
4     2 in 1                 code 0 in bits 0-3, code 1 in bits 4-7
6     4 in 3                 code 0 in bits 0-5, low two bits of code 1 in 6-7
====  =====================  ===========================================================

Read as little-endian int32, eight 4-bit codes lie in a word from its low bits upwards.  In the
*interleaved* word the codes stand in the order 0, 2, 4, 6, 1, 3, 5, 7, so that
``word >> 4 * i & 0x000F000F`` has codes ``2 i`` and ``2 i + 1`` in its two halves, as kernels that
convert two at a time want them (the order of AWQ's kernels).

Streams are widened to values by table: each byte stands for two or four codes, of three and six bits each half of
three bytes.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from quantsuite.formats import Format

INTERLEAVED = (0, 2, 4, 6, 1, 3, 5, 7)
_WHOLE_BYTES = 8
"""Codes of any width fill whole bytes eight at a time."""


def pack(codes: Tensor, bits: int) -> Tensor:
    """The bit stream of codes.

    Args:
        codes: uint8 ``[..., K]``, each below ``2**bits``; K a multiple of the codes that fill whole bytes.
        bits: of a code, 1 to 8.

    Returns:
        uint8 ``[..., K * bits / 8]``.

    Raises:
        ValueError: if K does not fill whole bytes, or a code does not fit.
    """
    whole = 8 // math.gcd(8, bits)
    if codes.shape[-1] % whole:
        raise ValueError(f"{codes.shape[-1]} codes of {bits} bits fill no whole bytes; use a multiple of {whole}")
    if codes.numel() and int(codes.max()) >= 2**bits:
        raise ValueError(f"code {int(codes.max())} needs more than {bits} bits; the largest is {2**bits - 1}")
    places = torch.arange(bits, device=codes.device, dtype=torch.uint8)
    stream = (codes.unsqueeze(-1) >> places & 1).flatten(-2).unflatten(-1, (-1, 8))
    weights = 2 ** torch.arange(8, device=codes.device, dtype=torch.uint8)
    return (stream * weights).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The inverse of :func:`pack`: uint8 ``[..., bytes]`` to uint8 ``[..., bytes * 8 / bits]``."""
    places = torch.arange(8, device=packed.device, dtype=torch.uint8)
    stream = (packed.unsqueeze(-1) >> places & 1).flatten(-2).unflatten(-1, (-1, bits))
    weights = 2 ** torch.arange(bits, device=packed.device, dtype=torch.uint8)
    return (stream * weights).sum(-1, dtype=torch.uint8)


def pack_int4(codes: Tensor, *, interleaved: bool = False) -> Tensor:
    """Eight 4-bit codes in each int32: uint8 ``[..., K]`` to int32 ``[..., K / 8]``.

    Raises:
        ValueError: as :func:`pack`, or if K is not a multiple of 8.
    """
    if codes.shape[-1] % 8:
        raise ValueError(f"{codes.shape[-1]} codes do not fill words of eight; use a multiple of 8")
    if interleaved:
        codes = codes.unflatten(-1, (-1, 8))[..., list(INTERLEAVED)].flatten(-2)
    return pack(codes, 4).view(torch.int32)


def unpack_int4(words: Tensor, *, interleaved: bool = False) -> Tensor:
    """The inverse of :func:`pack_int4`: int32 ``[..., W]`` to uint8 ``[..., 8 W]``."""
    codes = unpack(words.view(torch.uint8), 4)
    if interleaved:
        order = torch.argsort(torch.tensor(INTERLEAVED)).tolist()
        codes = codes.unflatten(-1, (-1, 8))[..., order].flatten(-2)
    return codes


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


def _widen(stream: Tensor, fmt: Format) -> Tensor:
    """The values (float32 ``[N, bytes * 8 / bits]``) of a bit stream (uint8 ``[N, bytes]``)."""
    places = stream.int()
    if 8 % fmt.bits:
        first, middle, last = places.unflatten(-1, (-1, 3)).unbind(-1)
        places = torch.stack([first | (middle & 15) << 8, middle >> 4 | last << 4], dim=-1).flatten(-2)
    return functional.embedding(places, _table(fmt, stream.device)).flatten(-2)


def pack_values(values: Tensor, fmt: Format) -> Tensor:
    """The codes of a matrix as they are stored.

    Args:
        values: ``[N, K]``, those of the format: in its storage dtype, or float32 where it has none.
        fmt: of the codes.

    Returns:
        the values themselves where the format has a storage dtype, else uint8 ``[N, bytes]``, the bit stream of each
        row with zeros after its last code.
    """
    if fmt.storage is not None:
        return values
    codes = fmt.encode(values)
    return pack(functional.pad(codes, (0, -codes.shape[-1] % _WHOLE_BYTES)), fmt.bits)


def unpack_values(codes: Tensor, fmt: Format, columns: int) -> Tensor:
    """The inverse of :func:`pack_values`, of ``columns`` values a row."""
    return codes if fmt.storage is not None else _widen(codes, fmt)[:, :columns]
