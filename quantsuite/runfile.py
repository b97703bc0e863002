"""Writing run files: several runs may write one at once, and whatever fails leaves a whole file."""

from __future__ import annotations

import errno
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from quantsuite.locking import locked
from quantsuite.merging import lost
from quantsuite.reading import ContentError, decode_run, read_bytes
from quantsuite.records import ErrorPoint, PropertyResult, Record, RecordError, Run

Signature = tuple[int, int, int, int]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunFile:
    """A run file that other runs may write at the same time.

    Measured records that a write leaves out are first written to one file beside it, named by the time, which holds
    all that this object ever left out.

    Args:
        path: of the run file; its folder is made if it is missing.
        move_unreadable: move a file that cannot be read aside, as it is, instead of refusing to write.
        option: what a user chooses the path with, for messages.
    """

    def __init__(self, path: Path, *, move_unreadable: bool = False, option: str = "--output") -> None:
        self.path = path
        self._target = path.resolve()
        self._move_unreadable, self._option = move_unreadable, option
        self._known: tuple[Signature, Run] | None = None
        self._left_out: dict[tuple[object, ...], Record] = {}
        self._left_out_path: Path | None = None
        self._moved: list[Path] = []

    @property
    def set_aside(self) -> list[Path]:
        """The files beside the run file that hold what this object replaced."""
        return self._moved + ([self._left_out_path] if self._left_out_path else [])

    def update(self, change: Callable[[Run], Run]) -> None:
        """Replace what the file holds now, or an empty run, by what ``change`` makes of it.

        When this returns the new file is on disk; if it raises, the old one is as it was.

        Raises:
            RecordError: if the file cannot be written, or cannot be read.
        """
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            with locked(self._target):
                self._remove_temporaries()
                before = self._read()
                after = change(before)
                self._keep(lost(before, after))
                self._known = self._replace(self._target, after), after
        except OSError as error:
            raise RecordError(f"cannot write {self.path}: {error.strerror or error}; {self._way_out(error)}") from error

    def check_writable(self) -> None:
        """Write beside the file, and remove it again.

        Raises:
            RecordError: if that fails, or the path is a folder.
        """
        try:
            if self._target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._target.parent):
                pass
        except OSError as error:
            raise RecordError(f"cannot write {self.path}: {error.strerror}; {self._way_out(error)}") from error

    def _way_out(self, error: OSError) -> str:
        if error.errno in _FULL:
            return f"make room, or choose another place with {self._option}"
        if isinstance(error, TimeoutError):
            return f"end that run, or choose another file with {self._option}"
        return f"choose another place with {self._option}"

    def _read(self) -> Run:
        try:
            signature = _signature(self._target.stat())
        except FileNotFoundError:
            return Run()
        if self._known is not None and self._known[0] == signature:
            return self._known[1]
        data = read_bytes(self.path, purpose="output")
        try:
            return decode_run(self.path, data, purpose="output")
        except ContentError:
            if not self._move_unreadable:
                raise
        self._moved.append(self._unused_name())
        os.replace(self._target, self._moved[-1])
        return Run()

    def _keep(self, records: Sequence[Record]) -> None:
        """Add records to the file beside, before the run file lacks them."""
        added = {record.identity: record for record in records}
        if added.items() <= self._left_out.items():
            return
        path = self._left_out_path or self._unused_name()
        self._replace(path, Run(records=[*(self._left_out | added).values()]))
        self._left_out |= added
        self._left_out_path = path

    def _unused_name(self) -> Path:
        """A name beside the file that says the time; the lock is held, so that no other run takes it."""
        stem = f"{self._target.stem}-{datetime.now():%Y%m%dT%H%M%S}"
        path, count = self._target.with_stem(stem), 1
        while path.exists():
            count += 1
            path = self._target.with_stem(f"{stem}-{count}")
        return path

    def _replace(self, path: Path, run: Run) -> Signature:
        """Write a file under a temporary name and give it its own once it is whole on disk."""
        temporary = self._target.with_name(f".{self._target.name}.{secrets.token_hex(8)}.partial")
        try:
            with temporary.open("xb") as file:
                file.write(msgspec.json.encode(run) + b"\n")
                file.flush()
                os.fsync(file.fileno())
                signature = _signature(os.fstat(file.fileno()))
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        return signature

    def _remove_temporaries(self) -> None:
        """Those of writers that were killed: the lock is held, so that nobody writes any."""
        name = re.compile(rf"\.{re.escape(self._target.name)}\.[0-9a-f]{{16}}\.partial")
        for path in self._target.parent.iterdir():
            if name.fullmatch(path.name):
                with suppress(OSError):
                    path.unlink()


def _signature(status: os.stat_result) -> Signature:
    """Changes with every write: a new file has another inode, one that was edited another time or size."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def write_run(
    path: Path,
    records: Sequence[Record] = (),
    *,
    properties: Sequence[PropertyResult] = (),
    errors: Sequence[ErrorPoint] = (),
) -> None:
    """Write a run file of these and nothing else; measured records that it held are set aside.

    Raises:
        RecordError: as :meth:`RunFile.update`.
    """
    run = Run(records=list(records), properties=list(properties), errors=list(errors))
    RunFile(path, move_unreadable=True).update(lambda before: run)
