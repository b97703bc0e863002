"""Wrong layers of a quantized model, and how the message of the check begins that finds each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from meta_tests.layer_steps import (
    Plant,
    accumulates,
    activations_as_they_are,
    coarse,
    codes,
    dequantizes,
    executes_as_loaded,
    experts_in_reverse,
    flush_subnormals,
    group_begins_one_late,
    groups_one_late,
    int16_sums,
    keeps_a_copy,
    layer_of_the_one_before,
    moved_zero,
    multiplies,
    never_rounds,
    of_the_next,
    one_scale_for_all,
    other_granularity,
    packs,
    previous_scale,
    reads,
    scale_of_first_token,
    scale_of_tensor,
    scaled_where,
    scales_in_bf16,
    shares_outputs,
    simulated_in_place_of_real,
    simulated_without_last,
    some_rows_scaled_as_the_next,
    stored_in_four_bits,
    swap_nibbles,
    tokens,
    transposed_scales,
    truncate_tokens,
    truncated,
    twice,
    unquantized,
    unsigned,
    whole_tiles_only,
    without_last,
    without_last_row,
    without_last_where,
    without_partial_tile,
    zero_points,
)
from quantsuite.scheme import Execution


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A bug of execution.

    Args:
        name: of the test.
        plant: puts it in.
        finds: how the message begins.
        scheme: of the model.
        execution: of the model.
        model: ``tiny``, or a checkpoint of the tests.
    """

    name: str
    plant: Plant
    finds: str
    scheme: str = "int8-row"
    execution: Execution = "real"
    model: str = "tiny"


PLANNED, STORAGE, CODES = "not as planned: ", "storage: ", "codes and scales: "
WEIGHTS, BIAS, PRODUCTS_OF = "weights as multiplied: ", "bias: ", "products of activations: "
W8A8 = "int8-row:int8-token"

FAULTS = [
    Fault(name="truncation", plant=packs(truncated), finds=CODES),
    Fault(
        name="neighbour's scale on 1% of rows, packed",
        plant=packs(lambda quantized, _: some_rows_scaled_as_the_next(quantized)),
        finds=CODES,
    ),
    Fault(name="neighbour's scale on 1% of rows, multiplied", plant=reads(some_rows_scaled_as_the_next), finds=WEIGHTS),
    Fault(
        name="group boundary off by one, multiplied",
        plant=dequantizes(group_begins_one_late),
        finds=WEIGHTS,
        scheme="int8-g64",
    ),
    Fault(name="group boundary off by one, packed", plant=packs(groups_one_late), finds=CODES, scheme="int8-g64"),
    Fault(name="last column dropped", plant=multiplies(x=without_last), finds=WEIGHTS),
    Fault(
        name="last column dropped of many tokens",
        plant=multiplies(x=without_last_where(lambda m: m > 16)),
        finds=WEIGHTS,
    ),
    Fault(
        name="last column dropped of one token", plant=multiplies(x=without_last_where(lambda m: m == 1)), finds=WEIGHTS
    ),
    Fault(
        name="last column dropped of few tokens",
        plant=multiplies(x=without_last_where(lambda m: 1 < m <= 16)),
        finds=WEIGHTS,
    ),
    Fault(
        name="activations written to", plant=multiplies(x=lambda x: x.mul_(1.0625)), finds="execution: a product of ["
    ),
    Fault(name="products of few tokens scaled", plant=multiplies(y=scaled_where(lambda m: 2 <= m <= 8)), finds=WEIGHTS),
    Fault(
        name="products of many tokens scaled", plant=multiplies(y=scaled_where(lambda m: m > 1024)), finds=PRODUCTS_OF
    ),
    Fault(name="tokens beyond whole tiles of 64 lost", plant=multiplies(y=without_partial_tile(64)), finds=WEIGHTS),
    Fault(name="tokens beyond whole tiles of 128 lost", plant=multiplies(y=without_partial_tile(128)), finds=WEIGHTS),
    Fault(name="outputs in one buffer", plant=shares_outputs, finds=f"{PRODUCTS_OF}a product after later ones"),
    Fault(name="activations in float16", plant=multiplies(x=lambda x: x.half().to(x.dtype)), finds=WEIGHTS),
    Fault(name="columns beyond whole tiles dropped", plant=multiplies(x=whole_tiles_only(96)), finds=WEIGHTS),
    Fault(name="last row dropped", plant=multiplies(y=without_last_row), finds=WEIGHTS),
    Fault(name="tensor scale as row scale", plant=packs(scale_of_tensor), finds=CODES),
    Fault(name="six bits", plant=packs(codes(coarse(6))), finds=CODES),
    Fault(
        name="four bits posing as eight",
        plant=reads(lambda quantized: replace(quantized, values=coarse(4)(quantized.values))),
        finds=WEIGHTS,
    ),
    Fault(name="four bits stored as such", plant=stored_in_four_bits, finds=STORAGE),
    Fault(name="all in bf16, not exchanged", plant=unquantized(lambda path: True), finds=PLANNED),
    Fault(name="all in bf16 behind codes", plant=executes_as_loaded, finds=WEIGHTS),
    Fault(name="all in bf16 behind simulation", plant=executes_as_loaded, finds=WEIGHTS, execution="simulated"),
    Fault(
        name="first layer unquantized",
        plant=unquantized(lambda path: path.startswith("model.layers.0.")),
        finds=PLANNED,
    ),
    Fault(
        name="one linear unquantized",
        plant=unquantized(lambda path: path == "model.layers.1.self_attn.v_proj"),
        finds=PLANNED,
    ),
    Fault(name="simulated posing as real", plant=simulated_in_place_of_real, finds=PLANNED),
    Fault(name="simulated without rounding", plant=never_rounds, finds=CODES, execution="simulated"),
    Fault(name="last column dropped in simulation", plant=simulated_without_last, finds=WEIGHTS, execution="simulated"),
    Fault(name="subnormals flushed, packed", plant=packs(codes(flush_subnormals)), finds=CODES, scheme="fp8-row"),
    Fault(
        name="subnormals flushed, multiplied",
        plant=reads(lambda quantized: replace(quantized, values=flush_subnormals(quantized.values))),
        finds=WEIGHTS,
        scheme="fp8-row",
    ),
    Fault(name="scales in bf16, packed", plant=packs(lambda quantized, _: scales_in_bf16(quantized)), finds=CODES),
    Fault(name="scales in bf16, multiplied", plant=reads(scales_in_bf16), finds=WEIGHTS),
    Fault(name="scales in bf16, of fp8", plant=reads(scales_in_bf16), finds=WEIGHTS, scheme="fp8-tensor"),
    Fault(name="bias forgotten", plant=multiplies(bias=lambda bias: None), finds=BIAS, model="qwen2"),
    Fault(name="bias added twice", plant=multiplies(bias=twice), finds=BIAS, model="qwen2"),
    Fault(name="bias of the neighbour", plant=multiplies(bias=of_the_next), finds=BIAS, model="qwen2"),
    Fault(name="activations truncated", plant=tokens(truncate_tokens), finds=PRODUCTS_OF, scheme=W8A8),
    Fault(
        name="activation scale of the call before",
        plant=previous_scale(),
        finds=WEIGHTS,
        scheme="int8-tensor:int8-tensor",
    ),
    Fault(
        name="activation scale of the first token", plant=tokens(scale_of_first_token), finds=PRODUCTS_OF, scheme=W8A8
    ),
    Fault(name="one activation scale for all", plant=tokens(one_scale_for_all), finds=PRODUCTS_OF, scheme=W8A8),
    Fault(
        name="activations not quantized",
        plant=activations_as_they_are,
        finds=PRODUCTS_OF,
        scheme=W8A8,
        execution="simulated",
    ),
    Fault(name="sums cut to sixteen bits", plant=int16_sums, finds=PRODUCTS_OF, scheme=W8A8),
    Fault(name="zero point ignored", plant=reads(zero_points(torch.zeros_like)), finds=WEIGHTS, scheme="int8-row-asym"),
    Fault(
        name="zero point off by one, multiplied",
        plant=reads(zero_points(lambda zero: zero + 1)),
        finds=WEIGHTS,
        scheme="int8-row-asym",
    ),
    Fault(
        name="zero point off by one, packed",
        plant=packs(lambda quantized, _: zero_points(lambda zero: zero + 1)(quantized)),
        finds=CODES,
        scheme="int8-row-asym",
    ),
    Fault(
        name="zero point and codes off by one, packed",
        plant=packs(lambda quantized, _: moved_zero(quantized)),
        finds=f"{CODES}zero point",
        scheme="int8-row-asym",
    ),
    Fault(name="signed read as unsigned", plant=reads(unsigned), finds=WEIGHTS),
    Fault(name="nibbles swapped", plant=reads(swap_nibbles), finds=WEIGHTS, scheme="int4-g32"),
    Fault(
        name="nibbles swapped, packed",
        plant=packs(lambda quantized, _: swap_nibbles(quantized)),
        finds=CODES,
        scheme="int4-g32",
    ),
    Fault(name="scales transposed", plant=reads(transposed_scales), finds=WEIGHTS, scheme="int8-b64x64"),
    Fault(
        name="scale applied twice",
        plant=reads(lambda quantized: replace(quantized, scale=quantized.scale.square())),
        finds=WEIGHTS,
    ),
    Fault(
        name="rows permuted",
        plant=reads(lambda quantized: replace(quantized, values=quantized.values.roll(8, 0))),
        finds=WEIGHTS,
    ),
    Fault(name="experts in another order", plant=experts_in_reverse, finds=CODES, model="qwen3-moe"),
    Fault(name="weights of the layer before", plant=layer_of_the_one_before(), finds=CODES),
    Fault(name="another granularity", plant=other_granularity, finds=CODES),
    Fault(name="a copy beside the codes", plant=keeps_a_copy, finds=STORAGE),
    Fault(name="sums in float16", plant=accumulates(torch.float16), finds=PRODUCTS_OF),
    Fault(name="sums in bfloat16", plant=accumulates(torch.bfloat16), finds=PRODUCTS_OF),
    Fault(name="codes saturated at 126", plant=packs(codes(lambda values: values.clamp(-126, 126))), finds=CODES),
    Fault(
        name="code -128 in the restricted range",
        plant=packs(codes(lambda values: values.where(values != -127, -128))),
        finds=CODES,
    ),
]
