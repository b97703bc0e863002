"""Activation outliers planted into a model without changing the function that it computes.

A norm's channel is scaled up by a power of two, and the matching columns of the layers that read it
are scaled down by the same.  Powers of two are exact in every floating dtype, so the logits stay the
same bit for bit, while the columns become too small for a scale that they share with the others.
Large models grow such channels by themselves (Dettmers et al., 2022, LLM.int8()).
"""

from __future__ import annotations

import torch
from torch import nn

FACTOR = 256.0
CHANNELS = 128


def _scale(norm: nn.Module, readers: list[nn.Linear], channels: torch.Tensor, factor: float) -> None:
    norm.weight.data[channels] *= factor
    for reader in readers:
        reader.weight.data[:, channels] /= factor


def inject_outliers(model: nn.Module, *, factor: float = FACTOR, channels: int = CHANNELS, seed: int = 0) -> nn.Module:
    """Plant outliers before the attention and the MLP of every layer, in place.

    Args:
        model: a Llama-like model (Llama, Qwen2, Qwen3): ``model.layers`` with the usual names.
        factor: a power of two.
        channels: how many channels of each norm.
        seed: which channels.

    Raises:
        ValueError: if ``factor`` is not a power of two, which would round.
    """
    if factor <= 0 or torch.frexp(torch.tensor(factor)).mantissa != 0.5:
        raise ValueError(f"factor {factor} is not a power of two, so logits would change; use for example 128")
    generator = torch.Generator().manual_seed(seed)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for norm, readers in (
            (layer.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj]),
            (layer.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj]),
        ):
            picked = torch.randperm(norm.weight.numel(), generator=generator)[:channels]
            _scale(norm, readers, picked, factor)
    return model
