"""The grammar of schemes and the names that it accepts."""

import pytest
from hypothesis import given

from quantsuite.granularity import coarseness, parse_granularity
from quantsuite.scheme import CATALOGUE, EXECUTIONS, REFERENCE, Scheme, Variant, alias, parse_alias, parse_variants
from quantsuite.strategies import schemes


@given(scheme=schemes())
def test_parsing_is_the_inverse_of_printing(scheme: Scheme) -> None:
    assert Scheme.parse(str(scheme)) == scheme


@pytest.mark.parametrize(
    "name",
    [
        "bf16",
        "int8-row",
        "int8-tensor",
        "fp8-g128",
        "fp8e5m2-row",
        "int4-g128-asym",
        "int8-row:int8-token",
        "fp8-b128x128:fp8-g128",
        "int8-row:int8-tensor-static",
        "int4-g128@awq",
        "int8-row:int8-token@smoothquant",
        "bf16+kv-int8-token",
    ],
)
def test_a_name_is_printed_as_it_was_written(name: str) -> None:
    assert str(Scheme.parse(name)) == name


def test_the_catalogue_is_two_formats_in_six_granularities() -> None:
    assert {str(scheme) for scheme in CATALOGUE} == {
        f"{fmt}-{granularity}"
        for fmt in ("int8", "fp8")
        for granularity in ("tensor", "row", "g64", "g128", "g256", "g512")
    }


@pytest.mark.parametrize("scheme", [REFERENCE, *CATALOGUE], ids=str)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_reports_name_is_the_scheme_and_its_execution(scheme: Scheme, execution: str) -> None:
    expected = None if scheme.is_reference else execution
    assert parse_alias(alias(scheme, execution)) == (scheme, expected)


def test_a_reports_name_chooses_its_execution_and_another_name_both() -> None:
    variants = parse_variants(["INT8_Per_Group_512_Fake", "fp8-row"], EXECUTIONS)
    assert [*map(str, variants)] == ["bf16", "int8-g512-simulated", "fp8-row-simulated", "fp8-row-real"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int9-row", "did you mean 'int"),
        ("int8", "names no granularity; write for example int8-row"),
        ("int8-line", "use tensor, row, token, head, g<size>"),
        ("int8-g0", "group size 0 is not positive"),
        ("fp8-row-asym", "a zero point needs an integer format"),
        ("int8-row-static-asym", "in this order"),
        ("bf16:int8-token", "need quantized weights"),
        ("", "is not a scheme"),
        ("int8-row:", "is not a scheme"),
    ],
)
def test_a_wrong_name_says_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scheme.parse(name)


@pytest.mark.parametrize(
    ("variant", "label", "name"),
    [
        (Variant(REFERENCE), "bf16", "BF16"),
        (Variant(Scheme.parse("int8-g64"), "real"), "int8-g64-real", "INT8_Per_Group_64_Real"),
        (Variant(Scheme.parse("mxfp4"), "simulated"), "mxfp4-simulated", None),
    ],
)
def test_a_variant_is_named_by_its_scheme_and_execution(variant: Variant, label: str, name: str | None) -> None:
    assert (variant.label, variant.alias) == (label, name)


def test_granularities_are_sorted_from_coarse_to_fine() -> None:
    names = ["tensor", "row", "g512", "g64", "b128x128"]
    assert sorted(map(parse_granularity, reversed(names)), key=coarseness) == [parse_granularity(n) for n in names]
