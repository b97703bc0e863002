"""Small models whose layers are checked in place, each loaded once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from transformers import GPT2Config

from meta_tests.checkpoints import CONTEXT, MIXTURES, PLAIN, VOCABULARY, save_checkpoint
from quantsuite.adapters.backend import TransformersBackend
from quantsuite.checks.in_place import Execute
from quantsuite.evaluate.layers import check_layers
from quantsuite.metrics import Layers
from quantsuite.plan import Plan
from quantsuite.scheme import REFERENCE, Execution, Scheme

TEXT = "The old lighthouse stood at the edge of the sea, and every evening its keeper climbed the stairs. " * 4
FEW = ("layers.0.self_attn.k_proj", "layers.1.self_attn.k_proj", "layers.1.self_attn.v_proj")
"""Of the embedded model, matrices that are looked at where one is as good as all."""
GPT2 = GPT2Config(
    vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=CONTEXT, bos_token_id=0, eos_token_id=0
)
"""A model of Conv1D, whose weights are transposed and which has biases."""
CONFIGS = {"qwen2": PLAIN["qwen2-untied"], "tied": PLAIN["qwen3-tied"], "gpt2": GPT2} | MIXTURES


class LayerModels:
    """Loads the models, ``tiny`` or those of :data:`CONFIGS`.

    Args:
        folder: of checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.backend = cache(self._load)

    def _load(self, name: str, dtype: str = "bf16") -> TransformersBackend:
        model = save_checkpoint(self._folder / f"{name}-{dtype}", CONFIGS[name]) if name in CONFIGS else name
        return TransformersBackend(str(model), device="cpu", dtype=dtype)

    def weight(self, name: str, path: str) -> torch.Tensor:
        """Of a layer, as it was loaded."""
        return self.backend(name)._loaded.model.get_submodule(path).weight.detach()

    def check(
        self,
        name: str,
        plan: Plan | Scheme | str,
        execution: Execution | None,
        *,
        dtype: str = "bf16",
        include_head: bool = False,
        shown_head: bool | None = None,
        kernel: str | None = None,
        named: str | None = None,
        text: str = TEXT,
        only: tuple[str, ...] | None = None,
    ) -> Layers:
        """What is found of a model's layers.

        Args:
            name: of the model.
            plan: of the model, or a scheme.
            execution: of the model.
            dtype: of the model.
            include_head: whether the head is quantized.
            shown_head: whether it was to be (default: ``include_head``).
            kernel: that multiplies.
            named: the kernel that was to (default: ``kernel``).
            text: that is read.
            only: endings of the names of the matrices that are looked at; :data:`FEW` of ``tiny``, all of others.
        """
        plan, backend = Scheme.parse(plan) if isinstance(plan, str) else plan, self.backend(name, dtype)
        only = (FEW if name == "tiny" and not include_head else ("",)) if only is None else only
        with backend.engine(plan, execution, include_head=include_head, kernel=kernel) as engine:
            shown = backend.matrices(engine, plan, include_head=include_head if shown_head is None else shown_head)
            chosen = [placed for placed in shown if placed.name.endswith(only)]
            how = Execute(execution=execution, kernel=named or kernel)
            tokens = backend.tokenizer(text)["input_ids"]
            with backend.engine(REFERENCE, None) as reference:
                return check_layers(engine, chosen, tokens, how, reference=reference)


def faults(layers: Layers) -> list[str]:
    return [fault for fault in layers.faults if fault]
