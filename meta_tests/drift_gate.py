"""How often the gate of drift alarms falsely, and how often it sees a factor: ``python -m meta_tests.drift_gate``.

Texts of the shipped baseline's records are drawn with replacement.  Two right executions of a scheme are its simulated
and its real one, which round differently at every product; a fault multiplies the drift of the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from quantsuite.margins import Margins
from quantsuite.metrics import Divergences, metric
from quantsuite.reading import read_run
from quantsuite.records import Record
from quantsuite.statistics import compare
from quantsuite.tiny import embedded_baseline

FACTORS = (1.0, 1.2, 1.4, 2.0, 0.0)
SIZES = (30, 60, 240)
DRAWS = 500


def baseline() -> dict[str, Record]:
    """The drift of the embedded model's shipped baseline, by scheme and execution."""
    path = embedded_baseline("tiny")
    assert path is not None
    records = read_run(path).records
    return {record.subject.label: record for record in records if record.task.name == "world/drift"}


def drawn(items: Divergences, texts: Sequence[int], factor: float) -> Divergences:
    """Some of the texts, with a drift that is multiplied."""
    assert items.tokens is not None
    return Divergences(
        kl=[factor * items.kl[text] for text in texts],
        same_top=[items.same_top[text] for text in texts],
        delta_p=[items.delta_p[text] for text in texts],
        tokens=[items.tokens[text] for text in texts],
    )


def alarms(records: dict[str, Record], scheme: str, texts: int, factor: float, draws: int = DRAWS) -> float:
    """The share of draws in which the real execution is other than the simulated one."""
    simulated, real = (records[f"{scheme}-{execution}"].items for execution in ("simulated", "real"))
    floor, draw, found = records["bf16"].value, np.random.default_rng(0), 0
    for _ in range(draws):
        chosen = draw.integers(len(simulated), size=texts).tolist()
        pair = drawn(simulated, chosen, 1.0), drawn(real, chosen, factor)
        found += compare(metric("divergence"), *pair, Margins(), floor=floor).verdict == "other"
    return found / draws


def main() -> None:
    records = baseline()
    schemes = list(dict.fromkeys(record.subject.scheme for record in records.values() if record.subject.execution))
    print("per cent other, of all schemes together; largest of one scheme")
    print(f"{'texts':>8}", *(f"times {factor:g}".rjust(14) for factor in FACTORS))
    for texts in SIZES:
        shares = [[alarms(records, scheme, texts, factor) for scheme in schemes] for factor in FACTORS]
        print(
            f"{texts:>8}",
            *(f"{100 * math.fsum(each) / len(each):.1f}; {100 * max(each):.1f}".rjust(14) for each in shares),
        )


if __name__ == "__main__":
    main()
