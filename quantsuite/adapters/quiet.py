"""Silence around transformers, whose progress bars and warnings go to stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

from quantsuite.quiet import quiet


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, warnings or log records below errors inside the block; as it was, after it."""
    bars = transformers_logging.is_progress_bar_enabled()
    with quiet():
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            if bars:
                transformers_logging.enable_progress_bar()
