"""Evaluators against sources whose answers are known without them."""

from __future__ import annotations

import dataclasses
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import torch

from quantsuite.engine import Candidates, Engine, GenerateRequest, ScoreRequest, ScoreResult, Targets
from quantsuite.engine.wants import answer
from quantsuite.evaluate import continuation, multiple_choice, windows
from quantsuite.evaluate.data import Document
from quantsuite.evaluate.drift import token_drift
from quantsuite.evaluate.perplexity import score_text
from quantsuite.evaluate.questions import Question
from quantsuite.evaluate.visible import visible_tokens
from quantsuite.evaluate.windows import TextItem
from quantsuite.metrics import UNPARSED, Choices
from quantsuite.metrics.estimators import flips
from quantsuite.tasks import shipped_tasks
from quantsuite.tasks.texts import windows_of


class WordTokenizer:
    """``w17`` is token 17; every other word, and the start token, has a place after the words'."""

    bos_token_id = None

    def __init__(self, words: int) -> None:
        self.words = words
        self.eos_token_id = words
        self._others: dict[str, int] = {}

    def _id(self, word: str) -> int:
        if word[:1] == "w" and word[1:].isdecimal():
            return int(word[1:])
        return self._others.setdefault(word, self.words + 1 + len(self._others))

    def __len__(self) -> int:
        return self.words + 1 + len(self._others)

    def __call__(self, text: str | list[str], **options: object) -> dict[str, list]:
        if isinstance(text, str):
            return {"input_ids": [self._id(word) for word in text.split()]}
        return {"input_ids": [self(each)["input_ids"] for each in text]}

    def decode(self, tokens: Sequence[int]) -> str:
        names = {number: word for word, number in self._others.items()}
        return " ".join(names.get(token, f"w{token}") for token in tokens)


@dataclass
class Chain:
    """An analytic source: the distribution of a token is a row chosen by the token before it."""

    log_transition: torch.Tensor
    name: str = "chain"
    max_length: int | None = None

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        for index, request in enumerate(requests):
            rows = self.log_transition[list(request.tokens[request.first - 1 : -1])]
            yield answer(index, request, request.first, rows)


def markov(states: int, successors: int) -> tuple[Chain, Callable[[int, int], list[int]]]:
    """A chain with equally likely successors, whose perplexity is their number, and its sampler."""
    log_transition = torch.full((states + 1, states + 1), -torch.inf)
    following = {state: [(7 * state + 3 * i + 1) % states for i in range(successors)] for state in range(states + 1)}
    for state, nexts in following.items():
        log_transition[state, nexts] = -math.log(successors)

    def sample(length: int, seed: int) -> list[int]:
        rng, path = random.Random(seed), [states]
        while len(path) <= length:
            path.append(rng.choice(following[path[-1]]))
        return path[1:]

    return Chain(log_transition), sample


def as_words(tokens: Sequence[int]) -> str:
    return " ".join(f"w{token}" for token in tokens)


def window2048(tokenizer: WordTokenizer, rows: list[str]) -> list[TextItem]:
    return windows_of(shipped_tasks()["wikitext2/window2048"].recipe, tokenizer, rows)


def chunk512(tokenizer: WordTokenizer, rows: list[str]) -> list[TextItem]:
    return windows_of(shipped_tasks()["wikitext2/chunk512"].recipe, tokenizer, rows)


def head100(tokenizer: WordTokenizer, rows: list[str]) -> list[TextItem]:
    return windows_of(shipped_tasks()["wikitext2/head100"].recipe, tokenizer, rows)


WINDOW_RECIPES = [window2048, chunk512, head100]


@pytest.mark.parametrize("recipe", WINDOW_RECIPES, ids=lambda recipe: recipe.__name__)
def test_perplexity_of_a_markov_chain_is_its_number_of_successors(recipe) -> None:
    chain, sample = markov(states=50, successors=8)
    rows = [as_words(sample(5000, seed=1))]
    result = score_text(chain, recipe(WordTokenizer(50), rows))
    assert math.exp(sum(result.nats) / sum(result.units)) == pytest.approx(8, rel=1e-6)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_document_recipe_scores_every_token_once_at_every_length(length: int) -> None:
    chain, sample = markov(states=50, successors=8)
    text = as_words(sample(length, seed=2))
    items = windows.document_items(
        WordTokenizer(50), [Document(text=text)], max_length=64, units=lambda text, n: windows.count_words(text)
    )
    result = score_text(chain, items)
    assert result.tokens == [length]
    assert sum(result.nats) == pytest.approx(length * math.log(8), rel=1e-6)


def test_uniform_model_has_the_vocabulary_as_perplexity_and_no_bf16_grid() -> None:
    """30,001 lies between 29,952 and 30,080 on the bf16 grid: averaging in bf16 could not return it."""
    size = 30_001
    chain = Chain(torch.full((1, size), -math.log(size)).expand(size + 1, size))
    tokens = [random.Random(3).randrange(size) for _ in range(3000)]
    result = score_text(chain, window2048(WordTokenizer(size), [as_words(tokens)]))
    assert math.exp(sum(result.nats) / sum(result.units)) == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize(
    ("recipe", "scored"),
    [
        (window2048, lambda ids: [*ids[1:2048], *ids[2049:4096]]),
        (chunk512, lambda ids: [t for b in range(0, len(ids) - 511, 512) for t in ids[b + 257 : b + 512]]),
        (head100, lambda ids: ids[1:]),
    ],
    ids=["window2048", "chunk512", "head100"],
)
def test_recipe_scores_exactly_its_targets(recipe, scored) -> None:
    """Tokens of different cost tell which of them were counted."""
    size = 40
    unigram = torch.log_softmax(torch.randn(size, generator=torch.Generator().manual_seed(4)), 0)
    chain = Chain(unigram.expand(size + 1, size))
    ids = [random.Random(5).randrange(size) for _ in range(5000)]
    result = score_text(chain, recipe(WordTokenizer(size), [as_words(ids)]))
    expected = [-float(unigram[token]) for token in scored(ids)]
    assert sum(result.tokens) == len(expected)
    assert sum(result.nats) == pytest.approx(math.fsum(expected), rel=1e-6)


def test_head100_skips_empty_rows_and_stops_at_a_hundred() -> None:
    rows = ["w1 w2 w3", "", " \n"] * 60
    assert len(head100(WordTokenizer(9), rows)) == 34


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: results[:-1], r"engine chain left 1 of \d requests unscored, first 6"),
        (lambda results: [*results, results[2]], "engine chain answers request 2 of 7, which is answered already"),
        (
            lambda results: [dataclasses.replace(results[0], log_probs=results[0].log_probs[:9]), *results[1:]],
            "engine chain answers request 0 with 9 positions from 257, not 255 from 257",
        ),
        (lambda results: [dataclasses.replace(results[0], request=7)], "engine chain answers request 7 of 7"),
    ],
)
def test_an_engine_that_does_not_answer_each_request_once_is_refused(change, message: str) -> None:
    @dataclass
    class Faulty(Chain):
        def score(self, requests):
            return iter(change(list(super().score(requests))))

    chain, sample = markov(states=50, successors=8)
    items = chunk512(WordTokenizer(50), [as_words(sample(4000, seed=6))])
    with pytest.raises(ValueError, match=message):
        score_text(Faulty(chain.log_transition), items)


def test_nan_in_log_probabilities_is_an_error_and_never_a_perplexity() -> None:
    items = head100(WordTokenizer(3), ["w0 w1 w2"])
    with pytest.raises(ValueError, match="NaN or infinite"):
        score_text(Chain(torch.full((4, 4), torch.nan)), items)


def test_nan_in_log_probabilities_is_an_error_and_never_a_mismatch() -> None:
    asked = [Question(group="", prompt="w0 w1", continuations=(" w2",))]
    with pytest.raises(ValueError, match="NaN or infinite"):
        continuation.matches(Chain(torch.full((4, 4), torch.nan)), WordTokenizer(3), asked)


QUESTIONS = 40
LETTERS = "ABCD"
NUMBERS = sorted(range(QUESTIONS), key=lambda i: i % 2)
"""Of the questions, in their order."""


def questions() -> list[Question]:
    """Two subjects; the number that stands last in a prompt identifies its question."""
    return [
        Question(
            group=f"subject_{i % 2}",
            prompt=f"about subject_{i % 2} w99 Answer: A w{i} Answer:",
            continuations=tuple(f" {letter}" for letter in LETTERS),
            answer=i % 4,
        )
        for i in NUMBERS
    ]


@dataclass
class Oracle:
    """Answers the question that stands last in a prompt with planted likelihoods of the letters."""

    tokenizer: WordTokenizer
    planted: dict[int, list[float]]
    written: dict[int, str] = field(default_factory=dict)
    name: str = "oracle"
    max_length: int | None = None

    def _question(self, tokens: Sequence[int]) -> int:
        return [token for token in tokens if token < QUESTIONS][-1]

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        letters = [self.tokenizer(letter)["input_ids"][0] for letter in LETTERS]
        for index, request in enumerate(requests):
            rows = torch.full((1, 2000), -50.0)
            rows[0, letters] = torch.tensor(self.planted[self._question(request.tokens[: request.first])])
            yield answer(index, request, request.first, rows)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[list[int]]:
        return [self.tokenizer(self.written[self._question(request.tokens)])["input_ids"] for request in requests]


def likelihoods(chosen: int) -> list[float]:
    return [-0.25 if letter == chosen else -2.0 - letter for letter in range(4)]


def lettered(engine: Engine, tokenizer: WordTokenizer) -> Choices:
    return multiple_choice.choices(engine, tokenizer, questions(), letters=LETTERS)


def answered(planted: dict[int, list[float]]) -> Choices:
    return lettered(Oracle(tokenizer := WordTokenizer(100), planted), tokenizer)


def test_direct_accuracy_and_likelihoods_are_the_planted_ones() -> None:
    planted = {i: likelihoods(i % 4 if i % 5 else (i + 1) % 4) for i in range(QUESTIONS)}
    result = answered(planted)
    assert sum(result.correct) == QUESTIONS - QUESTIONS // 5
    assert result.log_likelihoods == [pytest.approx(planted[i]) for i in NUMBERS]


@dataclass
class Recorder(Chain):
    """A chain that keeps what it is asked."""

    asked: list[ScoreRequest] = field(default_factory=list)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        self.asked += requests
        return super().score(requests)


class SplittingTokenizer(WordTokenizer):
    """One that has no token for a letter after a space, but one for each of the two."""

    def __call__(self, text: str | list[str], **options: object) -> dict[str, list]:
        if isinstance(text, str) and text[-2:-1] == " " and text[-1] in LETTERS:
            return {"input_ids": [*super().__call__(text[:-2])["input_ids"], self._id("space"), self._id(text[-1])]}
        return super().__call__(text)


def random_chain() -> Recorder:
    return Recorder(torch.randn(2000, 2000, generator=torch.Generator().manual_seed(7)).log_softmax(-1))


def test_single_tokens_of_all_letters_are_one_request_a_question() -> None:
    lettered(chain := random_chain(), tokenizer := WordTokenizer(100))
    letters = tuple(tokenizer(letter)["input_ids"][0] for letter in LETTERS)
    assert [request.want for request in chain.asked] == [Candidates(letters)] * QUESTIONS


def test_a_letter_of_several_tokens_is_as_likely_as_all_of_them_together() -> None:
    result = lettered(chain := random_chain(), tokenizer := SplittingTokenizer(100))
    assert [request.want for request in chain.asked] == [Targets()] * QUESTIONS * len(LETTERS)
    space = tokenizer._id("space")
    for question, found in zip(questions(), result.log_likelihoods, strict=True):
        before = tokenizer(question.prompt)["input_ids"][-1]
        for letter, value in zip(LETTERS, found, strict=True):
            expected = chain.log_transition[before, space] + chain.log_transition[space, tokenizer._id(letter)]
            assert value == pytest.approx(float(expected))


def test_ties_go_to_the_first_letter_and_are_counted() -> None:
    planted = {i: [-1.0, -1.0, -2.0, -3.0] for i in range(QUESTIONS)}
    result = answered(planted)
    assert set(result.predicted) == {0}
    assert result.ties == QUESTIONS


def test_generated_answers_are_read_by_their_first_letter_and_others_are_unparsed() -> None:
    written = {i: ["A", "b is right", "Zebra", "D)"][i % 4] for i in range(QUESTIONS)}
    oracle = Oracle(tokenizer := WordTokenizer(100), {}, written)
    result = multiple_choice.written(oracle, tokenizer, questions(), letters=LETTERS, max_new_tokens=4)
    assert result.predicted.count(UNPARSED) == QUESTIONS // 4
    assert sum(result.correct) == 3 * QUESTIONS // 4


def test_generation_is_asked_to_stop_at_what_can_be_seen_and_after_four_tokens() -> None:
    oracle = Oracle(tokenizer := WordTokenizer(100), {}, dict.fromkeys(range(QUESTIONS), "A"))
    asked: list[GenerateRequest] = []
    generate = oracle.generate
    oracle.generate = lambda requests: asked.extend(requests) or generate(requests)
    multiple_choice.written(oracle, tokenizer, questions(), letters=LETTERS, max_new_tokens=4)
    assert {(each.max_new_tokens, each.stop_tokens) for each in asked} == {(4, visible_tokens(tokenizer))}
    assert len(asked) == QUESTIONS and visible_tokens(tokenizer)


@pytest.mark.parametrize(
    ("text", "answer"), [(" A", 0), ("\nd", 3), ("", -1), ("  ", -1), ("Answer: B", 0), ("E", -1), ("1", -1)]
)
def test_parse_answer(text: str, answer: int) -> None:
    assert multiple_choice.parse_answer(text) == answer


def test_planted_flips_are_counted_in_both_directions() -> None:
    before = Choices(group=["s"] * 6, answer=[0] * 6, predicted=[0, 0, 0, 1, 1, 2])
    after = Choices(group=["s"] * 6, answer=[0] * 6, predicted=[0, 1, 1, 0, 2, 2])
    assert flips(before.correct, after.correct) == (2, 1)


def test_drift_between_two_known_sources_is_their_divergence() -> None:
    p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.5, 0.25])
    items = head100(WordTokenizer(2), ["w0 w1 w0 w1 w0"])
    [result] = token_drift(Chain(p.log().expand(3, 3)), Chain(q.log().expand(3, 3)), items)
    assert [token.kl for token in result] == [pytest.approx(0.25 * math.log(2))] * 4
    assert [token.delta_p for token in result] == pytest.approx([0.25, -0.25, 0.25, -0.25])
    assert not any(token.same_top for token in result)


def test_a_large_vocabulary_needs_no_gigabyte_of_logits() -> None:
    """2,048 tokens of a 151,936-entry vocabulary are 1.24 GB of float32 logits; a process's peak tells."""
    code = """
import resource, torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.engine import Rows, ScoreRequest, Targets
config = Qwen3Config(vocab_size=151_936, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=1, head_dim=32, tie_word_embeddings=True)
engine = TransformersEngine(Qwen3ForCausalLM(config).to(torch.bfloat16).eval())
def score(length, want):
    for result in engine.score([ScoreRequest(tokens=tuple(range(length)), first=1, want=want)]):
        result.log_probs.sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(-score(130, Rows()) + max(score(2048, want) for want in (Rows(), Targets())))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout.split()[-1]) < 2**29
