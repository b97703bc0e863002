"""A bias at every size and wherever it lies in memory: it is added once, to its own output, as it is.

Activations of zero have products of zero, so that the output is the bias itself, whatever K and the weight are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from quantsuite.checks.chosen import reversed_codes
from quantsuite.checks.layouts import attempt
from quantsuite.checks.outcome import NotApplicable, NotSupported, compare, require_tensor, same
from quantsuite.checks.setting import Setting
from quantsuite.kernels import protocol
from quantsuite.kernels.protocol import Product, takes_bias
from quantsuite.scheme import Scheme

SHAPES = ((1, 37, 1100), (33, 21, 130), (17, 13, 2100), (5, 7, 8200))
"""Of odd N, and of K around and beyond the parts that split-K takes: 1,024, 2,048, 4,096."""
LARGEST = 2**18
"""Elements of a weight, at most; of tiles and blocks that are large the longest K has more."""
MARGIN = 8
"""Elements around a bias that are not its own."""


def _alone(bias: Tensor, around: float, step: int, begin: int) -> tuple[Tensor, Tensor]:
    whole = bias.new_full((2 * MARGIN + step * len(bias),), around)
    return whole, whole[begin:][: step * len(bias) : step].copy_(bias)


def _column(bias: Tensor, around: float) -> tuple[Tensor, Tensor]:
    whole = bias.new_full((len(bias), MARGIN), around)
    return whole, whole[:, 3].copy_(bias)


LAYOUTS: dict[str, Callable[[Tensor, float], tuple[Tensor, Tensor]]] = {
    "contiguous": lambda bias, _: (whole := bias.clone(), whole),
    "every second element of a vector": lambda bias, around: _alone(bias, around, 2, MARGIN),
    "every third element of a vector": lambda bias, around: _alone(bias, around, 3, 1),
    "from the second element of a longer vector on": lambda bias, around: _alone(bias, around, 1, 1),
    "from the ninth element of a longer vector on": lambda bias, around: _alone(bias, around, 1, MARGIN),
    "a column of a matrix": _column,
    "one element expanded": lambda bias, around: (
        whole := torch.cat([bias[:1], bias.new_full((len(bias),), around)]),
        whole[:1].expand(len(bias)),
    ),
    "in reversed order": lambda bias, _: (whole := bias.flip(0), whole),
    "a parameter": lambda bias, _: (whole := nn.Parameter(bias.clone()), whole),
}
"""Of a vector ``[N]`` and of what is to be around it: a tensor, and the bias as a view of it."""


def _require_bias(kernel: Product) -> None:
    if not takes_bias(kernel):
        raise NotApplicable(f"{kernel.name} declares no takes_bias; its caller adds the bias")


def _in_batches(x: Tensor) -> Tensor:
    """Tokens ``[M, K]`` in three dimensions."""
    size = next(size for size in (11, 5, len(x)) if len(x) % size == 0)
    return x.view(-1, size, x.shape[1])


def _packed(setting: Setting, weight: Tensor) -> Iterator[tuple[str, object]]:
    """The packed weight, and one of codes that were chosen if the kernel takes such."""
    yield "", setting.pack(weight)
    if hasattr(setting.kernel, "pack_quantized"):
        chosen = reversed_codes(weight, setting.scheme.weight)
        yield ", chosen codes", protocol.pack(setting.kernel, chosen, setting.scheme)


def check_product_bias_at_all_sizes(
    kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Zero activations give the bias as it is, at long K, odd N, any number of tokens and in three dimensions."""
    _require_bias(kernel)
    setting = Setting(kernel, scheme, device, dtype, seed)
    for m, n, k in setting.fitting(*SHAPES):
        if n * k > LARGEST:
            continue
        bias = setting.draw(n, offset=2)
        zeros = torch.zeros(m, k, device=device, dtype=dtype)
        for which, packed in _packed(setting, setting.draw(n, k, offset=1)):
            for x in (zeros, _in_batches(zeros)):
                got = setting.multiply(x, packed, n, bias=bias)
                case = f"bias at zero activations {list(x.shape)} x [{n}, {k}]{which}"
                same(case, got.reshape(-1, n), bias.expand(m, n))
    return 0.0


def check_product_bias_layouts(kernel: Product, scheme: Scheme, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """A bias that is a view of a larger tensor is added as it is or refused, and neither is changed.

    So is one in another dtype, rounded to that of the result: once, or once before and once after it is added.
    """
    _require_bias(kernel)
    setting = Setting(kernel, scheme, device, dtype, seed)
    m, n, k = setting.shape(m=4)
    packed, zeros = setting.pack(setting.draw(n, k, offset=1)), torch.zeros(m, k, device=device, dtype=dtype)
    bias, name, taken = setting.draw(n, offset=2), f"{kernel.name}.linear", 0
    for layout, lay in LAYOUTS.items():
        whole, view = lay(bias, torch.nan)
        case = f"bias [{n}], {layout}"
        got = attempt(case, name, whole, lambda view=view: setting.multiply(zeros, packed, n, bias=view))
        if got is not None:
            same(f"{case}, at zero activations", got, view.detach().expand(m, n))
            taken += 1
    if not taken:
        raise NotSupported(f"{kernel.name} refuses every bias with a ValueError")
    return _other_dtype(setting, zeros, packed, bias)


def _other_dtype(setting: Setting, zeros: Tensor, packed: object, bias: Tensor) -> float:
    """The error of a bias in another dtype; 0 if it is refused, by what torch's operators raise too."""
    other = torch.bfloat16 if setting.dtype == torch.float32 else torch.float32
    given = bias.to(other) * (1 if other == torch.bfloat16 else 1 + 2.0**-14)
    scale = setting.static_scale(zeros)
    try:
        y = protocol.multiply(setting.kernel, zeros, packed, bias=given, activation_scale=scale)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError):
        return 0.0
    got = require_tensor(f"{setting.kernel.name}.linear", y, (len(zeros), len(bias)))
    expected = given.double().cpu().expand(got.shape)
    eps = torch.finfo(setting.dtype).eps / 2
    return compare(
        f"bias in {other} for activations in {setting.dtype}", got, expected, expected.abs() * ((1 + eps) ** 2 - 1)
    )
