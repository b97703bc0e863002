"""What a request wants is a part of the whole distributions, however the engine cuts its work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from meta_tests.checkpoints import PLAIN, VOCABULARY, build_model
from meta_tests.test_engine import continued, greedy, uneven
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.engine import Candidates, GenerateRequest, Rows, ScoreRequest, ScoreResult, Targets, TopK, Want
from quantsuite.tiny import embedded_folder

WANTS = (Targets(), Candidates((7, 3, 2000)), TopK(5), Candidates((1,)), Targets(), TopK(VOCABULARY))
FIRST = (21, 30, 1, 22, 52, 21)


def requests(*wants: Want) -> list[ScoreRequest]:
    """Six sequences that share twenty tokens."""
    return [
        ScoreRequest(tokens=tuple(tokens), first=first, want=want)
        for tokens, first, want in zip(uneven(shared=20), FIRST, wants, strict=True)
    ]


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine(build_model(PLAIN["llama-untied"]), batch_tokens=70)


@pytest.fixture(params=[1, 3 * VOCABULARY, 2**24])
def results(engine: TransformersEngine, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list:
    """Of each request its result and the whole distributions that it is of."""
    monkeypatch.setattr("quantsuite.adapters.transformers.LOGIT_ELEMENTS", request.param)
    whole: list[list[torch.Tensor]] = [[] for _ in FIRST]
    for part in engine.score(requests(*[Rows()] * 6)):
        whole[part.request].append(part.log_probs)
    found = sorted(engine.score(requests(*WANTS)), key=lambda result: result.request)
    return [(result, torch.cat(rows)) for result, rows in zip(found, whole, strict=True)]


Pairs = list[tuple[ScoreResult, torch.Tensor]]


def test_each_request_is_answered_in_one_result_from_its_first_position(results: Pairs) -> None:
    assert [(result.request, result.first) for result, _ in results] == list(enumerate(FIRST))


def test_targets_are_the_log_probabilities_of_the_scored_tokens(results: Pairs) -> None:
    for number in (0, 4):
        result, rows = results[number]
        targets = uneven(shared=20)[number][FIRST[number] :]
        assert result.log_probs.tolist() == [row[token].item() for row, token in zip(rows, targets, strict=True)]


def test_candidates_stand_in_the_order_that_they_are_asked_in(results: Pairs) -> None:
    assert torch.equal(results[1][0].log_probs, results[1][1][:, [7, 3, 2000]])
    assert torch.equal(results[3][0].log_probs, results[3][1][:, [1]])


def test_top_tokens_are_the_likeliest_in_order(results: Pairs) -> None:
    result, rows = results[2]
    assert torch.equal(result.log_probs, rows.sort(descending=True).values[:, :5])
    assert torch.equal(result.log_probs, rows.gather(1, result.tokens))


def test_the_rest_is_the_mass_of_all_other_tokens(results: Pairs) -> None:
    result, rows = results[2]
    others = rows.double().exp().sort(descending=True).values[:, 5:].sum(-1)
    assert torch.allclose(result.rest.double(), others, rtol=1e-5)
    assert not results[5][0].rest.any()


def test_two_requests_of_one_sequence_are_both_answered(engine: TransformersEngine) -> None:
    asked = requests(*WANTS)[0]
    pair = [asked, dataclasses.replace(asked, want=Candidates(asked.tokens[-1:]))]
    found = {result.request: result.log_probs for result in engine.score(pair)}
    assert found[0][-1] == found[1][-1, 0]


def test_no_requests_are_answered_with_nothing(engine: TransformersEngine) -> None:
    assert list(engine.score([])) == engine.generate([]) == []


@pytest.mark.parametrize(
    ("request_of", "message"),
    [
        (lambda: ScoreRequest(tokens=(1, 2), first=0), "from position 0"),
        (lambda: ScoreRequest(tokens=(1, 2), first=2), "of 2 tokens none can be scored from position 2"),
        (lambda: ScoreRequest(tokens=(1, -2), first=1), "token -2"),
        (lambda: Candidates(()), r"candidates \(\)"),
        (lambda: TopK(0), "the 0 likeliest"),
        (lambda: GenerateRequest(tokens=(), max_new_tokens=1), "no token ids"),
        (lambda: GenerateRequest(tokens=(1,), max_new_tokens=0), "0 new tokens"),
        (lambda: GenerateRequest(tokens=(1,), max_new_tokens=1, stop_strings=("\n", "")), "empty stop string"),
    ],
)
def test_a_request_of_nothing_cannot_be_made(request_of: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        request_of()


@pytest.mark.parametrize(
    ("want", "message"),
    [
        (Candidates((1, VOCABULARY)), f"candidate {VOCABULARY} is outside the model's vocabulary of {VOCABULARY}"),
        (TopK(VOCABULARY + 1), f"the vocabulary has {VOCABULARY} tokens, not {VOCABULARY + 1}"),
    ],
)
def test_more_than_the_vocabulary_has_is_refused(engine: TransformersEngine, want: Want, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(engine.score([ScoreRequest(tokens=(1, 2), first=1, want=want)]))


def test_each_continuation_has_its_own_length(engine: TransformersEngine) -> None:
    sequences = uneven(shared=20)
    asked = [GenerateRequest(tokens=tuple(tokens), max_new_tokens=n) for n, tokens in enumerate(sequences, start=1)]
    whole = continued(engine, sequences, 6)
    assert engine.generate(asked) == [tokens[:n] for n, tokens in enumerate(whole, start=1)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(embedded_folder())


def test_a_continuation_ends_with_the_token_that_completes_a_stop_string(tokenizer: PreTrainedTokenizerBase) -> None:
    model = build_model(PLAIN["qwen3-tied"])
    sequences = uneven(shared=20)
    whole = greedy(model, sequences, 12)
    text = tokenizer.decode(whole[0])
    stops = (text[len(text) // 2 - 2 : len(text) // 2 + 2],)
    cut = [next((c[:n] for n in range(1, 12) if stops[0] in tokenizer.decode(c[:n])), c) for c in whole]
    assert 1 < len(cut[0]) < 12
    assert continued(TransformersEngine(model, tokenizer=tokenizer), sequences, 12, stop_strings=stops) == cut


def test_stop_strings_without_a_tokenizer_are_refused(engine: TransformersEngine) -> None:
    with pytest.raises(ValueError, match="stop strings need a tokenizer"):
        continued(engine, uneven(shared=20), 4, stop_strings=("\n",))
