"""Models by name: a hub id, a folder, or an embedded one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from quantsuite import scheme
from quantsuite.adapters.causality import is_causal
from quantsuite.adapters.checkpoint import (
    CheckpointError,
    check_code,
    check_folder,
    data_view,
    differ,
    one_line,
    read_config,
)
from quantsuite.adapters.hub import offline, resolve_folder
from quantsuite.adapters.quiet import quiet_transformers
from quantsuite.adapters.transformers import context_of
from quantsuite.quantize import MODEL_DTYPES
from quantsuite.tiny.outliers import inject_outliers

if TYPE_CHECKING:
    from transformers import (
        PreTrainedModel,  # Imports torchao and its warnings, which quiet_transformers() holds back later.
    )

__all__ = ["CheckpointError", "LoadedModel", "check_weights", "context_length", "fingerprint", "load_model"]


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer and the hash of its weights and configuration."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sha256: str


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


def _read(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, dict[str, Any], PreTrainedTokenizerBase]:
    """Model, transformers' account of its tensors, and tokenizer, of data in the folder only."""
    with data_view(folder) as view, offline(), quiet_transformers():
        model, loading = AutoModelForCausalLM.from_pretrained(
            view,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(view, trust_remote_code=False, local_files_only=True)
    model.name_or_path = model.config.name_or_path = tokenizer.name_or_path = str(folder)
    return model, loading, tokenizer


def _check_tensors(name: str, folder: Path, model: PreTrainedModel, loading: dict[str, Any]) -> None:
    """Check that the model took all tensors of the checkpoint, and lacked none.

    What transformers declares as ignorable is not in its account, nor is a twin of a tied tensor, which
    transformers unties if the two differ in the dtype that they are loaded in.
    """
    if missing := sorted(loading["missing_keys"]):
        raise CheckpointError(f"{name}: the checkpoint lacks {len(missing)} tensors, first {missing[0]}")
    if mismatched := sorted(loading["mismatched_keys"]):
        tensor, found, wanted = mismatched[0]
        raise CheckpointError(
            f"{name}: {tensor} is {list(found)}, its config.json says {list(wanted)}; the two are of different models"
        )
    if unexpected := sorted(loading["unexpected_keys"]):
        raise CheckpointError(
            f"{name}: the checkpoint has {len(unexpected)} tensors that a {type(model).__name__} does not take, first "
            f"{unexpected[0]}; its config.json is of another model, or the weights are of a larger one"
        )
    for twin, source in sorted(model.get_expanded_tied_weights_keys(all_submodels=True).items()):
        if twin not in model.all_tied_weights_keys or differ(folder, twin, source):
            raise CheckpointError(
                f"{name}: {twin} differs from {source}, with which config.json ties it; "
                "remove the wrong one, or set tie_word_embeddings to false"
            )


def _check_causal(name: str, model: PreTrainedModel) -> None:
    try:
        causal = is_causal(model)
    except Exception as error:  # A model of any kind: what it raises on tokens alone is its own affair.
        raise CheckpointError(
            f"{name}: a {type(model).__name__} cannot be run on token ids ({one_line(error)}); "
            "give a causal language model"
        ) from error
    if not causal:
        raise CheckpointError(
            f"{name}: a {type(model).__name__} is not causal here, its logits change with the tokens after them; "
            "give a causal language model (or set is_decoder in config.json where it was trained as one)"
        )


@torch.inference_mode(False)  # Whether a model is causal may be read from a gradient.
def load_model(name: str, *, device: str = "cpu", dtype: str = scheme.DTYPES[0]) -> LoadedModel:
    """Load a model and its tokenizer, of safetensors and data files only: no code of a checkpoint runs.

    Args:
        name: ``tiny``, ``tiny-outliers``, a folder that ``save_pretrained`` wrote, or a hub id.
        device: as torch names it.
        dtype: ``bf16``, ``fp16`` or ``fp32``.

    Raises:
        CheckpointError: if the model cannot be found, is incomplete or unsafe, is not causal, or has NaN
            in its weights.
        ValueError: if the dtype is unknown.
    """
    if dtype not in MODEL_DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; use one of {', '.join(MODEL_DTYPES)}")
    folder = resolve_folder(name)
    check_folder(folder)
    try:
        model, loading, tokenizer = _read(folder, MODEL_DTYPES[dtype])
    except Exception as error:  # transformers raises of every kind, by what is odd in the folder.
        raise CheckpointError(
            f"cannot load {name!r}: {one_line(error)}.  Repair config.json or the tokenizer, or give another checkpoint"
        ) from error
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > vocabulary:
        raise CheckpointError(
            f"{name}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model {vocabulary:,}; "
            "it belongs to another model, copy the right tokenizer.json"
        )
    if not tokenizer("A")["input_ids"]:  # What transformers makes of a folder without tokenizer files.
        raise CheckpointError(f"{name} has no tokenizer, or an empty one; copy tokenizer.json to the checkpoint")
    _check_tensors(name, folder, model, loading)
    if name == "tiny-outliers":
        inject_outliers(model)
    model = model.to(device).eval().requires_grad_(False)
    check_weights(model)
    _check_causal(name, model)
    return LoadedModel(name=name, model=model, tokenizer=tokenizer, sha256=fingerprint(model))


def context_length(name: str) -> int | None:
    """The longest context of a model in tokens by its configuration, which alone is read; ``None`` if it sets none.

    Args:
        name: as :func:`load_model` takes it.

    Raises:
        CheckpointError: if the configuration cannot be found or read, or is unsafe.
    """
    folder = resolve_folder(name, weights=False)
    read_config(folder)
    check_code(folder)
    try:
        with data_view(folder) as view, offline(), quiet_transformers():
            config = AutoConfig.from_pretrained(view, trust_remote_code=False, local_files_only=True)
        return context_of(config)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"cannot read {folder / 'config.json'}: {one_line(error)}; repair it") from error
