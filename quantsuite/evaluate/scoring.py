"""Results of an engine, each request answered once and whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantsuite.engine import Engine, Rows, ScoreRequest, ScoreResult


def answers(engine: Engine, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
    """The result of each request as it comes, in the engine's order; none may want rows.

    Raises:
        ValueError: if the engine answers a request in part, twice, or not at all.
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
        open_requests.remove(number)
        yield result
    if open_requests:
        raise ValueError(
            f"the engine {engine.name} left {len(open_requests)} of {len(requests)} requests unscored, first "
            f"{min(open_requests)}; its score() must answer all"
        )
