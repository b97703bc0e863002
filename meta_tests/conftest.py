"""Checkpoints on disk and models in memory for tests of the suite itself."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from meta_tests.checkpoints import MIXTURES, PECULIAR, PLAIN, build_model, save_checkpoint
from meta_tests.layer_kernels import KERNELS
from meta_tests.layer_models import LayerModels
from meta_tests.wheels import build_wheel, install
from quantsuite.kernels.registry import register, unregister


@pytest.fixture(scope="session", params=PLAIN)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sharded random checkpoint, one architecture after the other."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoints") / request.param, PLAIN[request.param])


@pytest.fixture(scope="session")
def pristine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoints") / "pristine", PLAIN["qwen3-untied"])


@pytest.fixture
def damageable(pristine_folder: Path, tmp_path: Path) -> Path:
    """A copy of a sharded checkpoint that a test may damage."""
    return shutil.copytree(pristine_folder, tmp_path / "checkpoint")


@pytest.fixture(scope="session", params=[*PLAIN, *PECULIAR, *MIXTURES])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A random float32 model, one architecture after the other."""
    return build_model((PLAIN | PECULIAR | MIXTURES)[request.param])


@pytest.fixture(scope="session")
def layer_models(tmp_path_factory: pytest.TempPathFactory) -> LayerModels:
    return LayerModels(tmp_path_factory.mktemp("models"))


@pytest.fixture
def layer_kernels() -> Iterator[None]:
    """Kernels of the checks in place, by their names."""
    for kernel in KERNELS:
        register(kernel)
    yield
    for kernel in KERNELS:
        unregister(kernel)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def site(wheel: Path) -> Path:
    """A folder that holds what the wheel installs."""
    return install(wheel, wheel.parent / "site")
