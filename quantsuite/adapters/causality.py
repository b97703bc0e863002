"""Whether a model is causal: whether what comes later in a sequence leaves the logits before it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quantsuite.adapters.transformers import context_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREFIX, SUFFIX = 8, 24
"""Tokens; the suffix is the longer part, so that a model that attends to it cannot hide it in rounding."""


def _probe(model: PreTrainedModel) -> Tensor:
    """Two rows ``[2, tokens]`` that share their first tokens and draw all others anew."""
    generator = torch.Generator().manual_seed(0)
    length = min(PREFIX + SUFFIX, context_of(model.config) or PREFIX + SUFFIX)
    rows = torch.randint(model.get_input_embeddings().weight.shape[0], (2, length), generator=generator)
    rows[1, :PREFIX] = rows[0, :PREFIX]
    return rows.to(model.device)


def _logits(model: PreTrainedModel, row: Tensor) -> Tensor:
    return model(input_ids=row.unsqueeze(0), use_cache=False).logits


def _influence(model: PreTrainedModel, row: Tensor) -> float:
    """The largest gradient of the prefix's logits by the suffix's embeddings."""
    embedded: list[Tensor] = []

    def watch(module: object, inputs: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = model.get_input_embeddings().register_forward_hook(watch)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            logits = _logits(model, row)[0, :PREFIX].float()
            weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits.device)
            (gradient,) = torch.autograd.grad((logits * weights).sum(), embedded[:1])
    finally:
        hook.remove()
    return float(gradient[0, PREFIX:].float().abs().nan_to_num(nan=torch.inf).max())


def is_causal(model: PreTrainedModel) -> bool:
    """Whether a changed suffix leaves the prefix's logits alone.

    Both rows have one shape, so that each kernel sums a token's products in the same order, and the
    logits of a dense causal model are equal bit for bit.  Those of a mixture of experts need not be:
    the suffix changes how many tokens an expert is given, so the shape of its product, its rounding,
    and by that even a near tie between experts.  No threshold tells this from a weak influence, but
    the derivative does: a masked weight is exactly zero, and rows of a product never mix, so that the
    gradient of the prefix's logits by the suffix's embeddings is exactly zero in any dtype, while that
    of a model which looks ahead is not.

    Args:
        model: in evaluation mode, with an input embedding.
    """
    with torch.no_grad():
        first, second = (_logits(model, row)[0, :PREFIX] for row in _probe(model))
    return torch.equal(first, second) or _influence(model, _probe(model)[0]) == 0
