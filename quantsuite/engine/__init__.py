"""What an engine is to the suite."""

from quantsuite.engine.protocol import (
    Candidates,
    Engine,
    GenerateRequest,
    Rows,
    ScoreRequest,
    ScoreResult,
    Targets,
    TopK,
    Want,
)

__all__ = [
    "Candidates",
    "Engine",
    "GenerateRequest",
    "Rows",
    "ScoreRequest",
    "ScoreResult",
    "Targets",
    "TopK",
    "Want",
]
