"""Torch's products for processors: what fails of them, in plain torch, and where they say that they do not run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantsuite.kernels.registry import find
from quantsuite.kernels.torch_cpu import KERNELS
from quantsuite.scheme import Scheme

PACK, MULTIPLY = torch.ops.aten._dyn_quant_pack_4bit_weight, torch.ops.aten._dyn_quant_matmul_4bit
without_kleidiai = pytest.mark.skipif(
    torch.backends.kleidiai.is_available(), reason="failures of the path without KleidiAI"
)


def four_bit(codes: list[list[int]]) -> Tensor:
    """Packed codes ``[N, K]`` of 0 to 15, scales of one, one group a row."""
    values = torch.tensor(codes, dtype=torch.uint8)
    n, k = values.shape
    return PACK(values[:, ::2] | values[:, 1::2] << 4, torch.ones(n, 1), None, k, k, n)


@without_kleidiai
def test_torch_truncates_results_of_four_bits_to_bfloat16() -> None:
    x = torch.tensor([[0, 255, 2, 0]], dtype=torch.bfloat16)  # codes at scale one
    got = MULTIPLY(x, four_bit([[8, 15, 15, 8]]), 4, 4, 1)
    exact = 7 * 255 + 7 * 2
    assert got.item() == 1792 and torch.tensor(float(exact)).bfloat16().item() == 1800


@without_kleidiai
def test_torch_makes_a_number_of_nan_before_it_multiplies_by_four_bits() -> None:
    x = torch.tensor([[0, 255, torch.nan, 0]])
    assert torch.isfinite(MULTIPLY(x, four_bit([[8, 15, 15, 8]]), 4, 4, 1)).all()


@without_kleidiai
def test_torch_packs_each_byte_of_four_bits_into_a_float32() -> None:
    packed = four_bit([[8] * 64] * 32)
    assert packed.nbytes > 4 * 32 * 32


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_operators_of_processors_say_that_they_run_nowhere_else(kernel: object) -> None:
    reason = find(kernel.name).unsupported(Scheme.parse(kernel.schemes[0]), "cuda")
    assert reason == f"{kernel.name} runs on processors alone, not on cuda"


def test_an_odd_k_is_no_pair_of_codes() -> None:
    kernel = find("torch-dyn-quant-4bit-row")
    reason = kernel.unsupported_shape(Scheme.parse(kernel.schemes[0]), "cpu", 1, 1, 1)
    assert reason == "K=1 is odd, whose last code has no other to share a byte with"


def test_onednn_takes_a_scale_of_calibration_or_of_the_tensor() -> None:
    kernel = find("torch-onednn-int8")
    assert all(map(kernel.takes, map(Scheme.parse, ("int8-row:int8-tensor", "int8-row:int8-tensor-static"))))
    assert not any(map(kernel.takes, map(Scheme.parse, ("int8-row", "int8-row:int8-token"))))
