"""A drift is that of the two models, however their engines cut and order their work."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import torch

from quantsuite.engine import Engine, Rows, ScoreRequest, ScoreResult
from quantsuite.engine.wants import answer, in_one_part
from quantsuite.evaluate import engines, streams
from quantsuite.evaluate.drift import drift, perplexities, token_drift
from quantsuite.evaluate.engines import Held, OneByOne
from quantsuite.evaluate.perplexity import score_text
from quantsuite.evaluate.windows import TextItem, Window

VOCABULARY = 500


@dataclass
class Table:
    """A bigram model in batches: rows of several requests at once, the longest request first."""

    seed: int
    name: str = "table"
    max_length: int | None = None
    calls: list[list[ScoreRequest]] = field(default_factory=list)

    def __post_init__(self) -> None:
        logits = 3 * torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(self.seed))
        self._rows = logits.log_softmax(-1)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        self.calls.append(list(requests))
        for index in sorted(range(len(requests)), key=lambda i: -len(requests[i].tokens)):
            request = requests[index]
            rows = self._rows[list(request.tokens[request.first - 1 : -1])]
            for begin in range(0, len(rows), 100):
                part = rows[begin : begin + 100]
                yield ScoreResult(request=index, first=request.first + begin, log_probs=part)


class Otherwise(Table):
    """The same model one sequence at a time, the last one first, in parts of seven positions."""

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        for index in reversed(range(len(requests))):
            for part in super().score([requests[index]]):
                for begin in range(0, len(part.log_probs), 7):
                    rows = part.log_probs[begin : begin + 7].clone()
                    yield ScoreResult(request=index, first=part.first + begin, log_probs=rows)


def items(lengths: Sequence[int] = (40, 250, 3, 7, 120, 250)) -> list[TextItem]:
    draw = random.Random(0)
    windows = [
        Window(tokens=tuple(draw.randrange(VOCABULARY) for _ in range(length)), first=draw.randint(1, length - 1))
        for length in lengths
    ]
    return [TextItem(windows=tuple(windows[:2]), units=1), *(TextItem(windows=(w,), units=1) for w in windows[2:])]


@pytest.mark.parametrize("slice_rows", [1, 6, 1000])
@pytest.mark.parametrize("group_rows", [1, 200, 10_000])
def test_divergences_do_not_depend_on_how_engines_cut_their_work(
    monkeypatch: pytest.MonkeyPatch, slice_rows: int, group_rows: int
) -> None:
    expected = drift(Table(1), Table(2), items())
    monkeypatch.setattr(streams, "SLICE_ELEMENTS", slice_rows * VOCABULARY)
    monkeypatch.setattr(streams, "GROUP_ELEMENTS", group_rows * VOCABULARY)
    for reference, engine in ((Otherwise(1), Table(2)), (Table(1), Otherwise(2)), (Otherwise(1), Otherwise(2))):
        assert drift(reference, engine, items()) == expected


def test_outcomes_stand_in_the_order_of_the_text() -> None:
    one_by_one = [drift(Table(1), Table(2), [item]) for item in items()]
    assert drift(Table(1), Table(2), items()).kl == [value for each in one_by_one for value in each.kl]


def test_a_text_sums_up_its_tokens() -> None:
    tokens, texts = token_drift(Table(1), Table(2), items()), drift(Table(1), Table(2), items())
    assert texts.tokens == [len(text) for text in tokens] == [item.targets for item in items()]
    assert texts.kl == [pytest.approx(sum(token.kl for token in text)) for text in tokens]
    assert texts.same_top == [sum(token.same_top for token in text) for text in tokens]
    assert texts.delta_p == [pytest.approx(sum(token.delta_p for token in text)) for text in tokens]
    assert texts.quantiles["max_kl"] == max(token.kl for text in tokens for token in text)


def test_likelihoods_of_the_same_pass_are_those_of_a_pass_of_their_own() -> None:
    found = perplexities(token_drift(Table(1), Answering(2), items()), Table(2), items())
    alone = score_text(Answering(2), items())
    assert found.nats == pytest.approx(alone.nats, rel=1e-12)
    assert (found.tokens, found.units, found.floor_nats) == (alone.tokens, alone.units, alone.floor_nats)


class Answering(Table):
    """The model, which answers what each request wants."""

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        parts = (answer(r.request, requests[r.request], r.first, r.log_probs) for r in super().score(requests))
        yield from in_one_part(parts, requests)


def test_rows_that_were_given_once_are_given_again_without_the_engine() -> None:
    engine = Table(1)
    held = Held(engine)
    first, calls = drift(held, Table(2), items()), len(engine.calls)
    assert drift(held, Table(2), items()) == first and len(engine.calls) == calls


def test_no_more_rows_are_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "HELD_ELEMENTS", 200 * VOCABULARY)
    engine = Table(1)
    held = Held(engine)
    for _ in range(2):
        drift(held, Table(2), items())
    assert [len(call) for call in engine.calls] == [1, 6, 6]
    assert held._elements <= 200 * VOCABULARY


def test_the_same_model_one_by_one_is_asked_every_request_in_another_order() -> None:
    engine = Table(1)
    assert not any(drift(Table(1), OneByOne(engine), items()).kl)
    windows = [window.tokens for item in items() for window in item.windows]
    asked = [request.tokens for call in engine.calls[1:] for request in call]
    assert asked == windows[::-1] and {len(call) for call in engine.calls} == {1}


def test_engines_are_given_no_more_at_once_than_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is larger than the limit stands alone."""
    monkeypatch.setattr(streams, "GROUP_ELEMENTS", 60 * VOCABULARY)
    engines = Table(1), Table(2)
    drift(*engines, items((30, 40, 10, 90, 5, 5, 5)))
    for engine in engines:
        probe, *calls = engine.calls
        assert [len(request.tokens) for request in probe] == [2]
        assert len(calls[-1]) > 1
        assert all(len(call) == 1 or sum(request.positions for request in call) <= 60 for call in calls)


def test_an_engine_in_step_with_its_like_is_held_no_further_than_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    advance = streams._Stream.advance

    def watch(stream: streams._Stream) -> int | None:
        number = advance(stream)
        held.append(sum(map(stream.holds, stream._held)))
        return number

    monkeypatch.setattr(streams._Stream, "advance", watch)
    monkeypatch.setattr(streams, "SLICE_ELEMENTS", VOCABULARY)
    drift(Table(1), Table(2), items())
    assert max(held) == 100


def test_progress_counts_windows() -> None:
    done: list[int] = []
    drift(Table(1), Otherwise(2), items(), progress=done.append)
    assert done == [1, 2, 3, 4, 5, 6]


def altered(change: Callable[[list[ScoreResult]], list[ScoreResult]]) -> Engine:
    """An engine whose results of a whole call are changed."""

    class Altered(Table):
        def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
            results = list(super().score(requests))
            return iter(change(results) if len(requests) > 1 else results)

    return Altered(2, name="faulty")


def without_last(results: list[ScoreResult]) -> list[ScoreResult]:
    return results[:-1]


def without_first_row(results: list[ScoreResult]) -> list[ScoreResult]:
    first = results[0]
    return [dataclasses.replace(first, first=first.first + 1, log_probs=first.log_probs[1:]), *results[1:]]


def first_twice(results: list[ScoreResult]) -> list[ScoreResult]:
    return [results[0], *results]


def beyond_the_end(results: list[ScoreResult]) -> list[ScoreResult]:
    last = results[-1]
    rows = torch.cat([last.log_probs, last.log_probs[:1]])
    return [*results[:-1], dataclasses.replace(last, log_probs=rows)]


def misnumbered(results: list[ScoreResult]) -> list[ScoreResult]:
    return [dataclasses.replace(result, request=result.request + 1) for result in results]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (misnumbered, "answers request 2 of 2"),
        (without_last, "leaves out position 2 of request 0"),
        (without_first_row, "leaves out position 2 of request 1"),
        (first_twice, "repeats position 2 of request 1"),
        (beyond_the_end, "adds position 4 of request 0"),
    ],
)
@pytest.mark.parametrize("as_reference", [False, True])
def test_an_engine_that_does_not_score_each_position_once_is_named(
    change: Callable[[list[ScoreResult]], list[ScoreResult]], message: str, as_reference: bool
) -> None:
    windows = [Window(tokens=tuple(range(length)), first=2) for length in (4, 9)]
    engines = (altered(change), Table(1)) if as_reference else (Table(1), altered(change))
    with pytest.raises(ValueError, match=f"the engine faulty {message}"):
        drift(*engines, [TextItem(windows=tuple(windows), units=1)])


def test_models_of_two_vocabularies_have_no_drift() -> None:
    other = Table(2, name="narrow")
    other._rows = other._rows[:, :400]
    with pytest.raises(ValueError, match=r"narrow predicts 400 tokens, table 500"):
        drift(Table(1), other, items())


def test_rows_are_asked_of_each_position_once() -> None:
    engine = Table(2)
    drift(Table(1), engine, items())
    asked = [(request.tokens, request.first) for call in engine.calls[1:] for request in call]
    assert asked == [(window.tokens, window.first) for item in items() for window in item.windows]
    assert {type(request.want) for call in engine.calls for request in call} == {Rows}
