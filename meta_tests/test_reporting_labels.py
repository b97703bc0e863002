"""The reference is called by the dtype that it was measured in, and never by another."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from rich.console import Console, RenderableType

from meta_tests import factories
from meta_tests.factories import DIRECT, PERPLEXITY, changed_choices, choices, record
from quantsuite.contrasts import parse_contrast
from quantsuite.gate import gate_against_reference
from quantsuite.margins import Margins
from quantsuite.records import Record, Run
from quantsuite.reporting import gate_summary, scheme_line, terminal_summary, write_report

MARGINS = Margins()


def in_dtype(dtype: str, records: Sequence[Record]) -> list[Record]:
    """The records as they would be had the model been loaded so."""
    environments = [msgspec.structs.replace(each.environment, dtype=dtype) for each in records]
    return [msgspec.structs.replace(r, environment=e) for r, e in zip(records, environments, strict=True)]


def shown(renderable: RenderableType) -> str:
    console = Console(width=160, file=io.StringIO(), color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def two(dtype: str, weight_bytes: int = 8_000_000) -> list[Record]:
    """A reference, and a scheme of half its size that leaves an eighth of the parameters."""
    before = choices(400, 0.8)
    after = changed_choices(before, lost=30, gained=2)
    records = [
        record(DIRECT, items=before, weight_bytes=weight_bytes),
        record(DIRECT, "int8-row", "real", items=after, weight_bytes=weight_bytes // 2),
    ]
    return in_dtype(dtype, [records[0], msgspec.structs.replace(records[1], unquantized=0.125)])


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_no_page_names_another_dtype_than_that_of_the_reference(dtype: str, tmp_path: Path) -> None:
    missing = record(PERPLEXITY, "fp8-row", "real", items=factories.perplexities(20))
    details = {"bits_per_byte": 0.75, "floor_bits_per_byte": 0.5}
    records = [record(PERPLEXITY, items=factories.perplexities(20), details=details), *factories.matrix(texts=30)[1::3]]
    for each in (in_dtype(dtype, records), in_dtype(dtype, [missing])):
        write_report(Run(records=each), tmp_path)
        texts = [path.read_text() for path in tmp_path.iterdir()] + [shown(terminal_summary(each, MARGINS))]
        assert not re.findall(r".{0,20}bf16.{0,20}", "\n".join(texts), flags=re.IGNORECASE)
        assert all(dtype in text for text in texts if "<svg" not in text[:500])


def test_a_contrast_with_the_reference_names_its_dtype(tmp_path: Path) -> None:
    contrast = [parse_contrast("scheme=bf16 execution='' vs scheme=int8-row execution=real")]
    write_report(Run(records=two("fp32")), tmp_path, contrasts=contrast)
    assert "### int8-row real against fp32" in (tmp_path / "report.md").read_text()
    assert "int8-row real against fp32" in shown(terminal_summary(two("fp32"), MARGINS, contrast))


def test_the_line_of_a_finished_reference_begins_with_its_dtype() -> None:
    records = two("fp32")
    assert scheme_line("bf16", records, MARGINS).startswith("fp32  ")
    assert scheme_line("int8-row-real", records, MARGINS).startswith("int8-row-real  ")


def test_a_gate_names_the_reference_that_is_missing_and_the_option_that_adds_it() -> None:
    (reason,) = (check.reason for check in gate_against_reference(two("fp32")[1:]).checks)
    assert reason == "the run has no fp32 of this model and task; add bf16 to --scheme"
    assert "fp32" in shown(gate_summary(gate_against_reference(two("fp32")[1:])))


def test_each_dtype_of_a_report_has_its_own_share_of_weights(tmp_path: Path) -> None:
    write_report(Run(records=[*two("bf16"), *two("fp32", 16_000_000)]), tmp_path)
    first, second = (tmp_path / "report.md").read_text().split("\n## ")[1:]
    for section, dtype in ((first, "bf16"), (second, "fp32")):
        assert f"Weights, share of {dtype}" in section and "50.0 %" in section
        assert f"12.5 % of the parameters (embeddings, norms, biases, routers, head), in {dtype}" in section
    assert "fp32" not in first and "bf16" not in second


def test_a_quantized_head_is_not_listed_among_what_is_left() -> None:
    records = [msgspec.structs.replace(r, subject=msgspec.structs.replace(r.subject, head=True)) for r in two("bf16")]
    assert "(embeddings, norms, biases, routers), in bf16" in shown(terminal_summary(records, MARGINS))


def test_a_contrast_of_dtypes_names_each_side_and_calls_the_reference_of_neither(tmp_path: Path) -> None:
    records = [*two("bf16"), *two("fp32")]
    records = [
        msgspec.structs.replace(r, subject=msgspec.structs.replace(r.subject, model_sha256="ab" * 32)) for r in records
    ]
    write_report(Run(records=records), tmp_path, contrasts=[parse_contrast("dtype=fp32 vs dtype=bf16")])
    markdown = (tmp_path / "report.md").read_text()
    table = markdown.split("bf16 against fp32")[-1]
    assert "fp32 to bf16, points" in table and "| unquantized" in table and "| int8-row" in table
