"""Reports say what the records' items say, and nothing else."""

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from meta_tests import factories
from meta_tests.factories import (
    DIRECT,
    DRIFT,
    PERPLEXITY,
    changed_choices,
    changed_perplexities,
    choices,
    environment,
    record,
)
from quantsuite.contrasts import FORMATS
from quantsuite.gate import gate_against_reference
from quantsuite.margins import Margins
from quantsuite.power import Flips, smallest_seen
from quantsuite.records import Outcome, Record, Run
from quantsuite.reporting import gate_summary, terminal_summary, write_report
from quantsuite.reporting.analysis import ModelAnalysis, analyse
from quantsuite.reporting.answers import answers
from quantsuite.reporting.findings import Answer
from quantsuite.reporting.wording import approximately

MARGINS = Margins()
REFERENCE = choices(1000, 0.823)


def analysed(records: list[Record]) -> ModelAnalysis:
    (model,) = analyse(records, MARGINS)
    return model


def pages(records: list[Record], folder: Path) -> tuple[str, str]:
    """Markdown and HTML."""
    write_report(Run(records=records), folder)
    return (folder / "report.md").read_text(), (folder / "report.html").read_text()


def rendered(renderable: object, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def text_of(answer: Answer) -> str:
    findings = (f"{finding.subject}: {finding.answer} {' '.join(finding.sentences)}" for finding in answer.findings)
    return "\n".join((answer.summary, *findings))


def markdown_row(markdown: str, *cells: str) -> list[str]:
    """The cells of the one table row that has all of ``cells``."""
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in markdown.splitlines() if line[:1] == "|"
    ]
    (row,) = [row for row in rows if set(cells) <= set(row)]
    return row


def two(lost: int, gained: int) -> list[Record]:
    changed = changed_choices(REFERENCE, lost=lost, gained=gained)
    return [record(DIRECT, items=REFERENCE), record(DIRECT, "int8-tensor", "real", items=changed)]


def test_a_planted_loss_is_called_worse_with_its_size() -> None:
    worse, _ = answers(analysed(two(lost=62, gained=12)))
    assert worse.summary == "Yes, beyond the margin: world-mmlu/direct."
    assert "INT8: 1 of 1 are distinguishably worse than bf16: int8-tensor (real)" in text_of(worse)
    assert "The largest loss is that of int8-tensor real: +5.00 [" in text_of(worse)


@pytest.mark.parametrize("flips", [1, 20])
def test_no_difference_is_called_not_distinguishable_with_what_could_have_been_seen(flips: int) -> None:
    worse, _ = answers(analysed(two(lost=flips, gained=flips)))
    assert worse.summary == "Not distinguishable: world-mmlu/direct."
    assert "INT8: not distinguishable from bf16 at n=1,000 questions (1 variant)" in text_of(worse)
    seen = smallest_seen(Flips(share=(2 * flips + 1) / 1002), 0.0, 1000)
    assert seen and f"A loss smaller than about {100 * seen:.2f} points could have gone unseen" in text_of(worse)


def test_an_improvement_is_not_a_loss() -> None:
    worse, _ = answers(analysed(two(lost=5, gained=60)))
    assert worse.summary == "No: world-mmlu/direct."
    assert "distinguishably better than bf16: int8-tensor (real)" in text_of(worse)


def test_identical_outcomes_have_an_interval_of_zero() -> None:
    text = factories.perplexities(50)
    model = analysed([record(PERPLEXITY, items=text), record(PERPLEXITY, "fp8-row", "real", items=text)])
    worse, _ = answers(model)
    assert "The outcomes are identical, item by item." in text_of(worse)
    (row,) = model.metrics[0].compared
    assert row.comparison and (row.comparison.loss.low, row.comparison.loss.high) == (0, 0)


def test_what_is_undecided_says_how_many_items_would_decide() -> None:
    records = two(lost=30, gained=18)
    worse, _ = answers(analysed(records))
    (row,) = analysed(records).metrics[0].compared
    assert row.comparison and row.comparison.verdict == "undecided"
    assert row.comparison.items_to_decide is not None
    assert f"About {approximately(row.comparison.items_to_decide)} questions would decide" in text_of(worse)


def test_one_interval_in_twenty_four_is_left_to_chance() -> None:
    records = [record(DIRECT, items=REFERENCE)]
    for index, (scheme, execution) in enumerate(factories.variants()):
        lost, gained = (24, 9) if index == 0 else (10, 10)
        items = changed_choices(REFERENCE, lost=lost, gained=gained, seed=index)
        records.append(record(DIRECT, scheme, execution, items=items))
    worse, _ = answers(analysed(records))
    assert "1 of 12 are distinguishably worse" in text_of(worse)
    assert worse.summary.startswith("Undecided")
    assert "chance alone" in text_of(worse)


def ladder(losses: dict[str, dict[str, float]]) -> list[Record]:
    """bf16 and real variants that lose so many nats a token."""
    text = factories.perplexities(200)
    records = [record(PERPLEXITY, items=text)]
    for seed, (form, by_granularity) in enumerate(losses.items()):
        for granularity, loss in by_granularity.items():
            items = changed_perplexities(text, change=loss, noise=0.002, seed=seed)
            records.append(record(PERPLEXITY, f"{form}-{granularity}", "real", items=items))
    return records


@pytest.mark.parametrize(
    ("int8", "fp8", "answer"),
    [
        ({"tensor": 0.05, "row": 0.04, "g128": 0.002, "g64": 0.0}, {"tensor": 0.0, "row": 0.0, "g64": 0.0}, "no"),
        ({"tensor": 0.05, "row": 0.001, "g64": 0.0}, {"tensor": 0.06, "row": 0.002, "g64": 0.0}, "yes"),
        ({"tensor": 0.01, "row": 0.001, "g64": 0.0}, {"tensor": 0.01, "row": 0.001, "g64": 0.0}, "undecided"),
    ],
    ids=["needs-differ", "needs-equal", "on-the-margin"],
)
def test_the_group_sizes_needed_follow_from_the_losses(
    int8: dict[str, float], fp8: dict[str, float], answer: str
) -> None:
    _, group_size = answers(analysed(ladder({"int8": int8, "fp8": fp8})))
    assert [finding.answer for finding in group_size.findings] == [answer]


def test_the_group_size_named_is_the_coarsest_that_suffices() -> None:
    records = ladder({"int8": {"tensor": 0.05, "row": 0.04, "g128": 0.002, "g64": 0.0}, "fp8": {"tensor": 0, "g64": 0}})
    _, group_size = answers(analysed(records))
    assert "g128 suffices; row does not suffice: it loses +0.04" in text_of(group_size)
    assert "FP8: tensor is not distinguishable from g64 at n=200 documents" in text_of(group_size)


@pytest.mark.parametrize(("fp8", "answer"), [(0.0, "no"), (0.3, "no granularity measured suffices")])
def test_no_granularity_suffices_if_the_finest_is_worse_than_bf16(fp8: float, answer: str) -> None:
    losses = {form: {"tensor": loss, "g64": loss} for form, loss in (("int8", 0.3), ("fp8", fp8))}
    _, group_size = answers(analysed(ladder(losses)))
    (finding,) = group_size.findings
    assert finding.answer == answer
    beyond = "g64 itself is worse than bf16 by more than the margin"
    assert [beyond in sentence for sentence in finding.sentences] == [True, fp8 > 0]


def test_equal_outcomes_are_called_identical() -> None:
    worse, _ = answers(analysed(two(0, 0)))
    assert "The outcomes are identical, item by item." in text_of(worse)


def test_a_loss_of_zero_is_not_called_a_gain() -> None:
    worse, _ = answers(analysed(two(lost=5, gained=5)))
    assert "The largest loss is that of int8-tensor real: +0.00 [" in text_of(worse)
    assert "No variant loses" not in text_of(worse)


def test_one_format_alone_leaves_the_second_question_open() -> None:
    _, group_size = answers(analysed(ladder({"int8": {"tensor": 0.05, "g64": 0.0}})))
    assert group_size.summary.startswith("Not answered")


def test_percentages_are_the_means_of_the_items(tmp_path: Path) -> None:
    records = two(lost=62, gained=12)
    markdown, _ = pages(records, tmp_path)
    assert "82.3" in markdown_row(markdown, "bf16", "BF16")
    assert "77.3" in markdown_row(markdown, "int8-tensor", "real", "INT8\\_Per\\_Tensor\\_Real")


def test_memory_is_a_share_of_that_of_bf16(tmp_path: Path) -> None:
    records = [
        record(DIRECT, items=REFERENCE, weight_bytes=8 * 2**20),
        record(DIRECT, "int8-row", "real", items=REFERENCE, weight_bytes=5 * 2**20),
    ]
    markdown, _ = pages(records, tmp_path)
    assert {"5.00", "62.5 %"} <= set(markdown_row(markdown, "int8-row", "real", "INT8\\_Per\\_Row\\_Real"))


@pytest.mark.parametrize("outcome", ["skipped", "unsupported", "error"])
def test_what_was_not_measured_is_shown_with_its_reason(outcome: Outcome, tmp_path: Path) -> None:
    missing = record(DIRECT, "fp8-row", "real", outcome=outcome, reason="no <kernel> for sm_80")
    for records in ([missing], [*two(5, 5), missing]):
        markdown, html = pages(records, tmp_path)
        assert f"{outcome}: no \\<kernel> for sm\\_80" in markdown_row(markdown, "fp8-row", "real")
        assert f"{outcome}: no &lt;kernel&gt; for sm_80" in html
        assert f"fp8-row (real): {outcome}: no <kernel> for sm_80" in rendered(terminal_summary(records, MARGINS), 100)


def test_a_failed_test_keeps_its_number_and_shows_its_reason(tmp_path: Path) -> None:
    items = changed_choices(REFERENCE, lost=62, gained=12)
    failed = record(DIRECT, "int8-row", "real", items=items, outcome="failed", reason="worse than bf16")
    markdown, _ = pages([record(DIRECT, items=REFERENCE), failed], tmp_path)
    row = markdown_row(markdown, "int8-row", "real", "failed: worse than bf16")
    assert "77.3" in row and "worse" in row


def test_without_bf16_there_are_values_and_no_comparison(tmp_path: Path) -> None:
    records = [record(DIRECT, "int8-row", "real", items=REFERENCE)]
    markdown, _ = pages(records, tmp_path)
    assert {"82.3", "no bf16 in this run"} <= set(markdown_row(markdown, "int8-row", "real"))
    assert "Not answered: no quantized scheme was compared with bf16." in markdown


def test_different_conditions_are_not_compared() -> None:
    other = record(DIRECT, "int8-row", "real", items=changed_choices(REFERENCE, lost=100, gained=0))
    versions = {**other.environment.versions, "torch": "2.14.0"}
    other = msgspec.structs.replace(other, environment=msgspec.structs.replace(other.environment, versions=versions))
    model = analysed([record(DIRECT, items=REFERENCE), other])
    assert not model.metrics[0].compared
    row = next(row for row in model.metrics[0].rows if not row.record.subject.is_reference)
    assert row.rank is None
    assert row.note == "not comparable with bf16: torch is 2.14, not 2.13"


def test_a_model_on_two_devices_is_two_models() -> None:
    records = [*two(5, 5), *(msgspec.structs.replace(each, environment=environment("H200")) for each in two(100, 0))]
    models = analyse(records, MARGINS)
    assert [model.model for model in models] == ["tiny (transformers, cpu, bf16)", "tiny (transformers, H200, bf16)"]
    assert [len(model.metrics[0].compared) for model in models] == [1, 1]


def test_executions_are_not_merged(tmp_path: Path) -> None:
    records = [
        record(DIRECT, items=REFERENCE),
        record(DIRECT, "int8-row", "simulated", items=changed_choices(REFERENCE, lost=3, gained=0)),
        record(DIRECT, "int8-row", "real", items=changed_choices(REFERENCE, lost=50, gained=0)),
    ]
    markdown, _ = pages(records, tmp_path)
    assert "82.0" in markdown_row(markdown, "int8-row", "simulated", "INT8\\_Per\\_Row\\_Fake")
    assert "77.3" in markdown_row(markdown, "int8-row", "real", "INT8\\_Per\\_Row\\_Real")
    assert "simulated better" in markdown_row(markdown, "int8-row", "simulated better")


def test_metrics_and_models_stay_apart(tmp_path: Path) -> None:
    text = factories.perplexities(30)
    records = [
        record(metric, model=model, items=items)
        for model in ("tiny", "tiny-outliers")
        for metric, items in ((DIRECT, REFERENCE), (PERPLEXITY, text))
    ]
    model, other = analyse(records, MARGINS)
    assert (model.model, other.model) == ("tiny", "tiny-outliers")
    assert [metric.task.name for metric in model.metrics] == [DIRECT.name, PERPLEXITY.name]
    assert all(len(metric.rows) == 1 for metric in (*model.metrics, *other.metrics))
    _, html = pages(records, tmp_path)
    assert html.count("<h2>") == 2


def test_shared_ranks_join_what_is_not_distinguishable() -> None:
    records = [*two(lost=150, gained=0), record(DIRECT, "fp8-row", "real", items=REFERENCE)]
    ranks = {row.label: row.rank for row in analysed(records).metrics[0].rows}
    assert ranks == {"bf16": 1, "fp8-row real": 1, "int8-tensor real": 3}


def test_formats_are_compared_with_each_other_at_equal_granularity_and_execution() -> None:
    records = [
        record(DIRECT, items=REFERENCE),
        record(DIRECT, "int8-row", "real", items=changed_choices(REFERENCE, lost=60, gained=0)),
        record(DIRECT, "fp8-row", "real", items=REFERENCE),
        record(DIRECT, "fp8-row", "simulated", items=REFERENCE),
        record(DIRECT, "int8-row:int8-token", "real", items=REFERENCE),
        record(DIRECT, "fp8-row:fp8-token", "simulated", items=REFERENCE),
    ]
    (pair,) = next(found.pairs for found in analysed(records).contrasts if found.contrast == FORMATS)
    assert (pair.reference.subject.label, pair.candidate.subject.label) == ("int8-row-real", "fp8-row-real")
    assert pair.comparison and pair.comparison.change.estimate == pytest.approx(0.06)


def test_drift_is_a_value_with_an_interval(tmp_path: Path) -> None:
    drift = [
        record(DRIFT, scheme, "real", items=factories.divergences(500, mean, seed=1))
        for scheme, mean in (("fp8-row", 0.004), ("int8-row", 0.001))
    ]
    model = analysed(drift)
    assert [row.label for row in model.metrics[0].rows] == ["int8-row real", "fp8-row real"]
    assert all(row.interval and row.note is None for row in model.metrics[0].rows)
    pages(drift, tmp_path)


def few_texts(count: int) -> list[Record]:
    """bf16 and three variants, all of them far worse."""
    text = factories.perplexities(count)
    changed = factories.changed_perplexities(text, change=0.5)
    variants = [("int8-row", "real"), ("int8-g64", "real"), ("fp8-row", "real")]
    return [record(PERPLEXITY, items=text), *(record(PERPLEXITY, *variant, items=changed) for variant in variants)]


@pytest.mark.parametrize("count", [1, 9])
def test_too_few_texts_have_values_and_no_interval_and_share_a_rank(count: int) -> None:
    rows = analysed(few_texts(count)).metrics[0].rows
    reason = f"too few documents: {count}, an interval takes 10; raise --limit"
    assert [(row.interval, row.rank, row.note) for row in rows] == [(None, 1, reason)] * 4


def test_pages_of_too_few_texts_say_so_and_show_no_bounds(tmp_path: Path) -> None:
    for page in pages(few_texts(4), tmp_path):
        assert "(no interval)" in page and "too few documents: 4, an interval takes 10" in page
        assert "No loss can be excluded" in page
        assert not re.search(r"\binf\b|\bnan\b", page)


def test_the_terminal_shows_the_estimate_of_too_few_texts_and_why_it_is_undecided() -> None:
    text = rendered(terminal_summary(few_texts(4), MARGINS, [FORMATS]), 120)
    assert text.count("undecided") == 3 and text.count("(no interval)") == 4
    assert "too few documents: 4, an interval takes 10; raise --limit" in " ".join(text.split())
    assert "inf" not in text and "not distinguishable" not in text


def test_the_entropy_floor_is_shown(tmp_path: Path) -> None:
    details = {"bits_per_byte": 0.75, "floor_bits_per_byte": 0.5}
    markdown, _ = pages([record(PERPLEXITY, items=factories.perplexities(20), details=details)], tmp_path)
    assert "The entropy of this text is 0.5000 bits per byte; bf16 needs 0.7500, 0.2500 more." in markdown


def test_provenance_names_model_data_and_environment(tmp_path: Path) -> None:
    records = two(5, 5)
    markdown, html = pages(records, tmp_path)
    dataset = records[0].dataset
    assert dataset is not None
    for page in (markdown, html):
        for fact in (
            records[0].subject.model_sha256,
            dataset.sha256,
            "torch 2.13.0+cpu",
            "AVX512",
            "standard error of moving blocks",
        ):
            assert fact in page


def test_provenance_names_a_kernel_with_the_hash_of_its_file(tmp_path: Path) -> None:
    first, second = two(5, 5)
    subject = msgspec.structs.replace(second.subject, kernel="mine", kernel_sha256="cd" * 32)
    markdown, _ = pages([first, msgspec.structs.replace(second, subject=subject)], tmp_path)
    assert f"mine {'cd' * 32}" in markdown


@pytest.fixture(scope="module")
def matrix_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], Path, float]:
    """A full matrix of three metrics, the folder of its report and the seconds that it took."""
    records, folder = factories.matrix(), tmp_path_factory.mktemp("report")
    begin = time.perf_counter()
    write_report(Run(records=records), folder)
    return records, folder, time.perf_counter() - begin


def test_a_full_matrix_is_reported_in_time(matrix_report: tuple[list[Record], Path, float]) -> None:
    records, folder, seconds = matrix_report
    assert len({record.subject.label for record in records}) == 25
    assert len(list(folder.glob("report-*.svg"))) == 3
    assert seconds < 30


def test_html_needs_no_other_file(matrix_report: tuple[list[Record], Path, float]) -> None:
    html = (matrix_report[1] / "report.html").read_text()
    references = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(["']?([^)"']*)|(@import)""", html)
    assert references and all(any(part.startswith("#") for part in found) for found in references)
    assert "<script" not in html and "<link" not in html
    assert html.count("<svg") == 3


def test_html_ids_are_unique_and_references_meet_them(matrix_report: tuple[list[Record], Path, float]) -> None:
    html = (matrix_report[1] / "report.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_markdown_shows_plots_that_lie_beside_it(matrix_report: tuple[list[Record], Path, float]) -> None:
    folder = matrix_report[1]
    named = set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", (folder / "report.md").read_text()))
    assert named == {path.name for path in folder.glob("*.svg")}


def test_the_same_records_give_the_same_files(tmp_path: Path) -> None:
    records = ladder({"int8": {"row": 0.01, "g64": 0.0}, "fp8": {"row": 0.0, "g64": 0.0}})
    first = {path.name: path.read_bytes() for path in write_report(Run(records=records), tmp_path / "first")}
    second = {path.name: path.read_bytes() for path in write_report(Run(records=records), tmp_path / "second")}
    assert first == second and len(first) == 5


def test_plots_of_an_earlier_report_are_removed(tmp_path: Path) -> None:
    write_report(Run(records=two(5, 5)), tmp_path)
    kept = {path.name for path in write_report(Run(records=[record(DIRECT, items=REFERENCE)]), tmp_path)}
    assert {path.name for path in tmp_path.iterdir()} == kept == {"report.md", "report.html"}


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no records"):
        write_report(Run(), tmp_path)


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_summary_fits_and_loses_nothing(width: int) -> None:
    records = factories.matrix(texts=30, questions=300)[:15]
    text = rendered(terminal_summary(records, MARGINS), width)
    assert max(map(len, text.splitlines())) <= width
    model = analysed(records)
    for metric in model.metrics:
        assert metric.task.name in text
    accuracies = [row for row in model.metrics[1].rows if row.interval]
    assert all(f"{100 * row.interval.estimate:.1f} [" in text for row in accuracies if row.interval)


def test_the_terminal_summary_is_one_table_at_full_width() -> None:
    text = rendered(terminal_summary(factories.matrix(texts=30, questions=100)[:6], MARGINS), 120)
    (head,) = [line for line in text.splitlines() if "world/document" in line and "power" not in line]
    assert "world-mmlu/direct" in head and "world-mmlu/generate" in head


def test_the_gate_summary_lists_failures_with_reasons() -> None:
    records = [*two(lost=62, gained=12), record(DIRECT, "fp8-row", "real", outcome="skipped", reason="no kernel")]
    text = " ".join(rendered(gate_summary(gate_against_reference(records)), 160).split())
    assert "int8-tensor-real worse" in text
    assert "not measured skipped: no kernel" in text
    assert "gate failed: 2 of 2 cells" in text


def test_a_passed_gate_is_one_line() -> None:
    records = [record(DIRECT, items=REFERENCE), record(DIRECT, "int8-row", "real", items=REFERENCE)]
    lines = rendered(gate_summary(gate_against_reference(records)), 80).splitlines()
    assert lines == ["gate passed: 1 of 1 cells compared, none worse"]


def test_reporting_imports_no_torch() -> None:
    code = "import sys, quantsuite.reporting; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
