"""The embedded model: a small Qwen3 trained on an invented world, so that all runs offline, at once."""

from pathlib import Path

EMBEDDED = ("tiny", "tiny-outliers")


def embedded_folder() -> Path:
    """Where the embedded checkpoint and its tokenizer are."""
    return Path(__file__).parent / "model"


def embedded_baseline(model: str) -> Path | None:
    """The reviewed run file of an embedded model, or ``None`` if it has none."""
    path = Path(__file__).parent / "baselines" / f"{model}.jsonl"
    return path if model in EMBEDDED and path.exists() else None
