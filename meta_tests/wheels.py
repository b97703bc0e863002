"""A wheel of the package, and pytest in folders that know nothing but what it installs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    source = folder / "source"
    ignored = shutil.ignore_patterns(".*", "reports", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, site: Path) -> Path:
    """A folder that holds what a wheel installs."""
    command = ["install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True, capture_output=True, text=True)
    return site


def run_python(folder: Path, *arguments: str, path: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    """``python -m`` in a folder, with the packages of ``path`` before every other."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "COLUMNS": "80", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=600)
