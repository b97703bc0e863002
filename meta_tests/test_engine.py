"""The engine's scores and continuations are those of an untouched model, however it batches."""

import copy
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from meta_tests.checkpoints import CONTEXT, PLAIN, VOCABULARY, build_model
from quantsuite.adapters.transformers import SHARED_MINIMUM, TransformersEngine
from quantsuite.engine import GenerateRequest, Rows, ScoreRequest

LENGTHS = (5, 33, 9, 17, 33, 2)
NOISE_FACTOR = 8
"""Allowed multiple of transformers' own float32 error: other shapes sum in another order."""


def random_tokens(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(1, VOCABULARY) for _ in range(count)]


def uneven(shared: int) -> list[list[int]]:
    """Sequences of different lengths whose first ``shared`` tokens are the same."""
    prefix = random_tokens(shared, seed=99)
    return [prefix + random_tokens(length, seed) for seed, length in enumerate(LENGTHS)]


def rows(sequences: Sequence[list[int]], first: Sequence[int]) -> list[ScoreRequest]:
    return [ScoreRequest(tokens=tuple(s), first=f, want=Rows()) for s, f in zip(sequences, first, strict=True)]


def continued(engine: TransformersEngine, sequences: Sequence[list[int]], new_tokens: int, **stops) -> list[list[int]]:
    return engine.generate([GenerateRequest(tokens=tuple(s), max_new_tokens=new_tokens, **stops) for s in sequences])


def collected(engine: TransformersEngine, sequences: Sequence[list[int]], first: Sequence[int]) -> list[Tensor]:
    parts: list[list[Tensor]] = [[] for _ in sequences]
    for result in engine.score(rows(sequences, first)):
        parts[result.request].append(result.log_probs)
    return [torch.cat(chunks) for chunks in parts]


def expected(model: PreTrainedModel, sequences: Sequence[list[int]], first: Sequence[int]) -> list[Tensor]:
    """One sequence at a time through the model as it is."""
    logits = (model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0] for sequence in sequences)
    return [
        torch.log_softmax(r[f - 1 : -1].to(torch.promote_types(r.dtype, torch.float32)), -1)
        for r, f in zip(logits, first, strict=True)
    ]


def error(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    return max(float((a.double() - b.double()).abs().max()) for a, b in zip(ours, theirs, strict=True))


def assert_scores_equal(model: PreTrainedModel, sequences: list[list[int]], first: list[int], batch: int) -> None:
    theirs = expected(model, sequences, first)
    exact = copy.deepcopy(model).double()
    exact.set_experts_implementation("eager")  # The product that others use has no float64.
    floor = error(theirs, expected(exact, sequences, first))
    assert error(collected(TransformersEngine(model, batch_tokens=batch), sequences, first), theirs) <= (
        NOISE_FACTOR * floor
    )


@pytest.mark.parametrize("batch_tokens", [1, 70, 8192])
def test_scores_are_those_of_the_model(model: PreTrainedModel, batch_tokens: int) -> None:
    sequences = uneven(shared=0)
    assert_scores_equal(model, sequences, [1] * len(sequences), batch_tokens)


@pytest.mark.parametrize("batch_tokens", [1, 70, 8192])
@pytest.mark.parametrize("shared", [SHARED_MINIMUM - 1, SHARED_MINIMUM + 1, 40])
def test_scores_after_a_shared_prefix_are_those_of_the_model(
    model: PreTrainedModel, shared: int, batch_tokens: int
) -> None:
    sequences = uneven(shared)
    assert_scores_equal(model, sequences, [shared + 1] * len(sequences), batch_tokens)


def test_scores_from_inside_the_shared_prefix_are_those_of_the_model(model: PreTrainedModel) -> None:
    sequences = uneven(shared=40)
    assert_scores_equal(model, sequences, [12, 30, 41, 50, 60, 41], 8192)


def test_scores_of_bfloat16_logits_are_float32() -> None:
    model = build_model(PLAIN["qwen3-tied"]).bfloat16()
    assert {part.dtype for part in collected(TransformersEngine(model), uneven(0), [1] * 6)} == {torch.float32}


def test_scores_of_bfloat16_logits_are_normalized_to_float32_precision() -> None:
    model = build_model(PLAIN["qwen3-tied"]).bfloat16()
    scores = torch.cat(collected(TransformersEngine(model), uneven(0), [1] * 6))
    # A sum of 2,048 rounded exponentials is off by at most as many roundoffs.
    assert scores.double().exp().sum(-1).sub(1).abs().max() <= VOCABULARY * torch.finfo(torch.float32).eps


def test_prompt_twice_in_a_call_is_scored_twice(model: PreTrainedModel) -> None:
    prompt = random_tokens(12, seed=1)
    assert_scores_equal(model, [prompt, prompt], [1, 11], 8192)


@pytest.mark.parametrize("elements", [1, 3 * VOCABULARY, 2**24])
def test_chunks_cover_each_sequence_in_order(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    monkeypatch.setattr("quantsuite.adapters.transformers.LOGIT_ELEMENTS", elements)
    engine = TransformersEngine(build_model(PLAIN["llama-untied"]), batch_tokens=70)
    sequences = uneven(shared=20)
    first = [21, 30, 1, 22, 52, 21]
    reached = list(first)
    for result in engine.score(rows(sequences, first)):
        assert result.first == reached[result.request]
        reached[result.request] += len(result.log_probs)
    assert reached == [len(sequence) for sequence in sequences]


@pytest.mark.parametrize("positions", [1, 3, 10])
def test_head_yields_no_more_logits_at_once_than_allowed(monkeypatch: pytest.MonkeyPatch, positions: int) -> None:
    monkeypatch.setattr("quantsuite.adapters.transformers.LOGIT_ELEMENTS", positions * VOCABULARY)
    model = build_model(PLAIN["qwen3-untied"])
    engine = TransformersEngine(model)
    sizes: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda module, args, output: sizes.append(output.numel()))
    collected(engine, uneven(shared=20), [1] * len(LENGTHS))
    assert max(sizes) == positions * VOCABULARY


def test_shared_prefix_is_read_once() -> None:
    model = build_model(PLAIN["qwen3-tied"])
    engine = TransformersEngine(model)
    read: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda module, args, output: read.append(args[0].numel()))
    sequences = [[*random_tokens(100, seed=99), *random_tokens(3, seed)] for seed in range(10)]
    collected(engine, sequences, [101] * 10)
    assert sum(read) == 100 + 10 * 2


def greedy(model: PreTrainedModel, sequences: Sequence[list[int]], new_tokens: int) -> list[list[int]]:
    """What transformers itself continues, one sequence at a time."""
    return [
        model.generate(
            torch.tensor([sequence]),
            attention_mask=torch.ones(1, len(sequence), dtype=torch.long),
            max_new_tokens=new_tokens,
            do_sample=False,
        )[0, len(sequence) :].tolist()
        for sequence in sequences
    ]


@pytest.mark.parametrize("batch_tokens", [1, 70, 8192])
@pytest.mark.parametrize("shared", [0, 40])
def test_continuations_are_those_of_the_model(model: PreTrainedModel, shared: int, batch_tokens: int) -> None:
    sequences = uneven(shared)
    assert continued(TransformersEngine(model, batch_tokens=batch_tokens), sequences, 12) == greedy(
        model, sequences, 12
    )


def test_stop_cuts_a_continuation_and_leaves_the_others(model: PreTrainedModel) -> None:
    sequences = uneven(shared=20)
    whole = greedy(model, sequences, 8)
    ends = frozenset(continuation[i % 4] for i, continuation in enumerate(whole))
    cut = [c[: next((i + 1 for i, token in enumerate(c) if token in ends), 8)] for c in whole]
    assert continued(TransformersEngine(model), sequences, 8, stop_tokens=ends) == cut


@pytest.mark.parametrize("as_list", [False, True])
def test_end_of_text_ends_a_continuation_and_is_kept(as_list: bool) -> None:
    model = build_model(PLAIN["qwen2-untied"])
    sequences = uneven(shared=20)
    end = greedy(model, sequences, 8)[1][3]
    model.generation_config.eos_token_id = [end, VOCABULARY - 1] if as_list else end
    ours = continued(TransformersEngine(model), sequences, 8)
    assert ours[1][-1] == end and len(ours[1]) <= 4
    assert ours == greedy(model, sequences, 8)


def test_sequence_may_fill_the_context(model: PreTrainedModel) -> None:
    # The last token is only predicted, so that one more than the context fits.
    assert len(collected(TransformersEngine(model), [random_tokens(CONTEXT + 1, 0)], [CONTEXT])[0]) == 1


def test_logits_that_are_not_finite_are_an_error_and_never_a_token() -> None:
    model = build_model(PLAIN["qwen3-tied"])
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = torch.nan
    with pytest.raises(ValueError, match="the model's logits are NaN or infinite"):
        continued(TransformersEngine(model), [random_tokens(4, seed=1)], 2)


def test_sequence_beyond_the_context_is_refused() -> None:
    engine = TransformersEngine(build_model(PLAIN["qwen3-tied"]))
    with pytest.raises(ValueError, match=f"{CONTEXT + 1} tokens is longer than the model's context of {CONTEXT}"):
        list(engine.score(rows([random_tokens(CONTEXT + 2, 0)], [1])))


def test_new_tokens_beyond_the_context_are_refused() -> None:
    engine = TransformersEngine(build_model(PLAIN["qwen3-tied"]))
    with pytest.raises(ValueError, match=f"longer than the model's context of {CONTEXT}; choose"):
        continued(engine, [random_tokens(CONTEXT - 2, 0)], 4)


@pytest.mark.parametrize("place", [0, -1])
def test_token_outside_the_vocabulary_is_refused(place: int) -> None:
    sequence = random_tokens(6, 0)
    sequence[place] = VOCABULARY
    engine = TransformersEngine(build_model(PLAIN["qwen3-tied"]))
    with pytest.raises(ValueError, match=f"token {VOCABULARY} is outside .* vocabulary of {VOCABULARY}; the tokenizer"):
        list(engine.score(rows([sequence], [1])))
