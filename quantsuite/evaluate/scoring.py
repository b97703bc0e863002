"""Results of an engine, each request answered once and whole, scored or continued."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from quantsuite.engine import Engine, GenerateRequest, Rows, ScoreRequest, ScoreResult


def not_finite(engine: str, request: int, first: int) -> ValueError:
    """What is raised of log-probabilities that are NaN or infinite."""
    return ValueError(
        f"the engine {engine} gives log-probabilities of request {request} from position {first} on that are NaN or "
        "infinite; the weights, the quantization or what multiplies is at fault"
    )


def check_precision(engine: str, result: ScoreResult) -> None:
    """Refuse log-probabilities in fewer bits than float32, whose rounding is larger than what is measured.

    Raises:
        ValueError: naming the engine and the dtype.
    """
    if (dtype := result.log_probs.dtype) not in (torch.float32, torch.float64):
        raise ValueError(f"the engine {engine} gives log-probabilities in {dtype}; its score() must give float32")


def answers(engine: Engine, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
    """The result of each request as it comes, in the engine's order; none may want rows.

    Raises:
        ValueError: if the engine answers a request in part, twice, or not at all, or by what is not finite.
    """
    if any(isinstance(request.want, Rows) for request in requests):
        raise ValueError("rows come in parts; take them of Engine.score itself")
    open_requests = set(range(len(requests)))
    for result in engine.score(requests):
        number = result.request
        if number not in open_requests:
            raise ValueError(
                f"the engine {engine.name} answers request {number} of {len(requests)}, which is answered already or "
                "was never asked; its score() must answer each once"
            )
        request = requests[number]
        if (result.first, len(result.log_probs)) != (request.first, request.positions):
            raise ValueError(
                f"the engine {engine.name} answers request {number} with {len(result.log_probs)} positions from "
                f"{result.first}, not {request.positions} from {request.first}; its score() must give all in one result"
            )
        check_precision(engine.name, result)
        if not result.log_probs.isfinite().all():
            raise not_finite(engine.name, number, result.first)
        open_requests.remove(number)
        yield result
    if open_requests:
        raise ValueError(
            f"the engine {engine.name} left {len(open_requests)} of {len(requests)} requests unscored, first "
            f"{min(open_requests)}; its score() must answer all"
        )


def continuations(engine: Engine, requests: Sequence[GenerateRequest]) -> list[list[int]]:
    """What an engine generates for each request.

    Raises:
        ValueError: if it does not answer each, with tokens, and no more of them than were asked for.
    """
    found = engine.generate(requests)
    if len(found) != len(requests):
        raise ValueError(
            f"the engine {engine.name} gives {len(found)} continuations of {len(requests)} requests; its generate() "
            "must answer each once, in their order"
        )
    for number, (tokens, request) in enumerate(zip(found, requests, strict=True)):
        if not all(isinstance(token, int) and token >= 0 for token in tokens):
            raise ValueError(f"the engine {engine.name} continues request {number} by {tokens!r}, which are no tokens")
        if len(tokens) > request.max_new_tokens:
            raise ValueError(
                f"the engine {engine.name} continues request {number} by {len(tokens)} tokens, more than "
                f"{request.max_new_tokens}; its generate() must stop at max_new_tokens"
            )
    return found
