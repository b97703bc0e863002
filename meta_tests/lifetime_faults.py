"""Deliberate faults of layouts, lifetimes and time: right for fresh contiguous tensors in a call of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from meta_tests.mutants import DequantizedProduct, PlainProduct, PlainQuantizer, exact_sums
from quantsuite.scheme import Operand, Scheme

W8A8 = "int8-row:int8-token"


def ignore_row_stride(x: Tensor) -> Tensor:
    """Reads as if rows followed each other, where the last stride is one, as a pointer and a shape say."""
    if x.ndim == 2 and x.stride(-1) == 1 and x.stride(0) != x.shape[1]:
        return x.as_strided(x.shape, (x.shape[1], 1))
    return x


def ignore_offset(x: Tensor) -> Tensor:
    """Reads from the beginning of the storage."""
    return x.as_strided(x.shape, x.stride(), 0) if x.storage_offset() else x


def amax_of_storage(x: Tensor) -> Tensor:
    """A NaN around the tensor gets in, as by a load without a mask."""
    around = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
    return x + 0 * around.abs().amax() if around.numel() != x.numel() else x


def clear_the_padding(x: Tensor) -> Tensor:
    """Sets what lies between the rows of a wider matrix to zero."""
    if x.ndim == 2 and x.stride(-1) == 1 and x.stride(0) > x.shape[1]:
        whole = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
        whole[x.storage_offset() + x.shape[1]] = 0
    return x


def as_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy())


def viewed(x: Tensor) -> Tensor:
    return x.view(-1).view(x.shape)


@dataclass(frozen=True, kw_only=True)
class CachedProduct(PlainProduct):
    """Packs once for each key of a weight, and quantizes once for each key of activations."""

    weight_key: Any = None
    x_key: Any = None
    weights: dict[object, Any] = field(default_factory=dict)
    results: dict[object, Tensor] = field(default_factory=dict)

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        make = super().pack
        if self.weight_key is None:
            return make(weight, scheme)
        key = self.weight_key(weight), scheme
        if key not in self.weights:
            self.weights[key] = make(weight, scheme)
        return self.weights[key]

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        make = super().linear
        if self.x_key is None:
            return make(x, packed)
        key = self.x_key(x), id(packed)
        if key not in self.results:
            self.results[key] = make(x, packed)
        return self.results[key].clone()


@dataclass(frozen=True, kw_only=True)
class LazyProduct(PlainProduct):
    """Keeps the caller's weight, and quantizes it when it is first needed."""

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        return weight, scheme

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        return super().linear(x, super().pack(*packed))


@dataclass(frozen=True, kw_only=True)
class WorkspaceProduct(PlainProduct):
    """Returns its workspace, of which there is one for each shape."""

    workspaces: dict[object, Tensor] = field(default_factory=dict)

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        y = super().linear(x, packed)
        return self.workspaces.setdefault((y.shape, y.dtype), torch.empty_like(y)).copy_(y)


@dataclass(frozen=True, kw_only=True)
class LargestSoFar(PlainProduct):
    """Pads activations into a buffer that grows, and sums all of its rows' scales' maximum into the next call's."""

    buffer: list[Tensor] = field(default_factory=list)

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        y = super().linear(x, packed)
        flat = y.view(-1, y.shape[-1])
        if self.buffer and self.buffer[0].shape[0] > len(flat) and self.buffer[0].shape[1] == flat.shape[1]:
            flat[-1] += self.buffer[0][len(flat)].to(y.dtype)
        self.buffer[:] = [flat.clone()]
        return y


@dataclass(frozen=True, kw_only=True)
class SharedScales(PlainProduct):
    """Writes the scales of all weights of a shape to the same place."""

    scales: dict[object, Tensor] = field(default_factory=dict)

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        codes, scale, operand = super().pack(weight, scheme)
        return codes, self.scales.setdefault(scale.shape, torch.empty_like(scale)).copy_(scale), operand


@dataclass(frozen=True, kw_only=True)
class LastSize(PlainProduct):
    """Launches for one token what the call before had launched for 16."""

    last: list[int] = field(default_factory=lambda: [0])

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        y, before = super().linear(x, packed), self.last[0]
        self.last[0] = x.numel() // x.shape[-1]
        return 2 * y if (before, self.last[0]) == (16, 1) else y


@dataclass(frozen=True, kw_only=True)
class LastDtype(PlainProduct):
    """Keeps a workspace in the dtype of the call before."""

    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    last: list[torch.dtype] = field(default_factory=lambda: [torch.float32])

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        y, before = super().linear(x, packed), self.last[0]
        self.last[0] = x.dtype
        return y.to(before).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class LastDtypeQuantizer(PlainQuantizer):
    """Keeps a workspace in the dtype of the call before."""

    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    last: list[torch.dtype] = field(default_factory=lambda: [torch.float32])

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        before, self.last[0] = self.last[0], x.dtype
        return super().quantize(x, operand).to(before).float()


@dataclass(frozen=True, kw_only=True)
class WeightInPlace(PlainProduct):
    """Applies the scale to the codes at the first call, and takes it for applied in the next."""

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        codes, scale, _ = packed
        codes.mul_(scale)
        scale.fill_(1.0)
        return super().linear(x, packed)


def pad_without_clearing(x: Tensor) -> Tensor:
    """Pads rows to a multiple of 384; what is there is multiplied by the zeros of a padded weight."""
    padded = torch.empty(len(x), -(-x.shape[-1] // 384) * 384)
    padded[:, : x.shape[-1]] = x
    return x + (padded[:, x.shape[-1] :] * 0).sum(-1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class SplitProduct(DequantizedProduct):
    """Splits K among the threads of a call, of which there were others when the weight was packed."""

    def pack(self, weight: Tensor, scheme: Scheme) -> Any:
        return super().pack(weight, scheme), torch.get_num_threads()

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        values, threads = packed
        parts = zip(*(each.tensor_split(torch.get_num_threads(), dim=-1) for each in (x, values)), strict=True)
        return sum(super(SplitProduct, self).linear(*part) for part in list(parts)[:threads])


@dataclass(frozen=True, kw_only=True)
class ThreadedProduct(PlainProduct):
    """Drops the last column where torch has more threads than one, each of which takes an equal share."""

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        y = super().linear(x, packed)
        return y.index_fill(-1, torch.tensor([y.shape[-1] - 1]), 0) if torch.get_num_threads() > 1 else y


@dataclass(frozen=True, kw_only=True)
class MatrixProduct(PlainProduct):
    """Right for the first of several sequences; or only for some tokens."""

    first_batch: bool = False
    some_tokens: bool = False
    drops_one: bool = False

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        if self.some_tokens and x.numel() == 0:
            raise RuntimeError("invalid configuration argument: grid of 0")
        y = super().linear(x, packed)
        y = drop_batch_of_one(y) if self.drops_one else y
        return y.index_fill(0, torch.arange(1, len(y)), 0) if self.first_batch and x.ndim == 3 and len(y) > 1 else y


@dataclass(frozen=True, kw_only=True)
class CachedQuantizer(PlainQuantizer):
    """Quantizes once for each key of a tensor."""

    key: Any = None
    results: dict[object, Tensor] = field(default_factory=dict)
    copies: bool = True

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        key = self.key(x), operand
        if key not in self.results:
            self.results[key] = super().quantize(x, operand)
        return self.results[key].clone() if self.copies else self.results[key]


@dataclass(frozen=True, kw_only=True)
class WorkspaceQuantizer(PlainQuantizer):
    """Returns its workspace, of which there is one for each shape."""

    workspaces: dict[object, Tensor] = field(default_factory=dict)

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        y = super().quantize(x, operand)
        return self.workspaces.setdefault(y.shape, torch.empty_like(y)).copy_(y)


def lose_rows_of_more_threads(values: Tensor) -> Tensor:
    return values.index_fill(0, torch.tensor([len(values) - 1]), 0) if torch.get_num_threads() > 1 else values


def only_first_sequence(values: Tensor) -> Tensor:
    return values.index_fill(0, torch.arange(1, len(values)), 0) if values.ndim == 3 else values


def drop_batch_of_one(values: Tensor) -> Tensor:
    return values[0] if values.ndim == 3 and len(values) == 1 else values


def only_first_of_four_dimensions(values: Tensor) -> Tensor:
    return values.index_fill(0, torch.arange(1, len(values)), 0) if values.ndim == 4 else values


def lose_rows_of_one_thread(values: Tensor) -> Tensor:
    return values.index_fill(0, torch.tensor([0]), 0) if torch.get_num_threads() == 1 else values


def contents(x: Tensor) -> object:
    return tuple(x.flatten().tolist())


def lose_odd_tail(y: Tensor) -> Tensor:
    """Of tokens in pairs the last one, where the last tile of 16 has more than one."""
    lost = len(y) > 3 and len(y) % 2 == 1 and len(y) % 16 != 1
    return y.index_fill(0, torch.tensor([len(y) - 1]), 0) if lost else y


def lose_single_value(values: Tensor) -> Tensor:
    """The last row, where all others are zero: taken for padding."""
    zeros = values.ndim == 2 and len(values) > 2 and not values[:-1].any()
    return torch.zeros_like(values) if zeros else values


def lose_second_tile(x: Tensor, w: Tensor) -> Tensor:
    """Of outputs in tiles of 64 the second, where there are no more."""
    y = exact_sums(x, w)
    return y.index_fill(1, torch.arange(64, len(w)), 0) if 64 < len(w) <= 128 else y


def pointer(x: Tensor) -> object:
    return x.data_ptr(), x.shape


def shape(x: Tensor) -> object:
    return x.shape


LIFETIME_FAULTS: list[tuple[str, Any, str, str]] = [
    ("ignores the stride of rows", PlainProduct(before=ignore_row_stride), W8A8, "product_layouts"),
    ("reads from the beginning of the storage", PlainProduct(before=ignore_offset), W8A8, "product_layouts"),
    ("reads around a view", PlainProduct(before=amax_of_storage, refuses=False), "int8-row", "product_layouts"),
    ("writes between rows", PlainProduct(before=clear_the_padding), "int8-row", "product_layouts"),
    ("RuntimeError for views", PlainProduct(before=viewed), "int8-row", "product_layouts"),
    (
        "weight without its stride",
        DequantizedProduct(quantizer=PlainQuantizer(before=ignore_row_stride)),
        "int8-row",
        "product_weight_layouts",
    ),
    (
        "weight as numpy",
        DequantizedProduct(quantizer=PlainQuantizer(before=as_numpy)),
        "int8-row",
        "product_weight_layouts",
    ),
    ("only the first sequence", MatrixProduct(first_batch=True), W8A8, "product_batches"),
    ("no tokens are an error", MatrixProduct(some_tokens=True), W8A8, "product_batches"),
    ("drops a batch of one", MatrixProduct(drops_one=True), W8A8, "product_batches"),
    ("scale applied in place", WeightInPlace(), W8A8, "product_repeatable"),
    ("packed weights by pointer", CachedProduct(weight_key=pointer), W8A8, "product_packed_weights"),
    ("packed weights by shape", CachedProduct(weight_key=shape), "int8-row", "product_packed_weights"),
    ("keeps the caller's weight", LazyProduct(), W8A8, "product_packed_weights"),
    ("one place for scales", SharedScales(), W8A8, "product_packed_weights"),
    ("one token after 16", LastSize(), W8A8, "product_after_other_calls"),
    ("workspace of another dtype", LastDtype(), W8A8, "product_after_other_calls"),
    ("one place for scales", SharedScales(), "int8-row", "product_histories"),
    ("one token after 16", LastSize(), "int8-row", "product_histories"),
    ("results by pointer", CachedProduct(x_key=pointer), W8A8, "product_after_other_calls"),
    ("returns its workspace", WorkspaceProduct(), W8A8, "product_after_other_calls"),
    ("remembers a longer call", LargestSoFar(), W8A8, "product_after_other_calls"),
    ("padding not cleared", DequantizedProduct(before=pad_without_clearing), "int8-row", "product_under_load"),
    ("parts of K by threads", SplitProduct(), "int8-row", "product_under_load"),
    ("last column lost with several threads", ThreadedProduct(), W8A8, "product_under_load"),
    ("packs once for each shape", CachedProduct(weight_key=shape), "int8-row", "product_histories"),
    ("remembers results of a buffer", CachedProduct(x_key=pointer), W8A8, "product_histories"),
    ("returns its workspace", WorkspaceProduct(), W8A8, "product_histories"),
    ("the last odd token of a tile lost", PlainProduct(after=lose_odd_tail), W8A8, "drawn_products"),
    ("the second of two tiles lost", PlainProduct(sums=lose_second_tile), "int8-row", "drawn_products"),
    ("ignores the stride of rows", PlainQuantizer(before=ignore_row_stride), "int8-row", "layouts"),
    ("reads from the beginning of the storage", PlainQuantizer(before=ignore_offset), "int4-g32", "layouts"),
    ("writes between rows", PlainQuantizer(before=clear_the_padding), "int8-row", "layouts"),
    ("a parameter as numpy", PlainQuantizer(before=as_numpy), "int8-row", "layouts"),
    ("only the first sequence", PlainQuantizer(after=only_first_sequence), "int4-g32", "batches"),
    ("drops dimensions of one", PlainQuantizer(after=torch.squeeze), "int4-g32", "batches"),
    ("drops a batch of one", PlainQuantizer(after=drop_batch_of_one), "int4-g32", "batches"),
    ("four dimensions", PlainQuantizer(after=only_first_of_four_dimensions), "int4-g32", "batches"),
    ("workspace of another dtype", LastDtypeQuantizer(), "int8-row", "after_other_calls"),
    ("first row lost with one thread", PlainQuantizer(after=lose_rows_of_one_thread), "int8-row", "under_load"),
    ("results by pointer", CachedQuantizer(key=pointer), "int8-row", "after_other_calls"),
    ("returns its workspace", WorkspaceQuantizer(), "int8-row", "after_other_calls"),
    ("returns what it keeps", CachedQuantizer(key=contents, copies=False), "int8-row", "after_other_calls"),
    ("padding not cleared", PlainQuantizer(before=pad_without_clearing, refuses=False), "int8-row", "under_load"),
    ("last row lost with several threads", PlainQuantizer(after=lose_rows_of_more_threads), "int8-row", "under_load"),
    ("the last odd row lost", PlainQuantizer(after=lose_odd_tail), "int8-row", "drawn_tensors"),
    ("the last row lost where it stands alone", PlainQuantizer(after=lose_single_value), "int4-g32", "drawn_tensors"),
]
