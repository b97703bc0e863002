"""No code of a checkpoint runs, nothing is asked, and nothing is fetched that its files name."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from meta_tests.checkpoints import PLAIN, build_model
from quantsuite.adapters.checkpoint import CheckpointError, data_view
from quantsuite.adapters.loading import context_length, load_model

CODE = "import pathlib\npathlib.Path({marker!r}).touch()\nfrom transformers import *\n"


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the checkpoint's code creates, as does a question on stdin, which is answered with yes."""
    path = tmp_path / "marker"

    def consent(prompt: str = "") -> str:
        path.touch()
        return "y"

    monkeypatch.setattr("builtins.input", consent)
    return path


def add_settings(file: Path, **settings: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | settings))


def assert_refused(folder: Path, marker: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_model(str(folder))
    assert not marker.exists()
    assert "\n" not in str(caught.value)
    assert [part for part in parts if part not in str(caught.value)] == []


AUTO_MAP = {
    "AutoConfig": "code.LlamaConfig",
    "AutoModelForCausalLM": "code.LlamaForCausalLM",
    "AutoTokenizer": ["code.PreTrainedTokenizerFast", "code.PreTrainedTokenizerFast"],
    "AutoProcessor": "code.ProcessorMixin",
}
FILES = ["config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json"]


@pytest.mark.parametrize("file", [*FILES, "preprocessor_config.json"])
def test_code_that_a_configuration_names_does_not_run(damageable: Path, marker: Path, file: str) -> None:
    (damageable / "code.py").write_text(CODE.format(marker=str(marker)))
    add_settings(damageable / file, auto_map=AUTO_MAP)
    assert_refused(damageable, marker, file, "auto_map", "is never run here")


def test_code_of_a_model_type_that_transformers_does_not_know_does_not_run(damageable: Path, marker: Path) -> None:
    (damageable / "code.py").write_text(CODE.format(marker=str(marker)))
    add_settings(damageable / "config.json", auto_map=AUTO_MAP, model_type="unheard-of")
    assert_refused(damageable, marker, "auto_map")


def test_code_inside_a_nested_configuration_is_refused(damageable: Path, marker: Path) -> None:
    add_settings(damageable / "config.json", text_config={"parts": [{"auto_map": AUTO_MAP}]})
    assert_refused(damageable, marker, "auto_map")


def test_code_is_refused_when_only_the_context_is_asked_for(damageable: Path, marker: Path) -> None:
    (damageable / "code.py").write_text(CODE.format(marker=str(marker)))
    add_settings(damageable / "config.json", auto_map=AUTO_MAP, model_type="unheard-of")
    with pytest.raises(CheckpointError, match="auto_map"):
        context_length(str(damageable))
    assert not marker.exists()


def test_code_of_a_custom_generate_does_not_run(damageable: Path, marker: Path) -> None:
    (damageable / "custom_generate").mkdir()
    (damageable / "custom_generate" / "generate.py").write_text(CODE.format(marker=str(marker)))
    assert_refused(damageable, marker, "custom_generate")


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation", "_experts_implementation"])
@pytest.mark.parametrize("value", ["evil/kernel", "flash_attention_2", {"": "evil/kernel"}], ids=str)
def test_a_kernel_that_a_configuration_names_is_refused(damageable: Path, marker: Path, key: str, value: Any) -> None:
    add_settings(damageable / "config.json", **{key: value})
    assert_refused(damageable, marker, "config.json", f"asks for {key}", "remove it there")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_an_implementation_of_torch_is_accepted(damageable: Path, key: str) -> None:
    add_settings(damageable / "config.json", **{key: "eager"})
    assert load_model(str(damageable)).model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_config": {"RMSNorm": "evil/kernel:RMSNorm"}},
        {"use_kernels": True},
        {"fusion_config": {"patch_embeddings": True}},
        {"use_pretrained_backbone": True},
        {"transformers_weights": "adapter_model.bin"},
        {"transformers_weights": "../other.safetensors"},
    ],
    ids=str,
)
def test_a_setting_that_reaches_beyond_the_checkpoint_is_refused(
    damageable: Path, marker: Path, settings: dict[str, Any]
) -> None:
    add_settings(damageable / "config.json", **settings)
    assert_refused(damageable, marker, *settings)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes", "compressed-tensors", "mxfp4"])
def test_a_checkpoint_of_another_quantizer_is_refused_by_its_method(
    damageable: Path, marker: Path, method: str
) -> None:
    add_settings(damageable / "config.json", quantization_config={"quant_method": method, "bits": 4})
    assert_refused(damageable, marker, f"quantized already ({method}); give the unquantized checkpoint")


def test_empty_settings_are_none(damageable: Path) -> None:
    add_settings(damageable / "config.json", quantization_config=None, auto_map={}, _attn_implementation=None)
    assert load_model(str(damageable)).model is not None


def test_an_adapter_does_not_bring_its_base_model(damageable: Path, marker: Path) -> None:
    (damageable / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/base"}))
    assert_refused(damageable, marker, "adapter_config.json", "merge_and_unload")


@pytest.mark.parametrize("index", [False, True], ids=["file", "index"])
def test_pickled_weights_are_not_read(damageable: Path, marker: Path, index: bool) -> None:
    for path in damageable.glob("model*"):
        path.unlink()
    shard = "pytorch_model-00001-of-00001.bin" if index else "pytorch_model.bin"
    (damageable / shard).write_bytes(pickle.dumps(Payload(marker)))
    if index:
        content = json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": shard}})
        (damageable / "pytorch_model.bin.index.json").write_text(content)
    assert_refused(damageable, marker, "pickled weights only", "can run code", "save_pretrained")


def test_the_way_out_of_pickled_weights_leads_to_a_checkpoint_that_loads(tmp_path: Path, pristine_folder: Path) -> None:
    folder = shutil.copytree(pristine_folder, tmp_path / "pickled", ignore=shutil.ignore_patterns("model*"))
    import torch

    torch.save(build_model(PLAIN["qwen3-untied"]).state_dict(), folder / "pytorch_model.bin")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)
    (folder / "pytorch_model.bin").unlink()
    assert load_model(str(folder), dtype="fp32").sha256 == load_model(str(pristine_folder), dtype="fp32").sha256


def test_pickles_beside_safetensors_are_ignored(damageable: Path, marker: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", ".metadata", "vocab.pkl"):
        (damageable / name).write_bytes(pickle.dumps(Payload(marker)))
    load_model(str(damageable))
    assert not marker.exists()


def test_libraries_are_shown_data_files_and_own_shards_only(damageable: Path, marker: Path) -> None:
    hidden = ["code.py", "pytorch_model.bin", ".metadata", "other.safetensors", "vocab.pkl", "x.gguf"]
    for name in hidden:
        (damageable / name).touch()
    (damageable / "folder").mkdir()
    with data_view(damageable) as view:
        shown = {path.name for path in view.iterdir()}
    assert shown == {path.name for path in damageable.iterdir()} - {*hidden, "folder"}


def test_loading_writes_nothing_and_leaves_bars_and_logs_as_they_were(
    damageable: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import logging

    from transformers.utils import logging as transformers_logging

    before = transformers_logging.is_progress_bar_enabled(), logging.root.manager.disable
    load_model(str(damageable))
    assert capfd.readouterr() == ("", "")
    assert (transformers_logging.is_progress_bar_enabled(), logging.root.manager.disable) == before
