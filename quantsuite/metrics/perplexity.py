"""Perplexity: of a token, over windows or documents, and of a word."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from quantsuite.metrics.checks import ROUNDING, check_lengths, check_range
from quantsuite.metrics.definition import Margin, Metric
from quantsuite.metrics.estimators import ExponentialOfMean, exponential
from quantsuite.metrics.scale import Scale


class Perplexities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="perplexity"):
    """Outcomes of windows or documents: the negative log-likelihood of each, in nats.

    ``units`` is what the mean is over: targets (tokens), words or bytes of each item.
    ``floor_nats``, where the text's entropy is known, is the information of each item.

    Raises:
        ValueError: if the lists differ in length, a number is not finite or below zero, or there are no units.
    """

    nats: list[float]
    tokens: list[int]
    units: list[int]
    floor_nats: list[float] | None = None

    def __post_init__(self) -> None:
        check_lengths(nats=self.nats, tokens=self.tokens, units=self.units, floor_nats=self.floor_nats)
        for name, counts in (("tokens", self.tokens), ("units", self.units)):
            check_range(name, counts, low=0)
            if sum(counts) == 0:
                raise ValueError(f"{name} sum to 0; a mean over nothing is undefined")
        check_range("nats", self.nats, low=-ROUNDING * max(self.tokens))
        if self.floor_nats is not None:
            check_range("floor_nats", self.floor_nats, low=0)

    def __len__(self) -> int:
        return len(self.nats)


def details(items: Perplexities, given: Mapping[str, float]) -> dict[str, float]:
    """Further numbers; those of a byte if ``given`` has the text's ``bytes``, or ``bits_per_byte``, which tell them.

    Raises:
        ValueError: if the bytes are not above 0, or a perplexity is larger than any float64.
    """
    found = {"tokens": float(sum(items.tokens)), "items": float(len(items))}
    size, bits = given.get("bytes"), given.get("bits_per_byte")
    if size is None and bits is not None:
        size = round(sum(items.nats) / math.log(2) / bits) if bits else 1
    if size is None:
        return found
    if size <= 0:
        raise ValueError(f"a text of {size} bytes has no bits per byte; it takes 1 or more")
    found["bytes"] = float(size)
    found["bits_per_byte"] = sum(items.nats) / size / math.log(2)
    found["byte_perplexity"] = exponential(sum(items.nats) / size)
    if items.floor_nats is not None:
        found["floor_bits_per_byte"] = sum(items.floor_nats) / size / math.log(2)
    return found


PERPLEXITY = Metric(
    name="perplexity",
    items=Perplexities,
    outcomes=lambda items: items.nats,
    units=lambda items: items.units,
    estimator=ExponentialOfMean(),
    unit="perplexity",
    better="lower",
    noun="windows",
    margin=Margin(default=0.01, option="perplexity"),
    scale=Scale(decimals=3, change_decimals=5, change_unit="ln PPL"),
    details=details,
    detail_names={
        "bits_per_byte": "bits per byte",
        "floor_bits_per_byte": "floor, bits per byte",
        "byte_perplexity": "byte perplexity",
    },
)
DOCUMENT_PERPLEXITY = replace(PERPLEXITY, name="document perplexity", noun="documents")
WORD_PERPLEXITY = replace(DOCUMENT_PERPLEXITY, name="word perplexity", unit="word perplexity")
