"""Layers in place: the share of a model's matrices that are quantized, and multiply, as their plan says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from quantsuite.metrics.checks import check_lengths, check_range
from quantsuite.metrics.definition import InWords, Metric
from quantsuite.metrics.estimators import Census
from quantsuite.metrics.scale import percentage


class Layers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="layers"):
    """What was found of each matrix of a model.

    ``factors`` are largest errors over their bounds; ``bits`` of a weight in memory; ``kernels`` those that multiplied,
    empty without one; ``faults`` what was found wrong, empty where nothing was.

    Raises:
        ValueError: if the lists are empty or differ in length, or a number is not finite or below zero.
    """

    names: list[str]
    factors: list[float]
    bits: list[float]
    kernels: list[str]
    faults: list[str]

    def __post_init__(self) -> None:
        check_lengths(names=self.names, factors=self.factors, bits=self.bits, kernels=self.kernels, faults=self.faults)
        check_range("factors", self.factors, low=0)
        check_range("bits", self.bits, low=0)

    def __len__(self) -> int:
        return len(self.names)


def details(items: Layers, given: Mapping[str, float]) -> dict[str, float]:
    return {"matrices": float(len(items)), "largest_factor": max(items.factors)}


def in_words(items: Layers) -> InWords:
    faults = tuple(f"{name}: {fault}" for name, fault in zip(items.names, items.faults, strict=True) if fault)
    low, high = (f"{bits:.3g}" for bits in (min(items.bits), max(items.bits)))
    kernels = Counter(items.kernels)
    shown = [f"{name} in {count}" if len(kernels) > 1 else name for name, count in kernels.most_common() if name]
    parts = [f"error {max(items.factors):.2f} of bound", f"{low} bits" if low == high else f"{low} to {high} bits"]
    value = f"{len(items) - len(faults)} of {len(items)}"
    return InWords(value=value, remark=", ".join(parts + shown), faults=faults)


# Whatever is wrong fails the cell itself: two of its values are not compared.
LAYERS = Metric(
    name="layers in place",
    items=Layers,
    outcomes=lambda items: [not fault for fault in items.faults],
    estimator=Census(),
    unit="layers as planned",
    better="higher",
    noun="matrices",
    scale=percentage("layers as planned"),
    details=details,
    detail_names={"largest_factor": "largest error over its bound"},
    in_words=in_words,
    counts_dataset=False,
)
