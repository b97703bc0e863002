"""The README's picture of the rooms is the one that the import contracts hold."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import quantsuite

PACKAGE = Path(quantsuite.__file__).parent
ROOT = PACKAGE.parent
README = (ROOT / "README.md").read_text()
PICTURE = README[README.index("| room | modules") : README.index("| you bring |")]
NAMED = re.findall(r"`(\w+)`", "".join(row.split("|")[2] for row in PICTURE.splitlines()[2:] if row))


def test_rooms_stand_in_the_order_in_which_they_import_each_other() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["name"] == "Layers")
    place = {name.strip(): rank for rank, layer in enumerate(layers) for name in layer.split("|")}
    ranks = [place[f"quantsuite.{name}"] for name in NAMED]
    assert ranks == sorted(ranks)


def test_every_module_has_a_room() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert sorted([*NAMED, "__init__", "strategies"]) == sorted(modules)


def test_what_one_brings_has_a_place() -> None:
    for place in re.findall(r"`quantsuite/(\w+)/", README[README.index("| you bring |") :]):
        assert (PACKAGE / place).is_dir()
