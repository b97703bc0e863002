"""MMLU five-shot takes a fraction of lm-evaluation-harness's time on the same model and questions."""

from __future__ import annotations

import importlib.metadata
import os
import time
from itertools import groupby, islice
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3Config

from meta_tests.checkpoints import build_model
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.evaluate.multiple_choice import choices
from quantsuite.evaluate.questions import Question
from quantsuite.tasks import Sources, shipped_tasks
from quantsuite.tiny import embedded_folder

SUBJECT = "abstract_algebra"
QUESTIONS_A_SUBJECT = 10
ROUNDS, TIMED_QUESTIONS = 2, 100
"""Two rounds of the hundred questions of one subject; more questions are timed once."""
PEER_BATCH = 16
"""Measured on two cores: 1, 4 and 16 took 49, 22 and 16 s for 32 questions."""
WANTED_RATIO = 5.0


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """That of a real model if ``QUANTSUITE_TOKENIZER`` names its folder, else the embedded one."""
    return AutoTokenizer.from_pretrained(os.environ.get("QUANTSUITE_TOKENIZER") or embedded_folder())


@pytest.fixture(scope="module", params=["one subject", pytest.param("every subject", marks=pytest.mark.slow)])
def questions(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
    """All questions of one subject; or the first ten of every one, fewer than share a prefix in the whole test."""
    folder = os.environ.get("QUANTSUITE_MMLU", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no local MMLU: set QUANTSUITE_MMLU to a folder of it, such as a clone of the hub's dataset")
    everything = shipped_tasks()["mmlu/direct"].prepare(tokenizer, Sources(places={"mmlu": folder}), 4096).questions
    if request.param == "one subject":
        return [question for question in everything if question.group == SUBJECT]
    by_subject = groupby(everything, lambda question: question.group)
    return [question for _, own in by_subject for question in islice(own, QUESTIONS_A_SUBJECT)]


def test_mmlu_takes_a_fifth_of_the_harnesss_time(
    benchmark: Any, questions: list[Question], tokenizer: PreTrainedTokenizerBase
) -> None:
    instance = pytest.importorskip("lm_eval.api.instance", reason="pip install 'lm-eval[hf]'")
    huggingface = pytest.importorskip(
        "lm_eval.models.huggingface", reason="pip install 'lm-eval[hf]'", exc_type=ImportError
    )
    model = build_model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=4096,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    engine = TransformersEngine(model)
    batch = int(os.environ.get("QUANTSUITE_PEER_BATCH", PEER_BATCH))
    peer = huggingface.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, device="cpu")
    texts = [question.prompt for question in questions]
    peer_seconds: list[float] = []
    peer_answers: list[int] = []

    def run_peer() -> None:
        requests = [
            instance.Instance(request_type="loglikelihood", doc={}, arguments=(text, f" {letter}"), idx=index)
            for text in texts
            for index, letter in enumerate("ABCD")
        ]
        begin = time.perf_counter()
        pairs = peer.loglikelihood(requests, disable_tqdm=True)
        peer_seconds.append(time.perf_counter() - begin)
        values = torch.tensor([value for value, _ in pairs]).view(len(texts), len("ABCD"))
        peer_answers[:] = values.argmax(-1).tolist()

    rounds = max(1, ROUNDS * TIMED_QUESTIONS // len(texts))
    # The peer's turn is the set-up of ours, so that the two take turns.
    ours = benchmark.pedantic(
        lambda: choices(engine, tokenizer, questions, letters="ABCD"), setup=run_peer, rounds=rounds
    )
    assert ours.predicted == peer_answers

    ratio = median(peer_seconds) / benchmark.stats.stats.median
    benchmark.extra_info |= {
        "questions": len(texts),
        "tokens": sum(map(len, tokenizer(texts, verbose=False)["input_ids"])),
        "vocabulary": len(tokenizer),
        "ratio": ratio,
        "peer": f"lm-eval {importlib.metadata.version('lm-eval')}, hf, batch size {batch}",
        "peer_seconds": peer_seconds,
        "threads": torch.get_num_threads(),
    }
    assert ratio >= WANTED_RATIO
