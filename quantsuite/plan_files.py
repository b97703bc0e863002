"""Plans on disk: ``plan.json`` says what there is, ``plan.safetensors`` holds the tensors.  Nothing is executed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

SCHEMA_VERSION = 1
DOCUMENT, TENSORS = "plan.json", "plan.safetensors"


class PlanError(ValueError):
    """A plan that contradicts itself, or a folder that holds none; the message says why, and the way out."""


class LayerEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A layer's scheme, and the ``[N, K]`` of its quantized weight where it has one."""

    scheme: str
    shape: tuple[int, int] | None = None


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What ``plan.json`` holds.

    Args:
        schema_version: of this layout.
        checksum: :func:`checksum` of all else.
        scheme: the default, with its method.
        layers: by name.
        model_sha256: of the weights that the plan was made from; left out where they are any.
    """

    schema_version: int
    checksum: str
    scheme: str
    layers: dict[str, LayerEntry]
    model_sha256: str = ""


def checksum(
    scheme: str, layers: Mapping[str, LayerEntry], tensors: Mapping[str, Tensor], *, model_sha256: str = ""
) -> str:
    """SHA-256 over schemes, shapes, names, dtypes, bytes and a model's hash, in an order that does not matter."""
    said = (SCHEMA_VERSION, scheme, layers, *([model_sha256] if model_sha256 else []))
    sha256 = hashlib.sha256(msgspec.json.encode(said, order="deterministic"))
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha256.update(msgspec.json.encode((name, str(tensor.dtype), list(tensor.shape))))
        sha256.update(tensor.flatten().view(torch.uint8).numpy())
    return sha256.hexdigest()


def write(
    folder: Path,
    scheme: str,
    layers: Mapping[str, LayerEntry],
    tensors: Mapping[str, Tensor],
    *,
    model_sha256: str = "",
) -> None:
    """Save what :func:`read` returns; a plan that is in the folder is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DOCUMENT).unlink(missing_ok=True)  # A plan that was half written is none.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(own, folder / TENSORS)
    document = Document(
        schema_version=SCHEMA_VERSION,
        checksum=checksum(scheme, layers, own, model_sha256=model_sha256),
        scheme=scheme,
        layers=dict(layers),
        model_sha256=model_sha256,
    )
    (folder / DOCUMENT).write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
    shutil.copymode(folder / DOCUMENT, folder / TENSORS)  # save_file leaves the mode of a temporary file.


def read_document(folder: Path) -> Document:
    """What a plan is called and what it names; the tensors are not read, and nothing is verified.

    Raises:
        PlanError: if the folder holds no plan, or one of another version.
    """
    if not (folder / DOCUMENT).is_file():
        raise PlanError(f"{folder} holds no {DOCUMENT}; give a folder that Plan.save wrote")
    try:
        text = (folder / DOCUMENT).read_bytes()
        version = msgspec.json.decode(text, type=dict)["schema_version"]
        if version != SCHEMA_VERSION:
            way = "upgrade quantsuite" if isinstance(version, int) and version > SCHEMA_VERSION else "make it again"
            raise PlanError(f"{folder / DOCUMENT}: schema version {version}, known is {SCHEMA_VERSION}; {way}")
        return msgspec.json.decode(text, type=Document)
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, OSError) as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> PlanError:
    return PlanError(f"{folder}: the plan cannot be read ({str(error).splitlines()[0]}); make it again")


def read(folder: Path) -> tuple[Document, dict[str, Tensor]]:
    """The document and the tensors of a saved plan.

    Raises:
        PlanError: if the folder holds no plan, one of another version, or one that was changed.
    """
    document = read_document(folder)
    try:
        tensors = load_file(folder / TENSORS)
    except (SafetensorError, OSError) as error:
        raise _unreadable(folder, error) from error
    found = checksum(document.scheme, document.layers, tensors, model_sha256=document.model_sha256)
    if found != document.checksum:
        raise PlanError(f"{folder}: the plan was changed after it was saved, its checksum differs; make it again")
    return document, tensors
