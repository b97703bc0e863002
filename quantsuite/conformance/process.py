"""A process of a kernel, seen from the run: one request at a time, its answer within a limit, its end.

The kernel's output is read while an answer is awaited, and only its end is kept; what it prints can neither block
it nor grow here.
"""

from __future__ import annotations

import math
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quantsuite.conformance.messages import Answer, Request

KEPT_OUTPUT = 8_192
LONGEST_ANSWER = 2**24
CHUNK = 2**16
"""What a pipe or a socket is read by; as much as a pipe holds."""
POLL, LAST_WORDS, START = 0.1, 5.0, 300.0
"""Seconds between two looks whether the process lives, for one that closed its connection to end, and for its start."""

MARK = "QUANTSUITE_CONTESTANT"
"""The environment variable by which processes are found that a kernel started in sessions of their own."""
_START = "import sys; sys.path[:] = sys.argv[3:]; from quantsuite.conformance.child import main; main()"


class ProcessLost(pytest.fail.Exception, ChildProcessError):
    """A kernel's process died; reported as one line."""


class NoAnswer(pytest.fail.Exception, TimeoutError):
    """A kernel's process gave no answer in time; reported as one line."""


class KernelProcess:
    """A fresh interpreter with its own process group.

    Args:
        path: its ``sys.path``.
        folder: where it starts.
    """

    def __init__(self, *, path: Sequence[str], folder: str) -> None:
        self._connection, theirs = socket.socketpair()
        watched, self._lifeline = os.pipe()
        self._mark = secrets.token_hex(8)
        passed = theirs.fileno(), watched
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", _START, *map(str, passed), *path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            pass_fds=passed,
            start_new_session=True,
            env={**os.environ, MARK: self._mark},
        )
        theirs.close()
        os.close(watched)
        assert self._process.stdout is not None
        self._printed = self._process.stdout.fileno()
        for pipe in (self._connection.fileno(), self._printed):
            os.set_blocking(pipe, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._connection, selectors.EVENT_READ, self._read_answer)
        self._selector.register(self._printed, selectors.EVENT_READ, self._read_output)
        self._received = b""
        self._closed = False
        self._started = False
        self.ended = False
        self.output = b""

    def ask(self, request: Request, *, name: str, limit: float) -> Any:
        """The answer to a request; :attr:`output` is what was printed meanwhile.

        Args:
            request: what is asked.
            name: what the process is called in errors.
            limit: seconds to wait, 0 for as long as it takes.

        Raises:
            NoAnswer: if none came within the limit; the process has been ended.
            ProcessLost: if the process ended, or closed its connection.
        """
        __tracebackhide__ = True
        self.output = b""
        try:
            if not self._started:
                self._line(name, START, "its start")  # whose imports are not the kernel's
                self._started = True
            word = secrets.token_hex(8).encode()
            self._send(word, request)
            heading, _, answer = self._line(name, limit, "--check-timeout").partition(b" ")
            if heading != word:
                raise msgspec.DecodeError("an answer to no request")
            return msgspec.json.decode(answer, type=Answer)
        except msgspec.MsgspecError as error:
            self.end()
            raise ProcessLost(f"{name}: its process sent what is no answer; it was ended", pytrace=False) from error
        except BaseException:
            self.end()
            raise

    def _send(self, word: bytes, request: Request) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # of one that has ended reading shows how
            self._connection.sendall(word + b" " + msgspec.json.encode(request) + b"\n")

    def _line(self, name: str, limit: float, whose: str) -> bytes:
        __tracebackhide__ = True
        deadline = time.monotonic() + limit if limit else math.inf
        while b"\n" not in self._received and len(self._received) < LONGEST_ANSWER:
            ended = self._process.poll() is not None
            left = deadline - time.monotonic()
            if left <= 0:
                raise NoAnswer(f"{name}: no answer within {limit:g} s ({whose}); the process was ended", pytrace=False)
            ready = self._selector.select(0 if ended else min(POLL, left))
            for key, _ in ready:
                key.data()
            if self._closed or (ended and not any(key.fileobj is self._connection for key, _ in ready)):
                raise ProcessLost(f"{name}: {self._describe_end()}", pytrace=False)
        self._read_output()
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _read_answer(self) -> None:
        with suppress(BlockingIOError):
            try:
                chunk = self._connection.recv(CHUNK)
            except ConnectionResetError:
                chunk = b""
            self._received += chunk
            self._closed = not chunk

    def _read_output(self) -> None:
        """Read what was printed, at most as much as the pipe held when the answer came."""
        with suppress(BlockingIOError, OSError):
            chunk = os.read(self._printed, CHUNK)
            self.output = (self.output + chunk)[-KEPT_OUTPUT:]
            if not chunk and self._printed in self._selector.get_map():
                self._selector.unregister(self._printed)

    def _describe_end(self) -> str:
        try:
            code = self._process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            return "its process closed its connection; it was ended"
        finally:
            self._read_output()
        if code >= 0:
            return f"its process exited with code {code}"
        names = {member.value: member.name for member in signal.Signals}
        return f"its process was ended by {names.get(-code, f'signal {-code}')}"

    def end(self) -> None:
        """Kill the process and its group, and close what is open here to it."""
        if self.ended:
            return
        self.ended = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LAST_WORDS)
        _kill_marked(self._mark)
        self._selector.close()
        self._connection.close()
        os.close(self._lifeline)
        assert self._process.stdout is not None
        self._process.stdout.close()


def _kill_marked(mark: str) -> None:
    """Kill what still runs with a mark in its environment, where the system shows environments as files."""
    entry = f"{MARK}={mark}".encode()
    for place in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if entry in place.read_bytes().split(b"\0"):
                os.kill(int(place.parent.name), signal.SIGKILL)
