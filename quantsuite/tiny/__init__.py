"""The embedded model: a small Qwen3 trained on an invented world, so that all runs offline, at once."""

from pathlib import Path

EMBEDDED = ("tiny", "tiny-outliers")


def embedded_folder() -> Path:
    """Where the embedded checkpoint and its tokenizer are."""
    return Path(__file__).parent / "model"
