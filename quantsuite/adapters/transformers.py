"""Any Hugging Face causal language model as an engine."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from quantsuite.engine import Candidates, GenerateRequest, ScoreRequest, ScoreResult, TopK
from quantsuite.engine.wants import answer, in_one_part

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LOGIT_ELEMENTS = 2**24
"""Logits held at once: 64 MiB in float32, 110 positions of a 151,936-entry vocabulary."""

SHARED_MINIMUM = 8
"""Shorter common beginnings are not worth a pass of their own."""


def shared_prefix(sequences: Sequence[Sequence[int]], limit: int) -> int:
    """How many tokens all sequences begin with, at most ``limit``; 0 if it is not worth sharing."""
    if len(sequences) < 2:
        return 0
    columns = zip(*(sequence[:limit] for sequence in sequences), strict=False)
    length = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    return length if length >= SHARED_MINIMUM else 0


def context_of(config: PreTrainedConfig) -> int | None:
    """The longest context in tokens, or ``None`` where a configuration sets none, or -1 for any."""
    positions = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return positions if positions is None or positions > 0 else None


class TransformersEngine:
    """Score and generate with a model of ``transformers``.

    Requests are batched by length.  Tokens that all of a call begin with are run once and their KV
    cache is reused.  Only the hidden states of wanted positions go through the output head, in chunks
    of at most ``LOGIT_ELEMENTS`` logits, upcast to float32 before the log-softmax; what a request does
    not want of them is dropped with the chunk.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: reads continuations for stop strings; without one they are refused.
        batch_tokens: new tokens in one forward pass, padding included.

    Attributes:
        model: what is run.
    """

    name = "transformers"

    def __init__(
        self, model: PreTrainedModel, *, tokenizer: PreTrainedTokenizerBase | None = None, batch_tokens: int = 8192
    ) -> None:
        self.model = model
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens
        text = model.config.get_text_config(decoder=True)
        self._vocabulary: int = text.vocab_size
        self.max_length = context_of(model.config)
        # A sliding window counts the padding between a short prompt and its continuation.
        self._slides = getattr(text, "sliding_window", None) is not None
        ends = model.generation_config.eos_token_id if model.generation_config else None
        ends = text.eos_token_id if ends is None else ends
        self._ends = set(ends if isinstance(ends, list) else [ends])
        self._plain_head = self._head_is_the_output_embedding()

    @torch.inference_mode()
    def _head_is_the_output_embedding(self) -> bool:
        """Whether logits are a linear map of the last hidden states, with no scaling or capping after."""
        probe = torch.zeros((1, 2), dtype=torch.long, device=self.model.device)
        head = self.model.get_output_embeddings()
        if head is None:
            return False
        hidden = getattr(self.model.base_model(input_ids=probe, use_cache=False), "last_hidden_state", None)
        if hidden is None:  # A model that is its own base.
            return False
        return torch.equal(head(hidden), self.model(input_ids=probe, use_cache=False).logits)

    def _features(self, **inputs: object) -> Tensor:
        """What :meth:`_logits` maps to logits, ``[batch, tokens, hidden or vocabulary]``."""
        if self._plain_head:
            return self.model.base_model(**inputs).last_hidden_state
        return self.model(**inputs).logits

    def _logits(self, features: Tensor) -> Tensor:
        return (self.model.get_output_embeddings()(features) if self._plain_head else features).float()

    def _check(self, sequences: Sequence[Sequence[int]], read: Sequence[int]) -> None:
        longest = max(read)
        if self.max_length is not None and longest > self.max_length:
            raise ValueError(
                f"a sequence of {longest} tokens is longer than the model's context of {self.max_length}; "
                "choose a recipe with shorter windows"
            )
        highest = max(max(sequence) for sequence in sequences)
        if highest >= self._vocabulary:
            raise ValueError(
                f"token {highest} is outside the model's vocabulary of {self._vocabulary}; "
                "the tokenizer belongs to another model"
            )

    def _check_wants(self, requests: Sequence[ScoreRequest]) -> None:
        for want in {request.want for request in requests}:
            if isinstance(want, TopK) and want.k > self._vocabulary:
                raise ValueError(
                    f"the vocabulary has {self._vocabulary} tokens, not {want.k}; ask for fewer of the top"
                )
            if isinstance(want, Candidates) and max(want.tokens) >= self._vocabulary:
                raise ValueError(
                    f"candidate {max(want.tokens)} is outside the model's vocabulary of {self._vocabulary}; "
                    "the tokenizer belongs to another model"
                )

    def _prefill(self, prefix: Sequence[int]) -> Cache | None:
        if not prefix:
            return None
        cache = DynamicCache(config=self.model.config)
        ids = torch.tensor([prefix], device=self.model.device)
        self.model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        return cache

    def _batches(self, lengths: Sequence[int], *, equal: bool = False) -> Iterator[list[int]]:
        """Indices, longest first, so that a batch that is too large for memory fails at once.

        With ``equal`` a batch holds sequences of one length only.
        """
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        while order:
            longest = lengths[order[0]]
            count = max(1, self._batch_tokens // max(1, longest))
            if equal:
                count = min(count, sum(lengths[i] == longest for i in order))
            yield order[:count]
            del order[:count]

    def _padded(self, rows: Sequence[Sequence[int]]) -> Tensor:
        longest = max(len(row) for row in rows)
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.model.device)

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        """See :meth:`quantsuite.engine.Engine.score`.

        Raises:
            ValueError: if a sequence is longer than the context, has a token outside the vocabulary, or more is
                wanted than the vocabulary has.
        """
        if not requests:
            return
        self._check([request.tokens for request in requests], [len(request.tokens) - 1 for request in requests])
        self._check_wants(requests)
        yield from in_one_part(self._parts(requests), requests)

    def _parts(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        """Results in parts, request by request."""
        sequences = [request.tokens for request in requests]
        shared = shared_prefix(sequences, min(request.first for request in requests) - 1)
        prefix = self._prefill(sequences[0][:shared])
        tails = [sequence[shared:-1] for sequence in sequences]
        for batch in self._batches([len(tail) for tail in tails]):
            cache = copy.deepcopy(prefix)
            if cache is not None:
                cache.batch_repeat_interleave(len(batch))
            # Causal attention never looks at padding on the right, so that no mask is needed.
            features = self._features(
                input_ids=self._padded([tails[i] for i in batch]),
                past_key_values=cache,
                use_cache=cache is not None,
            )
            wanted = [
                (row, i, position)
                for row, i in enumerate(batch)
                for position in range(requests[i].first, len(sequences[i]))
            ]
            chunk = max(1, LOGIT_ELEMENTS // self._vocabulary)
            for begin in range(0, len(wanted), chunk):
                for i, first, rows in self._rows(features, wanted[begin : begin + chunk], shared):
                    yield answer(i, requests[i], first, rows)

    def _rows(
        self, features: Tensor, wanted: Sequence[tuple[int, int, int]], shared: int
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Of ``(row, request, position)`` the request, first position and distributions of neighbours together."""
        rows = torch.tensor([row for row, _, _ in wanted], device=features.device)
        columns = torch.tensor([position - 1 - shared for _, _, position in wanted], device=features.device)
        log_probs = torch.log_softmax(self._logits(features[rows, columns]), dim=-1)
        begin = 0
        for end in range(1, len(wanted) + 1):
            if end == len(wanted) or wanted[end][1] != wanted[begin][1]:
                _, request, position = wanted[begin]
                yield request, position, log_probs[begin:end]
                begin = end

    @torch.inference_mode()
    def generate(self, requests: Sequence[GenerateRequest]) -> list[list[int]]:
        """See :meth:`quantsuite.engine.Engine.generate`.

        Raises:
            ValueError: if a sequence with its new tokens is longer than the context, has a token outside the
                vocabulary, stop strings are asked for without a tokenizer, or logits are NaN or infinite.
        """
        if not requests:
            return []
        sequences = [request.tokens for request in requests]
        self._check(sequences, [len(request.tokens) + request.max_new_tokens - 1 for request in requests])
        if self._tokenizer is None and any(request.stop_strings for request in requests):
            raise ValueError("stop strings need a tokenizer, and this engine has none; stop at stop_tokens instead")
        shared = shared_prefix(sequences, min(map(len, sequences)) - 1)
        prefix = self._prefill(sequences[0][:shared])
        tails = [sequence[shared:] for sequence in sequences]
        new: list[list[int]] = [[] for _ in sequences]
        for batch in self._batches([len(tail) for tail in tails], equal=self._slides):
            cache = copy.deepcopy(prefix)
            if cache is None:
                cache = DynamicCache(config=self.model.config)
            else:
                cache.batch_repeat_interleave(len(batch))
            self._decode(
                [requests[i] for i in batch], [tails[i] for i in batch], [new[i] for i in batch], cache, shared
            )
        return new

    def _decode(
        self,
        requests: Sequence[GenerateRequest],
        tails: Sequence[Sequence[int]],
        new: Sequence[list[int]],
        cache: Cache,
        shared: int,
    ) -> None:
        """Prefill and decode one batch, appending to ``new``; finished rows leave the batch."""
        device = self.model.device
        lengths = torch.tensor([len(tail) for tail in tails], device=device)
        features = self._features(input_ids=self._padded(tails), past_key_values=cache, use_cache=True)
        features = features[torch.arange(len(tails), device=device), lengths - 1]
        mask = torch.arange(int(lengths.max()), device=device) < lengths.unsqueeze(1)
        mask = torch.cat([mask.new_ones(len(tails), shared), mask], dim=1)
        active = list(range(len(tails)))
        for step in itertools.count():
            highest, tokens = self._logits(features).max(-1)
            if not highest.isfinite().all():  # A maximum takes on any NaN.
                raise ValueError(f"no likeliest token after {step} new ones; the model's logits are NaN or infinite")
            for row, token in zip(active, tokens.tolist(), strict=True):
                new[row].append(token)
            kept = [place for place, row in enumerate(active) if not self._ended(requests[row], new[row])]
            if not kept:
                return
            index = torch.tensor(kept, device=device)
            active, tokens, lengths = [active[place] for place in kept], tokens[index], lengths[index]
            cache.batch_select_indices(index)
            mask = torch.cat([mask[index], mask.new_ones(len(kept), 1)], dim=1)
            features = self._features(
                input_ids=tokens.unsqueeze(1),
                attention_mask=mask.long(),
                position_ids=(shared + lengths + step).unsqueeze(1),
                past_key_values=cache,
                use_cache=True,
            )[:, -1]

    def _ended(self, request: GenerateRequest, new: Sequence[int]) -> bool:
        last = new[-1]
        if len(new) == request.max_new_tokens or last in self._ends or last in request.stop_tokens:
            return True
        if not request.stop_strings or self._tokenizer is None:
            return False
        text = self._tokenizer.decode(new)
        return any(stop in text for stop in request.stop_strings)
