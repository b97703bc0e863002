"""The process in which a kernel is loaded and checked: it answers requests until its parent closes or is gone."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import torch

from quantsuite.checks import CHECKS, CheckFailure, NotApplicable, NotSupported, property_name
from quantsuite.checks.drawing import load_examples
from quantsuite.conformance.cases import CheckCase
from quantsuite.conformance.declared import declared
from quantsuite.conformance.explanation import own_frames
from quantsuite.conformance.messages import (
    Answer,
    Broken,
    CheckRequest,
    Declaration,
    Held,
    Loaded,
    LoadRequest,
    Missing,
    NotLoaded,
    NotRun,
    Raised,
    Request,
)
from quantsuite.kernels.loading import load
from quantsuite.kernels.operations import OPERATIONS
from quantsuite.kernels.protocol import dtypes
from quantsuite.kernels.validation import KernelError

F_SETSIG = 10
"""Of Linux's fcntl, which Python does not name: the signal that O_ASYNC sends."""
MESSAGE_LENGTH, TRACEBACK_LENGTH = 20_000, 8_000


class Subject:
    """The kernels of one location, and the answers to what is asked of them."""

    def __init__(self) -> None:
        self._kernels: list[Any] = []
        self._answers: dict[type[Request], Callable[[Any], Answer]] = {
            LoadRequest: self._load,
            CheckRequest: self._check,
        }

    def answer(self, request: Request) -> Answer:
        return self._answers[type(request)](request)

    def _load(self, request: LoadRequest) -> Answer:
        try:
            source = load(request.location)
            self._kernels = list(source.kernels)
            declared = [_declaration(kernel) for kernel in self._kernels]
        except KernelError as error:
            return NotLoaded(reason=_one_line(str(error)))
        except BaseException as error:
            return _not_loaded(request.location, error)
        return Loaded(kernels=declared) if source.missing is None else Missing(reason=source.missing)

    def _check(self, request: CheckRequest) -> Answer:
        kernel = self._kernels[request.place]
        check = next(check for check in CHECKS[kernel.operation] if property_name(check) == request.property)
        case = CheckCase(
            kernel=kernel,
            subject=OPERATIONS[kernel.operation].parse(request.scheme),
            check=check,
            device=request.device,
            dtype=getattr(torch, request.dtype),
            seed=request.seed,
        )
        load_examples(request.examples)
        try:
            measured = case.run()
        except NotApplicable as error:
            return NotRun(finding="not applicable", reason=str(error))
        except NotSupported as error:
            return NotRun(finding="not supported", reason=str(error))
        except CheckFailure as error:
            return Broken(message=str(error))
        except BaseException as error:
            return _raised(error)
        return Held(tightness=measured.tightness, details=measured.details)


def _declaration(kernel: Any) -> Declaration:
    return Declaration(
        name=kernel.name,
        operation=kernel.operation,
        schemes=list(kernel.schemes),
        dtypes=[str(dtype).removeprefix("torch.") for dtype in dtypes(kernel)],
        declares=declared(kernel),
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MESSAGE_LENGTH]


def _described(error: BaseException) -> tuple[str, str]:
    """An exception's message and its traceback, whatever its ``__str__`` does."""
    summary = traceback.TracebackException(type(error), error, own_frames(error), compact=True)
    return str(summary), "".join(summary.format())[-TRACEBACK_LENGTH:]


def _not_loaded(location: str, error: BaseException) -> NotLoaded:
    message, text = _described(error)
    first = traceback.extract_tb(own_frames(error))[0]
    where = f"line {first.lineno} of {first.filename}"
    return NotLoaded(reason=_one_line(f"{location}: {type(error).__name__}: {message} ({where})"), traceback=text)


def _raised(error: BaseException) -> Raised:
    message, text = _described(error)
    mro = type(error).__mro__
    return Raised(
        module=type(error).__module__,
        name=type(error).__qualname__,
        builtins=[kind.__name__ for kind in mro if kind.__module__ == "builtins" and kind is not object],
        message=message[:MESSAGE_LENGTH],
        traceback=text,
    )


def serve(connection: socket.socket) -> None:
    """Send an empty line as the process is ready, then the answer to each request, behind the word that it began with.

    What a kernel or a fork of it writes to the socket is no answer without the word.
    """
    subject, process, requests = Subject(), os.getpid(), msgspec.json.Decoder(Request)
    with connection, connection.makefile("rb") as lines:
        connection.sendall(b"\n")
        for line in lines:
            word, _, request = line.partition(b" ")
            answer = subject.answer(requests.decode(request))
            if os.getpid() != process:
                os._exit(0)  # a fork that came back from the kernel would answer a second time
            connection.sendall(word + b" " + msgspec.json.encode(answer) + b"\n")


def end_with_parent(lifeline: int) -> None:
    """Let the kernel end this process group once the other end of a pipe is closed, whatever runs here then.

    The signal is SIGKILL, which a kernel can neither ignore nor handle.
    """
    fcntl.fcntl(lifeline, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        os._exit(0)


def main() -> None:
    """Serve on the socket and the lifeline whose file descriptors are the first arguments."""
    connection, lifeline = (int(number) for number in sys.argv[1:3])
    del sys.argv[1:]
    for descriptor in (connection, lifeline):
        os.set_inheritable(descriptor, False)
    end_with_parent(lifeline)
    faulthandler.enable()
    serve(socket.socket(fileno=connection))
    os._exit(0)
