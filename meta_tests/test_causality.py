"""Models that look ahead are told from causal ones, in every dtype."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    GPT2Config,
    PreTrainedModel,
)

from meta_tests.checkpoints import MIXTURES, PECULIAR, PLAIN, VOCABULARY, build_model
from quantsuite.adapters import causality
from quantsuite.adapters.causality import is_causal
from quantsuite.adapters.loading import CheckpointError, load_model
from quantsuite.tiny import embedded_folder

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
dtypes = pytest.mark.parametrize("dtype", DTYPES)
BERT = BertConfig(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
)


@dtypes
@pytest.mark.parametrize("kind", [BertForMaskedLM, BertLMHeadModel])
def test_a_model_that_looks_ahead_is_refused(kind: type[PreTrainedModel], dtype: str, tmp_path: Path) -> None:
    kind(BERT).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(embedded_folder()).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"a BertLMHeadModel is not causal here.*give a causal language model"):
        load_model(str(tmp_path), dtype=dtype)


@dtypes
def test_the_same_model_as_a_decoder_is_causal(dtype: str) -> None:
    model = BertLMHeadModel(BertConfig(**BERT.to_dict() | {"is_decoder": True})).to(DTYPES[dtype])
    assert is_causal(model.eval())


@dtypes
@pytest.mark.parametrize("name", [*PLAIN, *PECULIAR, *MIXTURES])
def test_a_causal_model_is_accepted(name: str, dtype: str) -> None:
    assert is_causal(build_model((PLAIN | PECULIAR | MIXTURES)[name]).to(DTYPES[dtype]))


@dtypes
@pytest.mark.parametrize("name", [*PLAIN, *PECULIAR, *MIXTURES])
def test_the_derivative_alone_accepts_a_causal_model(name: str, dtype: str) -> None:
    model = build_model((PLAIN | PECULIAR | MIXTURES)[name]).to(DTYPES[dtype])
    assert causality._influence(model, causality._probe(model)[0]) == 0


@dtypes
def test_the_derivative_alone_refuses_a_model_that_looks_ahead(dtype: str) -> None:
    model = BertLMHeadModel(BERT).to(DTYPES[dtype]).eval()
    assert causality._influence(model, causality._probe(model)[0]) > 0


def test_mixtures_need_the_derivative_in_float32() -> None:
    """Otherwise the tests above would not show what it is for."""
    model = build_model(MIXTURES["qwen3-moe"])
    with torch.no_grad():
        first, second = (causality._logits(model, row)[0, : causality.PREFIX] for row in causality._probe(model))
    assert not torch.equal(first, second)


def test_a_context_shorter_than_the_probe_is_no_obstacle() -> None:
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=12)
    assert is_causal(AutoModelForCausalLM.from_config(config).eval())


def test_the_model_is_left_without_hooks_and_gradients() -> None:
    model = build_model(MIXTURES["mixtral"])
    is_causal(model)
    assert not model.get_input_embeddings()._forward_hooks
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
