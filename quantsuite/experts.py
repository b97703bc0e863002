"""Mixtures of experts whose weights are fused into three dimensions, as transformers stores them.

Each expert is a gated (or plain) two-layer network of its own, and each of its matrices is quantized as
a linear layer is: gate and up separately, as checkpoints hold them, so that a tensor scale is one for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantsuite.layer import UnsupportedError

Matrix = tuple[Tensor, Tensor | None]
"""A weight ``[N, K]`` and its bias ``[N]``."""
Product = Callable[[Tensor], Tensor]


def reproduces(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two outputs are the same but for rounding.

    A wrong layout is off by as much as the output itself; five roundings to its dtype are not by
    sixteen, nor is the order of a float32 sum of some thousands by a thousandth.
    """
    tolerance = max(1e-3, 16 * torch.finfo(theirs.dtype).eps)
    difference = (ours.double() - theirs.double()).norm()
    return ours.shape == theirs.shape and bool(difference <= tolerance * theirs.double().norm())


@dataclass(frozen=True, kw_only=True)
class FusedExperts:
    """How an experts module keeps its matrices.

    Args:
        module: with parameters ``gate_up_proj`` ``[E, 2I, H]`` or ``up_proj`` ``[E, I, H]``, and ``down_proj``
            ``[E, H, I]``, the last two dimensions exchanged if ``module.is_transposed``; perhaps biases.
    """

    module: nn.Module

    @classmethod
    def find(cls, module: nn.Module) -> FusedExperts | None:
        """The layout of a module that has such parameters, else ``None``."""
        own = dict(module.named_parameters(recurse=False))
        fused = any(name in own and own[name].ndim == 3 for name in ("gate_up_proj", "up_proj"))
        return cls(module=module) if fused and "down_proj" in own and own["down_proj"].ndim == 3 else None

    @property
    def gated(self) -> bool:
        return hasattr(self.module, "gate_up_proj")

    @property
    def interleaved(self) -> bool:
        return not getattr(self.module, "is_concatenated", True)

    @property
    def first(self) -> str:
        return "gate_up_proj" if self.gated else "up_proj"

    @property
    def weights(self) -> list[nn.Parameter]:
        return [getattr(self.module, self.first), self.module.down_proj]

    def __len__(self) -> int:
        return self.module.down_proj.shape[0]

    def _matrix(self, name: str, expert: int) -> Matrix:
        weight, bias = getattr(self.module, name)[expert], getattr(self.module, f"{name}_bias", None)
        weight = weight.t().contiguous() if getattr(self.module, "is_transposed", False) else weight
        return weight.detach(), None if bias is None else bias[expert].detach()

    def matrices(self, expert: int) -> dict[str, Matrix]:
        """The matrices of an expert by name: gate and up, or up; and down."""
        weight, bias = self._matrix(self.first, expert)
        down = {"down_proj": self._matrix("down_proj", expert)}
        if not self.gated:
            return {"up_proj": (weight, bias)} | down
        half = len(weight) // 2
        parts = (slice(0, None, 2), slice(1, None, 2)) if self.interleaved else (slice(half), slice(half, None))
        gate, up = ((weight[part], None if bias is None else bias[part]) for part in parts)
        return {"gate_proj": gate, "up_proj": up} | down

    def activate(self, first: Sequence[Tensor]) -> Tensor:
        """What lies between the layers: ``[tokens, I]`` of the gate's and up's outputs, or of up's alone."""
        if not self.gated:
            return self.module.act_fn(first[0])
        joined = torch.stack(list(first), dim=-1).flatten(-2) if self.interleaved else torch.cat(list(first), dim=-1)
        if hasattr(self.module, "_apply_gate"):
            return self.module._apply_gate(joined)
        return self.module.act_fn(first[0]) * first[1]

    def _pairs_rows(self, generator: torch.Generator) -> bool:
        """Whether an output of the activation depends on the row of its own number of gate and up alone.

        The rows of two matrices that were split in the wrong way are joined again in the right order.
        """
        size = self.module.down_proj.shape[-2 if getattr(self.module, "is_transposed", False) else -1]
        rows = [torch.randn((2, size), generator=generator).to(self.module.down_proj) for _ in range(1 + self.gated)]
        half = [torch.cat([row[:, : size // 2], torch.zeros_like(row[:, size // 2 :])], dim=-1) for row in rows]
        whole, changed = (self.activate(each)[:, : size // 2] for each in (rows, half))
        return torch.equal(whole, changed)

    def _reproduces_module(self, generator: torch.Generator) -> bool:
        """Whether the matrices, taken so, give for random tokens what the module gives."""
        weight = self.module.down_proj
        tokens, slots = 4, min(2, len(self))
        hidden = next(iter(self.matrices(0).values()))[0].shape[1]
        x = torch.randn((tokens, hidden), generator=generator).to(weight)
        index = torch.rand((tokens, len(self)), generator=generator).topk(slots).indices.to(weight.device)
        shares = torch.rand((tokens, slots), generator=generator).to(weight)
        experts = {
            expert: [partial(functional.linear, weight=w, bias=b) for w, b in self.matrices(expert).values()]
            for expert in index.unique().tolist()
        }
        return reproduces(mix(experts, self.activate, x, index, shares), self.module(x, index, shares))

    def check(self, path: str) -> None:
        """Check that this is how the module uses its parameters: by what it computes, not by its name.

        Raises:
            UnsupportedError: naming the parameter, if it is not.
        """
        generator = torch.Generator().manual_seed(0)
        try:
            with torch.no_grad():
                known = self._pairs_rows(generator) and self._reproduces_module(generator)
        except Exception:  # A module of another signature raises what it likes.
            known = False
        if not known:
            raise UnsupportedError(
                f"{path}.{self.first} {list(self.weights[0].shape)}: experts taken as matrices do not reproduce the "
                "module's output, so that they cannot be quantized; --scheme bf16 measures such a model unquantized"
            )


def mix(
    experts: dict[int, Sequence[Product]],
    activate: Callable[[Sequence[Tensor]], Tensor],
    hidden: Tensor,
    index: Tensor,
    shares: Tensor,
) -> Tensor:
    """The weighted sum of what each token's experts give.

    Args:
        experts: by number, the products of the first layer (gate and up, or up), then down.
        activate: what lies between.
        hidden: ``[tokens, H]``.
        index: ``[tokens, slots]``, the experts of a token; numbers of none of ``experts`` add nothing.
        shares: ``[tokens, slots]``.

    Returns:
        ``[tokens, H]`` in the dtype of ``hidden``.
    """
    parts = hidden.new_zeros((*index.shape, hidden.shape[-1]), dtype=torch.promote_types(hidden.dtype, shares.dtype))
    for expert in index.unique().tolist():
        if expert not in experts:
            continue
        token, slot = torch.where(index == expert)
        *first, down = experts[expert]
        output = down(activate([product(hidden[token]) for product in first]))
        parts[token, slot] = (output * shares[token, slot, None]).to(parts.dtype)
    return parts.sum(1).to(hidden.dtype)


class QuantizedExperts(nn.Module):
    """A fused experts module with a layer of its own for each matrix of each expert.

    Args:
        fused: the module.
        build: the layer of a matrix, of its name, such as ``3.gate_proj``, weight ``[N, K]`` and bias.
    """

    def __init__(self, fused: FusedExperts, build: Callable[[str, Tensor, Tensor | None], nn.Module]) -> None:
        super().__init__()
        self._activate = fused.activate
        self.experts = nn.ModuleList(
            nn.ModuleList(build(f"{expert}.{name}", *matrix) for name, matrix in fused.matrices(expert).items())
            for expert in range(len(fused))
        )

    def forward(self, hidden: Tensor, index: Tensor, shares: Tensor) -> Tensor:
        """See :func:`mix`."""
        return mix(dict(enumerate(self.experts)), self._activate, hidden, index, shares)
