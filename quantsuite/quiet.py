"""Silence around libraries that speak while they are imported or load something."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(highest: int = logging.WARNING) -> Iterator[None]:
    """No warnings, and no log records up to a level, inside the block; as it was, after it."""
    level = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(level, highest))
        try:
            yield
        finally:
            logging.disable(level)
