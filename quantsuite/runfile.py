"""Writing run files: results are appended, by several runs at once; an append that fails leaves the file as it was."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from io import FileIO
from pathlib import Path

import msgspec

from quantsuite.lines import encode_line
from quantsuite.locking import locked
from quantsuite.reading import ContentError, Header, decode_lines, read_bytes, without_unfinished_line
from quantsuite.records import SCHEMA_VERSION, ErrorPoint, PropertyResult, Record, RecordError, Result, Run

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HEADER = msgspec.json.encode(Header(SCHEMA_VERSION)) + b"\n"


class RunFile:
    """A run file that other runs may write at the same time.

    Args:
        path: of the run file; its folder is made if it is missing.
        move_unreadable: move a file that cannot be read aside, as it is, instead of refusing to write.
        option: what a user chooses the path with, for messages.
    """

    def __init__(self, path: Path, *, move_unreadable: bool = False, option: str = "--output") -> None:
        self.path = path
        self.moved: list[Path] = []
        """Files that could not be read, where they are now."""
        self._target = path.resolve()
        self._move_unreadable, self._option = move_unreadable, option
        self._known = b""
        self._held: dict[object, Result] = {}

    def append(self, results: Iterable[Result]) -> None:
        """Add the results that the file does not hold already; when this returns they are on disk.

        If it raises, the file is as it was.

        Raises:
            RecordError: if the file cannot be written, or cannot be read.
        """
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            if self._target.exists():
                read_bytes(self.path, purpose="output")
            while not self._append([*results]):
                pass
        except OSError as error:
            raise RecordError(f"cannot write {self.path}: {error.strerror or error}; {self._way_out(error)}") from error

    def check_writable(self) -> None:
        """Open the file, or write beside it and remove that again.

        Raises:
            RecordError: if that fails, or the path is a folder.
        """
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            if self._target.exists():
                self._target.open("r+b").close()
            else:
                tempfile.TemporaryFile(dir=self._target.parent).close()
        except OSError as error:
            raise RecordError(f"cannot write {self.path}: {error.strerror}; {self._way_out(error)}") from error

    def _way_out(self, error: OSError) -> str:
        if error.errno in _FULL:
            return f"make room, or choose another place with {self._option}"
        if isinstance(error, TimeoutError):
            return f"end that run, or choose another file with {self._option}"
        return f"choose another place with {self._option}"

    def _append(self, results: Sequence[Result]) -> bool:
        """Whether they were added; not if what was there had to be moved aside first."""
        with locked(self._target) as file:
            try:
                end = self._catch_up(file)
            except ContentError:
                if not self._move_unreadable:
                    raise
                self._move_aside()
                return False
            added = Run.of(result for result in results if self._held.get(_key(result)) != result).results
            lines = b"".join(encode_line(result) + b"\n" for result in added)
            if not end:
                lines = HEADER + lines
            elif lines and not self._known.endswith(b"\n"):
                lines = b"\n" + lines
            self._write(file, end, lines)
            self._known += lines
            self._held |= {_key(result): result for result in added}
        return True

    def _catch_up(self, file: FileIO) -> int:
        """Read what was added since this object last did; where the last whole line ends.

        Raises:
            ContentError: if it is no run file.
        """
        data = without_unfinished_line(file.readall())
        if not data.startswith(self._known):  # It was moved aside or edited.
            self._known, self._held = b"", {}
        if data:
            found = decode_lines(self.path, data, purpose="output", known=self._known.count(b"\n"))
            self._held |= {_key(result): result for result in found}
        self._known = data
        return len(data)

    def _write(self, file: FileIO, end: int, lines: bytes) -> None:
        """Write lines after the last whole one, in place of what a writer that was killed left there."""
        rest = memoryview(lines)
        try:
            file.truncate(end)
            file.seek(end)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                file.truncate(end)
                if not end:
                    self._target.unlink()
            raise

    def _move_aside(self) -> None:
        """Give the file a name beside it that says the time; the lock is held, so that no other run takes it."""
        stem = f"{self._target.stem}-{datetime.now():%Y%m%dT%H%M%S}"
        path, count = self._target.with_stem(stem), 1
        while path.exists():
            count += 1
            path = self._target.with_stem(f"{stem}-{count}")
        os.replace(self._target, path)
        self.moved.append(path)


def _key(result: Result) -> tuple[object, ...]:
    return type(result), *result.key


def write_run(
    path: Path,
    records: Sequence[Record] = (),
    *,
    properties: Sequence[PropertyResult] = (),
    errors: Sequence[ErrorPoint] = (),
) -> None:
    """A new run file of these.

    Raises:
        RecordError: if there is such a file already, and as :meth:`RunFile.append`.
    """
    if path.exists():
        raise RecordError(f"{path} exists; name a new file")
    RunFile(path).append([*records, *properties, *errors])
