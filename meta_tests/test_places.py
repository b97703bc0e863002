"""Files of a user's own are loaded as they stand, whatever was loaded before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from quantsuite import places
from quantsuite.kernels.loading import load as load_kernels
from quantsuite.methods import load as load_method
from quantsuite.metrics import metric, registry
from quantsuite.metrics.match_rate import MATCH_RATE

METHOD = "name, needs = {!r}, 'weights'\ndef plan(*args, **options): ...\n"


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        ("a.py", ("a.py", "")),
        ("a.py:B", ("a.py", "B")),
        ("C:/a.py", ("C:/a.py", "")),
        ("a.b", ("a.b", "")),
        ("a.b:C", ("a.b", "C")),
    ],
)
def test_a_place_is_a_file_or_module_and_a_name_in_it(place: str, parts: tuple[str, str]) -> None:
    assert places.split(place) == parts


def test_a_file_that_did_not_change_is_one_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text("value = 1")
    monkeypatch.chdir(tmp_path)
    assert places.load_module("own.py") is places.load_module(str(tmp_path / "own.py"))


def test_files_of_one_stem_are_two_modules_that_stay(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.py").write_text("value = 1")
    found = [places.load_module(str(tmp_path / name / "own.py")) for name in ("one", "other")]
    assert found[0] is not found[1] and all(sys.modules[module.__name__] is module for module in found)


def test_a_module_that_fails_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        places.load_module(str(tmp_path / "failing.py"))
    assert not any(name.startswith("failing") for name in sys.modules)


def test_a_method_of_another_working_directory_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.py").write_text(METHOD.format(name))
        monkeypatch.chdir(tmp_path / name)
        assert load_method("own.py").name == name


def test_a_method_that_was_edited_is_loaded_anew(tmp_path: Path) -> None:
    for name in ("abc", "xyz"):
        (tmp_path / "own.py").write_text(METHOD.format(name))
        assert load_method(str(tmp_path / "own.py")).name == name


def test_a_kernel_that_was_edited_is_loaded_anew(tmp_path: Path) -> None:
    for name in ("abc", "xyz"):
        text = (
            f"from quantsuite.kernels.ours import KERNELS as K\nimport copy\nk = copy.copy(K[0])\nk.name = {name!r}\n"
        )
        (tmp_path / "own.py").write_text(text)
        assert load_kernels(f"{tmp_path}/own.py:k").kernels[0].name == name


def test_a_metric_that_was_edited_takes_the_place_of_the_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_OF_PLACES", {})
    for unit in ("abc", "xyz"):
        (tmp_path / "own.py").write_text(
            "from dataclasses import replace\nfrom quantsuite.metrics import metric\n"
            f"OWN = replace(metric({MATCH_RATE.name!r}), name='own', unit={unit!r})\n"
        )
        assert metric(str(tmp_path / "own.py")).unit == registry.named_metric("own").unit == unit
