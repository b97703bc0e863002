"""Small random checkpoints: architectures of the suite's users, weights so large that logits vary."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from quantsuite.tiny import embedded_folder

VOCABULARY = 2048
CONTEXT = 256

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}

PLAIN: dict[str, PreTrainedConfig] = {
    f"{name}-{'tied' if tied else 'untied'}": kind(**_SHAPE, tie_word_embeddings=tied)
    for name, kind in (("qwen2", Qwen2Config), ("qwen3", Qwen3Config), ("llama", LlamaConfig))
    for tied in (True, False)
}
"""Models whose logits are the output embedding of the last hidden states."""

PECULIAR: dict[str, PreTrainedConfig] = {
    "gemma2-capped": Gemma2Config(
        **_SHAPE, final_logit_softcapping=3.0, query_pre_attn_scalar=16, sliding_window=CONTEXT
    ),
    "granite-scaled": GraniteConfig(**_SHAPE, logits_scaling=3.0, embedding_multiplier=2.0),
    "qwen2-sliding": Qwen2Config(**_SHAPE, use_sliding_window=True, sliding_window=8, max_window_layers=0),
}
"""Models that change the logits after the head, or that see only the last tokens."""

_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

MIXTURES: dict[str, PreTrainedConfig] = {
    "qwen3-moe": Qwen3MoeConfig(**_SHAPE, **_EXPERTS),
    "qwen2-moe": Qwen2MoeConfig(**_SHAPE, **_EXPERTS, shared_expert_intermediate_size=32),
    "mixtral": MixtralConfig(**_SHAPE, num_local_experts=4, num_experts_per_tok=2),
}
"""Mixtures of experts, the second with a shared expert beside them."""


def build_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model with random float32 weights: matrices keep a vector's length, logits spread over some units."""
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.data = 0.2 * noise + (1.0 if "norm" in name else 0.0)
        else:
            parameter.data = noise * (2.0 / math.sqrt(parameter.shape[-1]))
    model.tie_weights()
    return model.eval().requires_grad_(False)


def save_checkpoint(folder: Path, config: PreTrainedConfig, *, seed: int = 0, shard: str = "300KB") -> Path:
    """Save a random model in shards, with the embedded model's tokenizer."""
    build_model(config, seed).save_pretrained(folder, max_shard_size=shard)
    AutoTokenizer.from_pretrained(embedded_folder()).save_pretrained(folder)
    return folder
