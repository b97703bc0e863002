"""A checkpoint whose files, tensors or configuration are odd is refused in one line that says what."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from meta_tests.checkpoints import MIXTURES, PLAIN, save_checkpoint
from quantsuite.adapters.loading import CheckpointError, context_length, load_model

INDEX = "model.safetensors.index.json"


def refusal(folder: Path, call: Callable[..., Any] = load_model) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def add_tensors(folder: Path, **tensors: torch.Tensor) -> None:
    save_file(tensors, folder / "extra.safetensors", metadata={"format": "pt"})
    change_json(folder / INDEX, lambda index: index["weight_map"].update(dict.fromkeys(tensors, "extra.safetensors")))


@pytest.mark.parametrize("name", [["a"], 3, None, "../model.safetensors", "/etc/passwd", "code.py", ""], ids=str)
def test_an_index_that_names_no_file_of_the_folder_is_refused(damageable: Path, name: Any) -> None:
    change_json(damageable / INDEX, lambda index: index["weight_map"].update({"lm_head.weight": name}))
    assert f"{INDEX} is damaged (lm_head.weight is in {name!r}" in refusal(damageable)


@pytest.mark.parametrize("weight_map", [[], "model", 3, None, {}], ids=str)
def test_an_index_without_a_mapping_is_refused(damageable: Path, weight_map: Any) -> None:
    change_json(damageable / INDEX, lambda index: index.update(weight_map=weight_map))
    assert f"{INDEX} is damaged (weight_map is no mapping" in refusal(damageable)


@pytest.mark.parametrize("file", ["config.json", INDEX, "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "", "{", "\xff", "[" * 100_000])
def test_a_file_that_holds_no_object_is_named(damageable: Path, file: str, content: str) -> None:
    (damageable / file).write_text(content, encoding="latin-1")
    assert str(damageable / file) in refusal(damageable)


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_size": -64},
        {"hidden_size": 0},
        {"num_attention_heads": 0},
        {"vocab_size": "2048"},
        {"vocab_size": -1},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 2.5},
        {"model_type": "unheard-of"},
        {"model_type": None},
        {"model_type": 3},
        {"hidden_act": "unheard-of"},
        {"rope_parameters": {"rope_type": "yarn"}},
        {"rope_parameters": {"rope_type": "unheard-of", "rope_theta": 1e4}},
        {"rope_parameters": 3},
        {"torch_dtype": "unheard-of", "hidden_size": "64"},
    ],
    ids=str,
)
def test_an_odd_configuration_is_refused(damageable: Path, settings: dict[str, Any]) -> None:
    change_json(damageable / "config.json", lambda config: config.update(settings))
    assert str(damageable) in refusal(damageable)


def test_an_error_of_transformers_is_told_with_its_type(damageable: Path) -> None:
    change_json(damageable / "config.json", lambda config: config.update(hidden_act="unheard-of"))
    assert "KeyError: " in refusal(damageable)


def test_tensors_that_the_model_does_not_take_are_counted(damageable: Path) -> None:
    add_tensors(damageable, **{"model.layers.9.extra": torch.zeros(2), "vision.weight": torch.zeros(2)})
    message = refusal(damageable)
    assert "has 2 tensors that a Qwen3ForCausalLM does not take, first model.layers.9.extra" in message


def test_layers_beyond_the_configuration_are_not_dropped(damageable: Path) -> None:
    change_json(damageable / "config.json", lambda config: config.update(num_hidden_layers=1, layer_types=None))
    assert "does not take, first model.layers.1." in refusal(damageable)


def test_tensors_that_transformers_declares_ignorable_are_ignored(damageable: Path) -> None:
    add_tensors(damageable, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)})
    assert load_model(str(damageable)).model is not None


@pytest.fixture
def tied(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A checkpoint that ties its head, and its embedding."""
    folder = save_checkpoint(tmp_path / "tied", PLAIN["qwen3-tied"])
    name = "model.embed_tokens.weight"
    shard = json.loads((folder / INDEX).read_text())["weight_map"][name]
    return folder, load_file(folder / shard)[name]


def test_an_equal_twin_of_a_tied_tensor_changes_nothing(tied: tuple[Path, torch.Tensor]) -> None:
    folder, embedding = tied
    before = load_model(str(folder)).sha256
    add_tensors(folder, **{"lm_head.weight": embedding.clone()})
    loaded = load_model(str(folder))
    assert loaded.sha256 == before
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_twin_of_a_tied_tensor_that_differs_is_named(tied: tuple[Path, torch.Tensor], dtype: str) -> None:
    folder, embedding = tied
    twin = embedding.clone()
    twin[-1, -1] = torch.nextafter(twin[-1, -1], torch.tensor(torch.inf))
    add_tensors(folder, **{"lm_head.weight": twin})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        load_model(str(folder), dtype=dtype)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_missing_matrix_of_an_expert_is_noticed(tmp_path: Path, name: str) -> None:
    folder = save_checkpoint(tmp_path / "moe", MIXTURES[name], shard="1GB")
    tensors = load_file(folder / "model.safetensors")
    lost = next(tensor for tensor in sorted(tensors) if ".experts.1." in tensor)
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert str(folder) in refusal(folder)


def test_brackets_and_spaces_in_a_path_are_a_path(damageable: Path, tmp_path: Path) -> None:
    folder = shutil.move(damageable, tmp_path / "my model[1]*")
    assert load_model(str(folder)).name == str(folder)


@pytest.mark.parametrize("name", ["tiny", "tiny-outliers"])
def test_the_context_of_an_embedded_model_is_that_of_its_configuration(name: str) -> None:
    assert context_length(name) == load_model(name).model.config.max_position_embeddings


def test_the_context_is_read_without_weights_and_tokenizer(damageable: Path) -> None:
    for path in damageable.iterdir():
        if path.name != "config.json":
            path.unlink()
    assert context_length(str(damageable)) == 256


def test_the_context_of_a_model_without_positions_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert context_length(str(tmp_path)) is None


@pytest.mark.parametrize("settings", [{"model_type": "unheard-of"}, {"vocab_size": "2048"}], ids=str)
def test_the_context_of_an_odd_configuration_is_an_error(damageable: Path, settings: dict[str, Any]) -> None:
    change_json(damageable / "config.json", lambda config: config.update(settings))
    assert "config.json" in refusal(damageable, context_length)


def test_the_context_of_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    assert "is not a folder" in refusal(tmp_path / "absent", context_length)
