"""One writer of a file at a time, among threads, processes, and machines that share a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from filelock import lock_descriptor

TIMEOUT = 60.0
"""Seconds to wait for another writer, which holds the file for as long as it takes to add a line."""
POLL = 0.005


@contextmanager
def locked(path: Path, timeout: float = TIMEOUT) -> Iterator[FileIO]:
    """The file, made if it is missing, open for reading and writing; no other holds it at the same time.

    The lock is the system's, on the open file, so that it ends with a process that is killed.

    Raises:
        TimeoutError: if another writer holds it for longer than ``timeout`` seconds.
        OSError: if it cannot be opened, or its file system has no locks.
    """
    deadline = time.monotonic() + timeout
    while (file := _try_to_lock(path)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"another run has held it for {timeout:g} s")
        time.sleep(POLL)
    with file:
        yield file


def _try_to_lock(path: Path) -> FileIO | None:
    """The open and locked file, or ``None`` if another holds it, or moved it away in between."""
    file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
    try:
        if lock_descriptor(file.fileno(), blocking=False) and _is_named(file, path):
            return file
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _is_named(file: FileIO, path: Path) -> bool:
    """Whether the open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
