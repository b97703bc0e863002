"""Python of a user's own by its place: ``file.py``, ``file.py:NAME``, ``package.module``, ``package.module:NAME``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def split(place: str) -> tuple[str, str]:
    """The file or module of a place, and the name in it; that is empty if there is none."""
    if place.endswith(".py"):
        return place, ""
    module, colon, name = place.rpartition(":")
    return (module, name) if colon else (place, "")


def is_missing(module: str) -> bool:
    """Whether it is a file that is not there."""
    return module.endswith(".py") and not Path(module).is_file()


def load_module(module: str) -> ModuleType:
    """A module by its name, or by the path of its file.

    A file that was loaded before is the same module for as long as it stays the same; one that was edited is another.

    Raises:
        BaseException: what the module raises while it is imported, which is then forgotten.
        OSError: if a file cannot be read.
    """
    return _of_file(Path(module).resolve()) if module.endswith(".py") else importlib.import_module(module)


def _of_file(path: Path) -> ModuleType:
    source = path.read_bytes()
    name = f"{path.stem}_{hashlib.sha256(bytes(path) + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        # The loader would take bytecode of an earlier text that is as long and of the same second.
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def public_names(module: ModuleType) -> str:
    """What a module has, for messages."""
    return ", ".join(name for name in vars(module) if not name.startswith("_"))
