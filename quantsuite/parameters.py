"""A model's parameters: their hash, and exchanging them for others and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over the name, shape and values of every parameter, tied ones once; not over the configuration.

    Floats are rounded to bfloat16 first, so that a checkpoint has one hash whether it is loaded in bfloat16 or float32.
    In float16 it may have another, since small values of it are others.
    """
    sha256 = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().bfloat16() if parameter.is_floating_point() else parameter.detach()
        sha256.update(f"{name} {list(values.shape)} {values.dtype}\n".encode())
        sha256.update(values.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha256.hexdigest()


def unknown_parameter(model: nn.Module, changes: Mapping[str, Tensor]) -> str | None:
    """The first change that is of no parameter, or of another shape, or ``None``."""
    own = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in changes.items():
        if name not in own:
            return f"the model has no parameter {name}, which the plan changes; plan for this model"
        if own[name].shape != tensor.shape:
            return f"{name} is {list(own[name].shape)}, the plan's {list(tensor.shape)}; plan for this model"
    return None


@contextmanager
def exchanged(model: nn.Module, changes: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with other parameters, in the dtype and on the device of its own, inside the block.

    The parameters themselves stay as they are, since another model may share them; of tied ones those that are named
    are exchanged.
    """
    originals: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for name, tensor in changes.items():
            path, _, last = name.rpartition(".")
            module = model.get_submodule(path)
            original = module.get_parameter(last)
            originals.append((module, last, original))
            setattr(module, last, nn.Parameter(tensor.detach().to(original), requires_grad=original.requires_grad))
        yield
    finally:
        for module, last, original in reversed(originals):
            setattr(module, last, original)
