"""Outcomes item by item, and the numbers that derive from them: every value of a record is computed here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

UNPARSED = -1
"""Predicted, where an answer could not be read."""
LETTERED_CHOICES = 4
ROUNDING = 1e-6
"""By which float32 log-probabilities, and what is computed from them, may pass their limits: several ulp of 1."""


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
        _check_lengths(nats=self.nats, tokens=self.tokens, units=self.units, floor_nats=self.floor_nats)
        for name, counts in (("tokens", self.tokens), ("units", self.units)):
            _check_range(name, counts, low=0)
            if sum(counts) == 0:
                raise ValueError(f"{name} sum to 0; a mean over nothing is undefined")
        _check_range("nats", self.nats, low=-ROUNDING * max(self.tokens))
        if self.floor_nats is not None:
            _check_range("floor_nats", self.floor_nats, low=0)

    def __len__(self) -> int:
        return len(self.nats)

    @property
    def value(self) -> float:
        """The perplexity of a unit.

        Raises:
            ValueError: if it is larger than any float64.
        """
        return _exp(sum(self.nats) / sum(self.units))

    def details(self, size: float | None = None) -> dict[str, float]:
        """Further numbers; ``size`` is that of the text in bytes, where it is known.

        Raises:
            ValueError: if ``size`` is not above 0, or a perplexity is larger than any float64.
        """
        found = {"tokens": float(sum(self.tokens)), "items": float(len(self))}
        if size is None:
            return found
        if size <= 0:
            raise ValueError(f"a text of {size} bytes has no bits per byte; it takes 1 or more")
        found["bytes"] = float(size)
        found["bits_per_byte"] = sum(self.nats) / size / math.log(2)
        found["byte_perplexity"] = _exp(sum(self.nats) / size)
        if self.floor_nats is not None:
            found["floor_bits_per_byte"] = sum(self.floor_nats) / size / math.log(2)
        return found

    def details_as(self, given: Mapping[str, float]) -> dict[str, float]:
        """The details computed anew; where ``given`` lacks the text's bytes, its bits per byte tell them."""
        size, bits = given.get("bytes"), given.get("bits_per_byte")
        if size is None and bits is not None:
            size = round(sum(self.nats) / math.log(2) / bits) if bits else 1
        return self.details(size)


class Choices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="choices"):
    """Outcomes of multiple-choice questions; ``-1`` predicted is an answer that could not be read.

    Raises:
        ValueError: if the lists are empty or differ in length, or an answer is none of the choices, which are as
            many as a question has log-likelihoods, or four.
    """

    group: list[str]
    answer: list[int]
    predicted: list[int]
    log_likelihoods: list[list[float]] | None = None

    def __post_init__(self) -> None:
        _check_lengths(
            answer=self.answer, group=self.group, predicted=self.predicted, log_likelihoods=self.log_likelihoods
        )
        choices = LETTERED_CHOICES
        if self.log_likelihoods is not None:
            choices = len(self.log_likelihoods[0])
            if {*map(len, self.log_likelihoods)} != {choices} or choices < 2:
                raise ValueError("log_likelihoods have not the same number of choices, two or more, for all questions")
            for row in self.log_likelihoods:
                _check_range("log_likelihoods", row, high=ROUNDING)
        _check_range("answer", self.answer, low=0, high=choices - 1)
        _check_range("predicted", self.predicted, low=UNPARSED, high=choices - 1)
        for row, predicted in zip(self.log_likelihoods or (), self.predicted, strict=False):
            if predicted != row.index(max(row)):
                raise ValueError(f"predicted holds {predicted} where the likelihoods {row} are largest elsewhere")

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def correct(self) -> list[bool]:
        return [a == p for a, p in zip(self.answer, self.predicted, strict=True)]

    @property
    def ties(self) -> int:
        """Questions whose largest log-likelihood two or more letters share."""
        return sum(row.count(max(row)) > 1 for row in self.log_likelihoods or ())

    @property
    def value(self) -> float:
        """The share of questions that were answered right."""
        return sum(self.correct) / len(self)

    def details(self) -> dict[str, float]:
        return {"unparsed": float(self.predicted.count(UNPARSED)), "ties": float(self.ties)}

    def details_as(self, given: Mapping[str, float]) -> dict[str, float]:
        return self.details()


class Divergences(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="divergence"):
    """Drift from the reference, token by token: KL in nats, change of the true token's probability.

    Raises:
        ValueError: if the lists are empty or differ in length, a divergence is below zero or not finite, or a
            change of a probability is beyond 1.
    """

    kl: list[float]
    same_top: list[bool]
    delta_p: list[float]

    def __post_init__(self) -> None:
        _check_lengths(kl=self.kl, same_top=self.same_top, delta_p=self.delta_p)
        _check_range("kl", self.kl, low=-ROUNDING)
        _check_range("delta_p", self.delta_p, low=-1 - ROUNDING, high=1 + ROUNDING)

    def __len__(self) -> int:
        return len(self.kl)

    @property
    def value(self) -> float:
        """The mean divergence of a token."""
        return sum(self.kl) / len(self)

    def details(self) -> dict[str, float]:
        ordered = sorted(self.kl)
        return {
            "median_kl": ordered[len(ordered) // 2],
            "p99_kl": ordered[int(0.99 * (len(ordered) - 1))],
            "max_kl": ordered[-1],
            "same_top_rate": sum(self.same_top) / len(self),
            "mean_delta_p": sum(self.delta_p) / len(self),
        }

    def details_as(self, given: Mapping[str, float]) -> dict[str, float]:
        return self.details()


Items = Perplexities | Choices | Divergences


def check_finite(name: str, numbers: Sequence[float]) -> None:
    """Refuse what JSON has no number for.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    for number in numbers:
        if not math.isfinite(number):
            raise ValueError(f"{name} holds {number}, which is no finite number")


def disagreement(items: Items, value: float, details: Mapping[str, float]) -> tuple[str, float, float] | None:
    """The first number that its items do not give: its name, the number, and what the items give.

    A sum of n terms carries up to n roundings of 2**-53 (Python 3.12 adds with compensation, 3.11 without), and
    the platform's exp and log one or two ulp.  The exponential of such a sum carries them times the exponent.  A mean
    of both signs carries them relative to its terms, which are changes of probabilities, at most 1.

    Raises:
        ValueError: if the items give no value or details.
        ArithmeticError: if the details are of no text that there is.
    """
    roundings = (len(items) + 8) * 2**-52
    expected = {"value": items.value, **items.details_as(details)}
    for name, given in {"value": value, **details}.items():
        if name not in expected:
            raise ValueError(f"no recipe gives a detail {name!r}")
        found = expected[name]
        relative = roundings * max(1.0, abs(math.log(abs(found)))) if found else 0.0
        absolute = roundings if name == "mean_delta_p" else 0.0
        if not math.isclose(given, found, rel_tol=relative, abs_tol=absolute):
            return name, given, found
    return None


def _exp(mean_nats: float) -> float:
    try:
        return math.exp(mean_nats)
    except OverflowError:
        raise ValueError(f"a mean of {mean_nats:.6g} nats has no perplexity in float64, the largest is 709") from None


def _check_lengths(**lists: Sequence[object] | None) -> None:
    """All lists are as long as the first, and not empty."""
    lengths = {name: len(values) for name, values in lists.items() if values is not None}
    (first, expected), *others = lengths.items()
    if expected == 0:
        raise ValueError(f"{first} is empty; a mean over nothing is undefined")
    for name, length in others:
        if length != expected:
            raise ValueError(f"{name} has {length:,} items, {first} has {expected:,}")


def _check_range(name: str, numbers: Sequence[float], *, low: float | None = None, high: float | None = None) -> None:
    if not math.isfinite(sum(numbers)):
        check_finite(name, numbers)
        raise ValueError(f"{name} sum to more than any float64")
    if low is not None and min(numbers) < low:
        raise ValueError(f"{name} holds {min(numbers)}, less than {low:g}")
    if high is not None and max(numbers) > high:
        raise ValueError(f"{name} holds {max(numbers)}, more than {high:g}")
