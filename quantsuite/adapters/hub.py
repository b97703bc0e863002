"""Hub ids as local folders: what of a repository is fetched, and what is used where the hub cannot be reached."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import ModelInfo

from quantsuite.adapters.checkpoint import (
    DATA_SUFFIXES,
    INDEX,
    WEIGHTS,
    CheckpointError,
    one_line,
    refuse_pickles,
    shard_names,
)
from quantsuite.tiny import EMBEDDED, embedded_folder

TIMEOUT = 3.0
"""Seconds in which the hub must answer, once; retries would only delay the way out."""


def looks_like_path(location: str) -> bool:
    """Whether a name can only be meant as a path: hub ids are ``name`` or ``owner/name``."""
    parts = location.replace(os.sep, "/").split("/")
    return len(parts) > 2 or parts[0] in ("", ".", "..", "~") or not all(parts)


@contextmanager
def offline() -> Iterator[None]:
    """No request to the hub inside the block."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def cached_folder(hub_id: str, file: str, *, repo_type: str = "model") -> Path | None:
    """The snapshot folder of a repository in the local cache, if it has a file."""
    found = try_to_load_from_cache(hub_id, file, repo_type=repo_type)
    return Path(found).parent if isinstance(found, str) else None


def describe_failure(hub_id: str, error: Exception) -> str:
    """Why a request for a repository failed: the hub does not show it, or does not answer."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in (401, 403, 404):
        return f"the hub has no public {hub_id} ({status})"
    return f"the hub at {constants.ENDPOINT} cannot be reached ({one_line(error)})"


def _download(hub_id: str, info: ModelInfo, *, weights: bool) -> Path:
    """Data files at the top of a repository, then the shards that its own index names."""
    names = [sibling.rfilename for sibling in info.siblings or []]
    refuse_pickles(names, hub_id)
    data = [name for name in names if "/" not in name and name.endswith(DATA_SUFFIXES)]
    wanted = [name for name in data if weights or name == "config.json"]
    folder = Path(snapshot_download(hub_id, revision=info.sha, allow_patterns=wanted))
    if weights:
        shards = [WEIGHTS] if WEIGHTS in names or INDEX not in names else shard_names(folder)
        snapshot_download(hub_id, revision=info.sha, allow_patterns=shards)
    return folder


def _snapshot(hub_id: str, *, weights: bool) -> Path:
    try:
        info = HfApi().model_info(hub_id, timeout=TIMEOUT)
        return _download(hub_id, info, weights=weights)
    except CheckpointError:
        raise
    except Exception as error:  # Libraries of several layers raise what they like; the cache may do all the same.
        if not isinstance(error, HFValidationError) and (folder := cached_folder(hub_id, "config.json")):
            return folder
        raise CheckpointError(
            f"cannot load {hub_id!r}: it is no folder, and {describe_failure(hub_id, error)}.  "
            f"Give a checkpoint folder, a hub id that this machine can reach, or {', '.join(EMBEDDED)}"
        ) from error


def resolve_folder(name: str, *, weights: bool = True) -> Path:
    """The local folder of a model: embedded, as it stands, or a snapshot of a hub repository.

    Of a repository only configurations, tokenizers and safetensors are fetched.  Where the hub does
    not answer within ``TIMEOUT`` seconds, a snapshot in the local cache is used as it is.

    Args:
        name: ``tiny``, ``tiny-outliers``, a folder, or a hub id.
        weights: whether weights and tokenizer are wanted; otherwise the configuration only.

    Raises:
        CheckpointError: if there is none.
    """
    if name in EMBEDDED:
        return embedded_folder()
    try:
        folder = Path(name).expanduser()
        if folder.is_dir():
            return folder
        is_other = folder.exists() or looks_like_path(name)
    except (OSError, ValueError, RuntimeError) as error:
        shown = name if len(name) <= 80 else f"{name[:80]}... ({len(name):,} characters)"
        raise CheckpointError(
            f"{shown!r} is no name of a folder ({type(error).__name__}); give a shorter path"
        ) from error
    if is_other:
        raise CheckpointError(f"{name} is not a folder; give a checkpoint folder, a hub id, or {', '.join(EMBEDDED)}")
    return _snapshot(name, weights=weights)
