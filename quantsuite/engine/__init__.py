"""What an engine is to the suite."""

from quantsuite.engine.protocol import Engine, Scores

__all__ = ["Engine", "Scores"]
