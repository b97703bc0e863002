"""Checkpoint folders: whether one is whole, and whether it asks for anything but its own tensors and text."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DATA_SUFFIXES = (".json", ".txt", ".model", ".tiktoken")
"""Configurations and tokenizers; nothing that can hold code."""
INTEGERS = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")
ADAPTER = "adapter_config.json"
CUSTOM_GENERATE = "custom_generate"
ATTENTIONS = ("eager", "sdpa")
EXPERTS = ("eager", "batched_mm", "grouped_mm")


class CheckpointError(ValueError):
    """A checkpoint that is incomplete, damaged, unsafe or unusable; the message says which file or tensor."""


def one_line(error: BaseException) -> str:
    """An exception's type and message in one line of bounded length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{'...' if len(text) > 300 else ''}"


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        CheckpointError: naming the file, if it is not readable JSON or holds anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({one_line(error)}); download or copy it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not an object; download or copy it again")
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's configuration.

    Raises:
        CheckpointError: if ``config.json`` is missing or damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json; give the folder that save_pretrained wrote")
    return read_object(path)


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values of an object and of all objects inside it; null stands for absence."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if inner not in (None, {}, [], ""):
                yield key, inner
            yield from _settings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _settings(inner)


def _objection(key: str, value: Any) -> str | None:
    """Why a setting is refused: it names code, a kernel, or files of another place or kind; and the way out."""
    implementations = {"attn_implementation": ATTENTIONS, "experts_implementation": EXPERTS}.get(key.lstrip("_"))
    named = list(value.values()) if isinstance(value, dict) else [value]
    if implementations is not None and any(name not in (None, *implementations) for name in named):
        return (
            f"asks for {key} {value!r}, which may be code of a hub; "
            f"remove it there, or use one of {', '.join(implementations)}"
        )
    if key == "auto_map" or key.startswith("custom_generate"):
        return (
            f"has {key}, code of the checkpoint's own, which is never run here; "
            f"if transformers itself knows the model, remove {key} there"
        )
    if key in ("quantization_config", "compression_config"):
        method = value.get("quant_method", value.get("format")) if isinstance(value, dict) else value
        return (
            f"says that the checkpoint is quantized already ({method or 'method not named'}); "
            "give the unquantized checkpoint that it was made from"
        )
    if key in ("kernel_config", "use_kernels", "fusion_config", "use_pretrained_backbone") and value:
        return f"has {key}, which loads or patches code beyond the checkpoint; remove it there"
    if key == "transformers_weights":
        return f"names other weights ({key} {value!r}); remove it there, or rename that file to {WEIGHTS}"
    return None


def check_code(folder: Path) -> None:
    """Check that a checkpoint asks for nothing that runs code or comes from elsewhere.

    Raises:
        CheckpointError: naming the file and the setting.
    """
    if (folder / ADAPTER).exists():
        raise CheckpointError(
            f"{folder} holds a PEFT adapter ({ADAPTER}), whose base model is elsewhere; "
            "merge it with merge_and_unload() and save the whole model"
        )
    if (folder / CUSTOM_GENERATE).exists():
        raise CheckpointError(
            f"{folder} has {CUSTOM_GENERATE}, code of the checkpoint's own, which is never run here; remove it"
        )
    for path in sorted(folder.iterdir()):
        if path.is_file() and (path.name == "config.json" or path.name.endswith("_config.json")):
            for key, value in _settings(read_object(path)):
                if reason := _objection(key, value):
                    raise CheckpointError(f"{path} {reason}")


def refuse_pickles(names: list[str], where: str) -> None:
    """Raise :class:`CheckpointError` if files are pickled weights and none are safetensors."""
    pickles = [name for name in names if name.endswith((".bin", ".bin.index.json", ".pt", ".pth"))]
    weights = [name for name in pickles if name.startswith(("pytorch_model", "model", "consolidated"))]
    if weights and not {WEIGHTS, INDEX} & set(names):
        raise CheckpointError(
            f"{where} has pickled weights only ({min(weights)}), which can run code when they are read; where you "
            "trust them, load them with AutoModelForCausalLM.from_pretrained, save them with save_pretrained, "
            "which writes safetensors, and give that folder"
        )


def shard_names(folder: Path) -> list[str]:
    """The weights' files of a checkpoint: those that the index names, or the only one.

    Raises:
        CheckpointError: if the index is damaged or names what is not a file of the folder.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():  # The order in which transformers looks for them.
        return [WEIGHTS]
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} is damaged (weight_map is no mapping of tensors to files); copy it again")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} is damaged ({tensor} is in {shard!r}, which is no safetensors file of the folder); "
                "download or copy it again"
            )
    return sorted(set(weight_map.values()))


def check_folder(folder: Path) -> None:
    """Check that a checkpoint folder is whole and safe before anything is loaded from it.

    Raises:
        CheckpointError: naming the file that is missing, truncated, damaged or unsafe.
    """
    read_config(folder)
    check_code(folder)
    refuse_pickles([path.name for path in folder.iterdir()], str(folder))
    named_by = f"named in {INDEX}" if (folder / INDEX).is_file() else "the weights"
    for shard in shard_names(folder):
        path = folder / shard
        if not path.is_file():
            raise CheckpointError(f"{path} is missing ({named_by}); download or copy the checkpoint again")
        try:
            with safe_open(path, framework="pt") as tensors:
                weights = (name for name in tensors.keys() if name.endswith("weight"))  # noqa: SIM118
                integer = next((name for name in weights if tensors.get_slice(name).get_dtype() in INTEGERS), None)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} is truncated or damaged ({path.stat().st_size:,} bytes: {error}); download or copy it again"
            ) from error
        if integer is not None:
            raise CheckpointError(
                f"{path}: {integer} holds integers, no weights without scales; give the unquantized checkpoint"
            )


def differ(folder: Path, name: str, other: str) -> bool:
    """Whether a checkpoint holds both of two tensors, and not the same bits in them."""
    found = []
    for shard in shard_names(folder):
        with safe_open(folder / shard, framework="pt") as tensors:
            found += [tensors.get_tensor(each) for each in {name, other} & set(tensors.keys())]
    if len(found) < 2:
        return False
    first, second = found
    same_kind = first.dtype == second.dtype and first.shape == second.shape
    return not (same_kind and torch.equal(first.view(torch.uint8), second.view(torch.uint8)))


@contextmanager
def data_view(folder: Path) -> Iterator[Path]:
    """A temporary folder of links to what a checkpoint may be read from: data files and its own shards.

    Whatever else a library would look for beside them (modules, pickles, adapters, other formats of
    the weights) is not there to be found.
    """
    shards = set(shard_names(folder))
    with tempfile.TemporaryDirectory(prefix="quantsuite-") as temporary:
        view = Path(temporary)
        for path in folder.iterdir():
            if path.is_file() and (path.suffix in DATA_SUFFIXES or path.name in shards):
                (view / path.name).symlink_to(path.resolve())
        yield view
