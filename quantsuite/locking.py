"""One writer of a file at a time, among threads, processes, and machines that share a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor

TIMEOUT = 60.0
"""Seconds to wait for another writer, which holds the lock for as long as it takes to write the file once."""
POLL = 0.005


@contextmanager
def locked(path: Path, timeout: float = TIMEOUT) -> Iterator[None]:
    """Hold the lock of a file: ``.NAME.lock`` beside it, which is removed as the lock is released.

    The lock is the system's, on the open file, so it ends with a process that is killed; the file that is then left is
    locked, and removed, by the next writer.

    Raises:
        TimeoutError: if another writer holds it for longer than ``timeout`` seconds.
        OSError: if the folder cannot be written, or its file system has no locks.
    """
    lock = path.with_name(f".{path.name}.lock")
    deadline = time.monotonic() + timeout
    while (descriptor := _try_to_lock(lock)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"another run has held {lock} for {timeout:g} s")
        time.sleep(POLL)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _try_to_lock(lock: Path) -> int | None:
    """The open and locked file, or ``None`` if another holds it or removed it in between."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if lock_descriptor(descriptor, blocking=False) and _is_named(descriptor, lock):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at its path: who unlinks a lock leaves others a nameless file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
