"""What an engine is to the suite, and opening one by name."""

from quantsuite.engine.backend import Backend, OpensBackends
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
from quantsuite.engine.registry import open_backend, open_engine
from quantsuite.engine.wants import answer

__all__ = [
    "Backend",
    "Candidates",
    "Engine",
    "GenerateRequest",
    "OpensBackends",
    "Rows",
    "ScoreRequest",
    "ScoreResult",
    "Targets",
    "TopK",
    "Want",
    "answer",
    "open_backend",
    "open_engine",
]
