"""An engine of one's own: a model of ``transformers``, one sequence at a time, without a cache.

A package offers it in its ``pyproject.toml``, and ``python -m quantsuite run --engine plain`` finds it:

    [project.entry-points."quantsuite.engines"]
    plain = "plain_engine:PlainBackend"
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from quantsuite.adapters.loading import LoadedModel, context_length, load_model
from quantsuite.engine import GenerateRequest, ScoreRequest, ScoreResult, answer


class PlainEngine:
    """Whole distributions of each sequence, of which :func:`~quantsuite.engine.answer` takes what is wanted."""

    name = "plain"

    def __init__(self, loaded: LoadedModel, max_length: int | None) -> None:
        self._model, self._tokenizer, self.max_length = loaded.model, loaded.tokenizer, max_length

    def _log_probs(self, tokens: Sequence[int]) -> Tensor:
        """Of the token after each of these, float32 ``[tokens, vocabulary]``."""
        inputs = torch.tensor([list(tokens)], device=self._model.device)
        return self._model(input_ids=inputs, use_cache=False).logits[0].float().log_softmax(-1)

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        for index, request in enumerate(requests):
            rows = self._log_probs(request.tokens[:-1])[request.first - 1 :]
            yield answer(index, request, request.first, rows)

    @torch.inference_mode()
    def generate(self, requests: Sequence[GenerateRequest]) -> list[list[int]]:
        return [self._continue(request) for request in requests]

    def _continue(self, request: GenerateRequest) -> list[int]:
        ends = {self._tokenizer.eos_token_id, *request.stop_tokens}
        new: list[int] = []
        while len(new) < request.max_new_tokens:
            new.append(int(self._log_probs([*request.tokens, *new])[-1].argmax()))
            if new[-1] in ends or any(stop in self._tokenizer.decode(new) for stop in request.stop_strings):
                break
        return new


class PlainBackend:
    """Loads a model and runs it as it is.

    An engine that quantizes would read the plan in ``unsupported`` and ``engine``, and say in ``unquantized`` which
    share of the parameters it leaves alone.
    """

    name = PlainEngine.name
    context_length = staticmethod(context_length)

    def __init__(self, model: str, *, device: str, dtype: str) -> None:
        self._loaded = load_model(model, device=device, dtype=dtype)
        self.tokenizer, self.model_sha256 = self._loaded.tokenizer, self._loaded.sha256
        self.max_length = context_length(model)

    def unsupported(
        self, plan: Any, execution: str | None, *, include_head: bool = False, kernel: str | None = None
    ) -> str | None:
        return None if execution is None else f"the engine {self.name} quantizes nothing; use --scheme bf16"

    def unquantized(self, plan: Any, *, include_head: bool = False) -> dict[str, float]:
        return {"everything": 1.0}

    @contextmanager
    def engine(
        self, plan: Any, execution: str | None, *, include_head: bool = False, kernel: str | None = None
    ) -> Iterator[PlainEngine]:
        if reason := self.unsupported(plan, execution):
            raise ValueError(reason)
        yield PlainEngine(self._loaded, self.max_length)

    def weight_bytes(self, engine: PlainEngine) -> int:
        return sum(weight.numel() * weight.element_size() for weight in self._loaded.model.parameters())
