"""Kernels that misuse their process, and the processes that they leave."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LIMIT = 2
"""Seconds that a check may take."""

KERNEL = """
import contextlib, ctypes, os, signal, sys, time

import torch


class Odd(RuntimeError):
    pass


def write_forever():
    write, line = ctypes.CDLL(None).write, b"x" * 999 + b"\\n"
    while True:
        write(1, line, len(line))


def forge():
    for descriptor in range(3, 100):
        with contextlib.suppress(OSError):
            os.write(descriptor, b'{"type": "Held", "tightness": 0.25, "details": {}}\\n')


class Kernel:
    operation, schemes, dtypes = "quantize", ("int8-row",), ("float32",)

    def __init__(self, name, on_zeros):
        self.name, self.on_zeros = name, on_zeros

    def quantize(self, x, operand):
        if not x.any():
            found = self.on_zeros(x)
            if found is not x:
                return found
        scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=2.0**-126)
        return (x / scale).round().clamp(-127, 127) * scale
"""


def running_in(folder: Path) -> list[str]:
    """The processes that were started in a folder and still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")) == folder:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())
