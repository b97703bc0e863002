"""Synthetic records with known effects, for tests of what reads records."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import msgspec

from quantsuite.metrics import Choices, Divergences, Items, Layers, Perplexities, metric
from quantsuite.records import (
    Dataset,
    Environment,
    Outcome,
    Record,
    Subject,
    TaskLabel,
)

PERPLEXITY = TaskLabel(name="world/document", version=1, metric="document perplexity")
DIRECT = TaskLabel(name="world-mmlu/direct", version=1, metric="accuracy")
GENERATE = TaskLabel(name="world-mmlu/generate", version=1, metric="accuracy")
DRIFT = TaskLabel(name="world/drift", version=1, metric="divergence")
LAYERS = TaskLabel(name="layers/in-place", version=1, metric="layers in place")
GRANULARITIES = ("tensor", "row", "g512", "g256", "g128", "g64")
GROUPS = ("botany", "geography", "history", "optics")


def environment(device: str = "cpu") -> Environment:
    versions = {"python": "3.11.2", "torch": "2.13.0+cpu", "transformers": "5.0.0"}
    return Environment(device=device, dtype="bf16", versions=versions, hardware="x86_64, AVX512", threads=2)


def dataset(items: int, name: str = "world", seed: int = 42) -> Dataset:
    return Dataset(name=name, sha256=f"{items:064x}", items=items, limit=items, seed=seed)


def record(
    task: TaskLabel,
    scheme: str = "bf16",
    execution: str | None = None,
    *,
    items: Items | None = None,
    outcome: Outcome = "passed",
    reason: str | None = None,
    model: str = "tiny",
    device: str = "cpu",
    details: dict[str, float] | None = None,
    weight_bytes: int | None = 4_000_000,
) -> Record:
    """A record of a cell, without value and details if it has no items."""
    label = scheme if execution is None else f"{scheme}-{execution}"
    blank = Record(
        test=f"tests_accuracy/test_tasks.py::test_accuracy[{model}-{task.name}-{label}]",
        outcome=outcome if items is None else "skipped",
        task=task,
        subject=Subject(
            model=model,
            model_sha256="ab" * 32,
            engine="transformers",
            scheme=scheme,
            execution=execution,
        ),
        environment=environment(device),
        reason=reason,
        seconds=0.0 if items is None else 1.5,
        weight_bytes=None if items is None else weight_bytes,
        created="2026-01-02T03:04:05+00:00",
    )
    if items is None:
        return msgspec.structs.replace(blank, details=details or {})
    return msgspec.structs.replace(
        blank,
        outcome=outcome,
        dataset=dataset(len(items)),
        value=blank.metric.value(items),
        details=details or blank.metric.details(items, {}),
        items=items,
    )


def details_of(items: Perplexities, size: int) -> dict[str, float]:
    """Of a text of so many bytes."""
    return metric("perplexity").details(items, {"bytes": size})


def choices(count: int, accuracy: float, *, seed: int = 0) -> Choices:
    """Questions of which a fixed number, ``accuracy`` of them, is answered right."""
    draw = random.Random(seed)
    right = set(draw.sample(range(count), round(accuracy * count)))
    answer = [draw.randrange(4) for _ in range(count)]
    predicted = [a if index in right else (a + 1) % 4 for index, a in enumerate(answer)]
    return Choices(group=[GROUPS[index % len(GROUPS)] for index in range(count)], answer=answer, predicted=predicted)


def changed_choices(reference: Choices, *, lost: int, gained: int, seed: int = 0) -> Choices:
    """The reference's answers with some right ones made wrong and some wrong ones made right."""
    draw = random.Random(seed)
    correct = reference.correct
    flipped = draw.sample([i for i, right in enumerate(correct) if right], lost)
    flipped += draw.sample([i for i, right in enumerate(correct) if not right], gained)
    predicted = list(reference.predicted)
    for index in flipped:
        answer = reference.answer[index]
        predicted[index] = (answer + 2) % 4 if correct[index] else answer
    return Choices(group=reference.group, answer=reference.answer, predicted=predicted)


def perplexities(count: int, *, mean_nats: float = 0.5, seed: int = 0) -> Perplexities:
    """Documents of different lengths with a nat count near ``mean_nats`` a token and a floor below it."""
    draw = random.Random(seed)
    tokens = [draw.randrange(40, 200) for _ in range(count)]
    nats = [size * draw.gauss(mean_nats, 0.05) for size in tokens]
    return Perplexities(nats=nats, tokens=tokens, units=tokens, floor_nats=[0.95 * value for value in nats])


def autoregressive(count: int, correlation: float, seed: int) -> list[float]:
    """Standard normal values, each correlated with the one before it."""
    draw = random.Random(seed)
    values = [draw.gauss(0, 1)]
    while len(values) < count:
        values.append(correlation * values[-1] + math.sqrt(1 - correlation**2) * draw.gauss(0, 1))
    return values


def changed_perplexities(
    reference: Perplexities, *, change: float, noise: float = 0.005, correlation: float = 0.0, seed: int = 0
) -> Perplexities:
    """The reference's documents with ``change`` nats a token added, and noise with deviation ``noise``.

    ``correlation`` is that of the noise of neighbouring documents.
    """
    changes = [change + noise * value for value in autoregressive(len(reference), correlation, seed)]
    nats = [n + size * added for n, size, added in zip(reference.nats, reference.tokens, changes, strict=True)]
    return Perplexities(nats=nats, tokens=reference.tokens, units=reference.units, floor_nats=reference.floor_nats)


def divergences(count: int, mean: float = 0.001, *, seed: int = 0) -> Divergences:
    draw = random.Random(seed)
    return Divergences(
        kl=[draw.expovariate(1 / mean) for _ in range(count)],
        same_top=[draw.random() < 0.99 for _ in range(count)],
        delta_p=[draw.gauss(0, 0.01) for _ in range(count)],
    )


def variants(executions: Sequence[str] = ("simulated", "real")) -> list[tuple[str, str]]:
    """The catalogue's weight-only schemes in each execution."""
    return [
        (f"{form}-{granularity}", execution)
        for form in ("int8", "fp8")
        for granularity in GRANULARITIES
        for execution in executions
    ]


def matrix(model: str = "tiny", *, texts: int = 200, questions: int = 1000, damage: float = 1.0) -> list[Record]:
    """bf16 and 24 variants of three metrics, where coarse granularities lose ``damage`` times a small amount."""
    text, direct, generate = perplexities(texts), choices(questions, 0.82), choices(questions, 0.79, seed=1)
    text_bytes = round(1.75 * sum(text.tokens))
    records = [
        record(PERPLEXITY, model=model, items=text, details=details_of(text, text_bytes)),
        record(DIRECT, model=model, items=direct),
        record(GENERATE, model=model, items=generate),
    ]
    for index, (scheme, execution) in enumerate(variants()):
        form, granularity = scheme.split("-")
        step = len(GRANULARITIES) - GRANULARITIES.index(granularity) - 1
        loss = damage * step**2 * (0.0016 if form == "int8" else 0.0006)
        size = 4_000_000 if execution == "simulated" else 2_000_000 + 4_000 * 2 ** (5 - step)
        changed = changed_perplexities(text, change=loss, seed=index)
        lost = 8 + round(500 * loss)
        records += [
            record(
                PERPLEXITY,
                scheme,
                execution,
                model=model,
                items=changed,
                details=details_of(changed, text_bytes),
                weight_bytes=size,
            ),
            record(
                DIRECT,
                scheme,
                execution,
                model=model,
                items=changed_choices(direct, lost=lost, gained=8, seed=index),
                weight_bytes=size,
            ),
            record(
                GENERATE,
                scheme,
                execution,
                model=model,
                items=changed_choices(generate, lost=lost, gained=7, seed=index),
                weight_bytes=size,
            ),
        ]
    return records


def layers(faults: dict[int, str], count: int = 8) -> Record:
    """Of a real scheme of which some matrices are wrong, by number; the last is multiplied by another kernel."""
    items = Layers(
        names=[f"layers.{index}.up_proj" for index in range(count)],
        factors=[0.25 + index / 100 for index in range(count)],
        bits=[8.0] * (count - 1) + [8.25],
        kernels=["ours-codes"] * (count - 1) + ["ours-int32"],
        faults=[faults.get(index, "") for index in range(count)],
    )
    reason = f"{len(faults)} of {count} layers: layers.{min(faults)}.up_proj: {faults[min(faults)]}" if faults else None
    return record(LAYERS, "int8-row", "real", items=items, outcome="failed" if faults else "passed", reason=reason)
