"""Models by name: a hub id, a folder, or an embedded one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from quantsuite.tiny import EMBEDDED, embedded_folder
from quantsuite.tiny.outliers import inject_outliers

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class CheckpointError(ValueError):
    """A checkpoint that is incomplete, damaged or unusable; the message says which file or tensor."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer and the hash of its weights and configuration."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sha256: str


def check_folder(folder: Path) -> None:
    """Check that a checkpoint folder is whole before anything is loaded from it.

    Raises:
        CheckpointError: naming the file that is missing, truncated or damaged.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json; give the folder that save_pretrained wrote")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{index} is damaged ({error}); download or copy it again") from error
        named_by = f"named in {index.name}"
    else:
        shards, named_by = ["model.safetensors"], "the weights"
    for shard in shards:
        path = folder / shard
        if not path.is_file():
            raise CheckpointError(f"{path} is missing ({named_by}); download or copy the checkpoint again")
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise CheckpointError(
                f"{path} is truncated or damaged ({path.stat().st_size:,} bytes: {error}); download or copy it again"
            ) from error


def check_weights(model: nn.Module) -> None:
    """Check that all parameters are finite.

    Raises:
        CheckpointError: naming the first tensor that is not, and how many values.
    """
    for name, parameter in model.named_parameters():
        bad = int((~torch.isfinite(parameter)).sum())
        if bad:
            raise CheckpointError(
                f"{name}: {bad:,} of {parameter.numel():,} values are NaN or infinite; "
                "the checkpoint is damaged or was saved in too narrow a dtype"
            )


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over the configuration and every parameter's name, shape, dtype and bytes."""
    digest = hashlib.sha256()
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {list(parameter.shape)} {parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def load_model(name: str, *, device: str = "cpu", dtype: str = "bf16") -> LoadedModel:
    """Load a model and its tokenizer.

    Args:
        name: ``tiny``, ``tiny-outliers``, a folder that ``save_pretrained`` wrote, or a hub id.
        device: as torch names it.
        dtype: ``bf16``, ``fp16`` or ``fp32``.

    Raises:
        CheckpointError: if the model cannot be found, is incomplete, or has NaN in its weights.
        ValueError: if the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
    source = str(embedded_folder()) if name in EMBEDDED else name
    if Path(source).is_dir():
        check_folder(Path(source))
    elif Path(source).is_absolute() or source.startswith("."):
        raise CheckpointError(f"{source} is not a folder; give a checkpoint folder, a hub id, or {', '.join(EMBEDDED)}")
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            source, dtype=DTYPES[dtype], output_loading_info=True, ignore_mismatched_sizes=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot load {name!r}: {str(error).splitlines()[0]}  Give a checkpoint folder with its tokenizer, "
            f"a hub id that this machine can reach, or {', '.join(EMBEDDED)}"
        ) from error
    if not tokenizer("A")["input_ids"]:  # What transformers makes of a folder without tokenizer files.
        raise CheckpointError(f"{name} has no tokenizer, or an empty one; copy tokenizer.json to the checkpoint")
    if missing := sorted(loading["missing_keys"]):
        raise CheckpointError(f"{name}: the checkpoint lacks {len(missing)} tensors, first {missing[0]}")
    if mismatched := sorted(loading["mismatched_keys"]):
        tensor, found, wanted = mismatched[0]
        raise CheckpointError(
            f"{name}: {tensor} is {list(found)}, its config.json says {list(wanted)}; the two are of different models"
        )
    if name == "tiny-outliers":
        inject_outliers(model)
    model = model.to(device).eval().requires_grad_(False)
    check_weights(model)
    return LoadedModel(name=name, model=model, tokenizer=tokenizer, sha256=fingerprint(model))
