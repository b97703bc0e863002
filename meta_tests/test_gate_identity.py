"""What stood in the model is a condition of a comparison: a difference of it never passes a gate."""

from __future__ import annotations

import msgspec
import pytest

from meta_tests.gated import CHOICES, cell, failures, replaced
from quantsuite.gate import gate, gate_against_reference
from quantsuite.lines import decode_line, encode_line
from quantsuite.margins import MODES, Mode
from quantsuite.provenance import Identity
from quantsuite.reading import read_run
from quantsuite.records import Record
from quantsuite.tiny import embedded_baseline

PACKED = Identity(
    schemes={"int8-row": 21},
    storage={"int8": 21},
    kernels={"ours-codes": 21},
    decode={"ours-gemv": 21},
    share=0.86,
    bits=8.055,
)
PLAIN = Identity(storage={"bfloat16": 21}, share=0.0)


def real(**changes: object) -> Record:
    return replaced(cell(CHOICES), **{"subject__execution": "real", "identity": PACKED} | changes)


def reference(**changes: object) -> Record:
    return replaced(cell(CHOICES, scheme="bf16"), **{"identity": PLAIN} | changes)


def refusal(candidate: Record, baseline: Record) -> str:
    [(status, reason)] = failures(gate([candidate], [baseline]))
    assert status == "not comparable"
    return reason


@pytest.mark.parametrize("mode", MODES)
def test_equal_identities_pass(mode: Mode) -> None:
    result = gate([real(), reference()], [real(), reference()], mode=mode)
    assert result.passed and not result.notes


MIXED = {"fp8-row": 1, "int8-row": 20}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"identity__schemes": {"int8-g64": 21}}, "the quantized part is 21 matrices of int8-g64, not 21 matrices of "),
        ({"identity__schemes": {"int8-row": 20}}, "part is 20 matrices of int8-row, not 21 matrices of int8-row"),
        ({"identity__schemes": MIXED}, "is 1 matrix of fp8-row, 20 matrices of int8-row, not 21 matrices of int8"),
        ({"identity__share": 0.85}, "the share of parameters quantized is 0.85, not 0.86"),
        ({"identity__storage": {"bfloat16": 21}}, "the storage is 21 matrices of bfloat16, not 21 matrices of int8"),
        ({"weight_bytes": 5_000_000}, "the size of all weights is 5,000,000 bytes, not 4,000,000 bytes"),
        ({"weight_bytes": 4_000_001}, "the size of all weights is 4,000,001 bytes, not 4,000,000 bytes"),
        ({"identity__bits": 8.5}, "the size of a quantized weight is 8.5 bits, not 8.055 bits"),
        ({"identity__kernels": {"other": 21}}, "the kernel is 21 matrices of other, not 21 matrices of ours-codes"),
        ({"identity__decode": {"other": 21}}, "a single token is 21 matrices of other, not 21 matrices of ours-gemv"),
        ({"identity__decode": {}}, "a single token is 21 matrices of ours-codes, not 21 matrices of ours-gemv"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_another_identity_is_not_comparable_and_both_values_are_named(changes: dict[str, object], reason: str) -> None:
    assert reason in refusal(real(**changes), real())


def test_a_model_left_as_it_was_is_named() -> None:
    assert refusal(real(identity=PLAIN), real()) == "no matrix is quantized, the scheme is int8-row"


def test_fewer_bits_than_the_format_has_are_named_whatever_the_baseline_says() -> None:
    four = real(identity__bits=4.055)
    assert refusal(four, real()) == "a weight takes 4.055 bits, int8-row at least 8"
    assert refusal(four, real(identity=None)) == "a weight takes 4.055 bits, int8-row at least 8"


def test_a_quantized_reference_is_not_comparable() -> None:
    expected = "the quantized part is 21 matrices of int8-row, bf16 has none"
    assert refusal(reference(identity=PACKED), reference()) == expected
    assert refusal(reference(), reference(identity=PACKED)) == f"the baseline itself: {expected}"


def test_a_reference_held_in_another_dtype_is_not_comparable() -> None:
    wide = reference(identity__storage={"float32": 21})
    assert refusal(wide, reference()) == "the storage is 21 matrices of float32, not 21 matrices of bfloat16"


def test_against_the_reference_too_nothing_quantized_fails() -> None:
    statuses = [status for status, _ in failures(gate_against_reference([reference(), real(identity=PLAIN)]))]
    assert statuses == ["not comparable"]


def test_against_the_reference_a_quantized_model_is_comparable() -> None:
    assert gate_against_reference([reference(), real(weight_bytes=1_000_000)]).passed


def test_other_hardware_may_dispatch_another_kernel() -> None:
    other = real(identity__kernels={"other": 21}, environment__hardware="x86_64, AVX2")
    assert gate([other], [real()]).passed


def test_other_hardware_does_not_excuse_another_storage() -> None:
    assert "the storage is" in refusal(real(identity__storage={"bfloat16": 21}, environment__hardware="AVX2"), real())


def mine(**changes: object) -> Record:
    named = {"kernels": {"mine": 21}, "decode": {}, "storage": {"int32": 21}, "bits": 9.0}
    return real(subject__kernel="mine", weight_bytes=9, **{f"identity__{k}": v for k, v in named.items()} | changes)


def test_a_users_kernel_may_store_what_it_likes_under_the_cells_baseline() -> None:
    assert gate([mine()], [real()]).passed


def test_a_users_kernel_does_not_change_what_is_quantized() -> None:
    assert "part is 20 matrices" in refusal(mine(identity__schemes={"int8-row": 20}), real())


def test_a_users_kernel_is_held_to_the_storage_of_its_own_baseline() -> None:
    assert "bits, not 9 bits" in refusal(mine(identity__bits=16.0), mine())


def test_a_baseline_without_identity_is_compared_and_told_once() -> None:
    run, before = [real(), reference()], [real(identity=None), reference(identity=None)]
    result = gate(run, before)
    assert result.passed
    assert result.notes == ("baseline without identity in 2 of 2 cells: measure it again",)


def test_a_run_without_identity_is_not_comparable_with_a_baseline_that_has_one() -> None:
    assert "the run's record has no identity, the baseline's has" in refusal(real(identity=None), real())


def test_another_condition_is_named_without_what_follows_from_it() -> None:
    wide = reference(identity__storage={"float32": 21}, environment__dtype="fp32")
    assert refusal(wide, reference()) == "dtype is fp32, not bf16"


def test_an_identity_is_read_as_it_was_written() -> None:
    assert decode_line(encode_line(real())) == real()


def test_a_record_without_identity_is_written_as_before() -> None:
    assert b"identity" not in encode_line(cell(CHOICES))


@pytest.mark.parametrize(
    "wrong", [{"schemes": {"int8-row": 0}}, {"kernels": {"a": -1}}, {"share": 1.5}, {"bits": -1.0}], ids=str
)
def test_an_impossible_identity_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Identity)


def test_every_cell_of_the_shipped_baseline_has_an_identity() -> None:
    path = embedded_baseline("tiny")
    assert path is not None
    found = {record.subject.label: record.identity for record in read_run(path, purpose="baseline").records}
    assert len(found) == 25
    assert {label: found[label].matrices for label in found} == {label: 21 * (label != "bf16") for label in found}
