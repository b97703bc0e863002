"""Reading run files: numbers are recomputed, and what is refused is named with the right way out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meta_tests import factories
from meta_tests.factories import DIRECT, DRIFT, PERPLEXITY, choices, environment, record
from quantsuite.__main__ import main
from quantsuite.lines import encode_line
from quantsuite.metrics import Choices, Divergences, Items, Perplexities, metric, registry
from quantsuite.reading import ContentError, Purpose, read_run, read_runs
from quantsuite.records import ErrorPoint, PropertyResult, Record, RecordError
from quantsuite.runfile import HEADER, RunFile, write_run
from quantsuite.tiny import embedded_baseline

BASELINE = embedded_baseline("tiny")
TEXT = factories.perplexities(40)
LETTERS = Choices(
    group=["a"] * 4,
    answer=[0, 1, 2, 3],
    predicted=[0] * 4,
    log_likelihoods=[[-1.0, -2.0, -3.0, -1.0]] * 4,
)
MEASURED = {
    "perplexity": record(PERPLEXITY, items=TEXT, details=factories.details_of(TEXT, 9_000)),
    "accuracy": record(DIRECT, items=LETTERS),
    "drift": record(DRIFT, "int8-row", "real", items=factories.divergences(50)),
}
NUMBERS = [(kind, name) for kind, each in MEASURED.items() for name in ("value", *each.details)]


def line_of(path: Path) -> dict[str, Any]:
    """The fields of a file's only record."""
    return json.loads(path.read_text().splitlines()[1])


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change a file's only record as one would with an editor."""
    header, *_ = path.read_text().splitlines()
    change(fields := line_of(path))
    path.write_text(f"{header}\n{json.dumps(fields)}\n")
    return path


def edited_file(path: Path, kind: str, change: Callable[[dict[str, Any]], object]) -> Path:
    write_run(path, [MEASURED[kind]])
    return edit(path, change)


def change_number(name: str, by: float = 1e-9) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        part = fields if name == "value" else fields["details"]
        part[name] = part[name] * (1 + by) + (by if part[name] == 0 else 0)

    return change


def refusal(path: Path, purpose: Purpose = "report") -> str:
    with pytest.raises(RecordError) as caught:
        read_run(path, purpose=purpose)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_a_number_that_its_items_do_not_give_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    path = edited_file(tmp_path / "run.jsonl", kind, change_number(name))
    given = line_of(path)
    number = given["value"] if name == "value" else given["details"][name]
    message = refusal(path)
    named = "bits_per_byte" if name == "bytes" else name
    assert f"line 2: {MEASURED[kind]}: {named} is " in message
    assert "its items give" in message
    assert repr(number) in message or name == "bytes"


@pytest.mark.parametrize("name", ["bits_per_byte", "byte_perplexity", "floor_bits_per_byte"])
def test_bits_per_byte_are_verified_without_the_text_s_bytes_too(name: str, tmp_path: Path) -> None:
    path = edited_file(tmp_path / "run.jsonl", "perplexity", lambda fields: fields["details"].pop("bytes"))
    read_run(path)
    edit(path, change_number(name, 1e-6))
    assert "per" in refusal(path)


@pytest.mark.parametrize("kind", MEASURED)
def test_numbers_that_differ_by_another_platform_s_last_digit_are_read(kind: str, tmp_path: Path) -> None:
    read_run(edited_file(tmp_path / "run.jsonl", kind, change_number("value", 2**-52)))


def test_the_reviewed_baseline_is_read_and_its_numbers_are_those_of_its_items() -> None:
    assert len(read_run(BASELINE, purpose="baseline").records) == 100


@pytest.mark.parametrize("command", [["report"], ["gate", "--baseline", "bf16"]], ids=["report", "gate"])
def test_an_edited_number_ends_a_command_with_one_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = edited_file(tmp_path / "run.jsonl", "accuracy", change_number("value"))
    assert main([command[0], str(path), *command[1:]]) == 2
    assert capsys.readouterr().err == f"{refusal(path)}\n"


WITH_FRESH = "move it away, or repeat the command with --fresh"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b" \n", "it is empty"),
        (b'{"schema_version": 2, "reco', "it is truncated after 27 bytes"),
        (b"\x89PNG\0\r\n", "binary data, with a zero at byte 4"),
        (b'{"schema_version": 2, "\xff": 2}', "not UTF-8 at byte 23"),
        (b"hello", "JSON is malformed"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "Object missing required field `schema_version`"),
        (b'{"schema_version": 0}', "there is no schema version 0"),
        (HEADER + b'{"value": 3}\n', "line 2: Object missing required field `type`"),
        (HEADER + b'{"type": "cell", "value": 3}\n', "line 2: Object missing required field `task`"),
        (HEADER + b'{"type": "song"}\n', "line 2: Invalid value 'song' - at `$.type`"),
        (HEADER + b'{"type": "cell", "items": {}}\n', "line 2: Object missing required field `task`"),
        (HEADER + b"\n3\n", "line 3: Expected `object`, got `int`"),
        (HEADER + b'{"type": \n', "line 2: it is truncated after 9 bytes"),
        (HEADER + b'{"value": NaN}\n', "line 2: NaN is no number of JSON (byte 10)"),
        (HEADER + b'{"value": [1, Infinity]}\n', "line 2: Infinity is no number of JSON (byte 1"),
        (HEADER + b'{"value": -Infinity}\n', "line 2: -Infinity is no number of JSON (byte 1"),
        (b'{"a": ' * 100_000 + b"\n", "maximum recursion depth exceeded"),
        (HEADER + b"[" * 100_000 + b"\n", "line 2: maximum recursion depth exceeded"),
    ],
)
def test_what_is_no_run_file_is_refused_with_its_first_problem(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    for purpose, way_out in (("output", WITH_FRESH), ("baseline", "restore it from version control")):
        message = refusal(path, purpose)
        assert message.startswith(f"{path} is not a run file: {problem}") and message.endswith(f"; {way_out}")


@pytest.mark.parametrize("purpose", ["report", "baseline"])
@pytest.mark.parametrize("content", [b"", b"{", b"\0", b'{"schema_version": 1}', b'{"schema_version": 3}', None])
def test_only_a_run_s_own_output_is_to_be_measured_afresh(
    purpose: Purpose, content: bytes | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "run.jsonl").write_bytes(content)
    assert "--fresh" not in refusal(tmp_path / "run.jsonl", purpose)


@pytest.mark.parametrize(
    ("version", "purpose", "way_out"),
    [
        (3, "output", "upgrade quantsuite"),
        (3, "baseline", "upgrade quantsuite"),
        (1, "report", "convert it: python -m quantsuite convert {path} NEW"),
        (1, "output", "convert it: python -m quantsuite convert {path} NEW, or repeat the command with --fresh"),
        (1, "baseline", "convert it: python -m quantsuite convert {path} NEW"),
    ],
)
def test_another_schema_version_says_which_side_is_old(
    version: int, purpose: Purpose, way_out: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps({"schema_version": version, "new": 1}))
    expected = f"{path} has schema version {version}, this quantsuite reads 2; {way_out.format(path=path)}"
    assert refusal(path, purpose) == expected


def test_fields_that_a_later_quantsuite_adds_are_left_out_of_account(tmp_path: Path) -> None:
    def add(fields: dict[str, Any]) -> None:
        for part in (fields, fields["subject"], fields["environment"], fields["dataset"], fields["task"]):
            part["new"] = 1

    path = edited_file(tmp_path / "run.jsonl", "accuracy", add)
    assert read_run(path).records == [MEASURED["accuracy"]]


def test_items_that_are_not_packed_are_read_too(tmp_path: Path) -> None:
    path = edited_file(
        tmp_path / "run.jsonl", "perplexity", lambda fields: fields.update(items=msgspec.to_builtins(TEXT))
    )
    assert "[" in path.read_text() and read_run(path).records == [MEASURED["perplexity"]]


def test_a_record_of_a_metric_that_is_not_installed_names_it_and_the_way_out(tmp_path: Path) -> None:
    path = edited_file(tmp_path / "run.jsonl", "accuracy", lambda fields: fields["task"].update(metric="f1"))
    message = refusal(path)
    assert message.startswith(f"{path}: line 2: unknown metric 'f1'; ")
    assert message.endswith("--metric ./FILE.py, or installed as entry point quantsuite.metrics")


@pytest.fixture
def stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run file with a record of a user's metric, which was edited since."""
    monkeypatch.setattr(registry, "_OF_PLACES", {})
    write_own_metric(tmp_path, "1")
    write_run(tmp_path / "run.jsonl", [own_record(), MEASURED["drift"]])
    write_own_metric(tmp_path, "2")
    return tmp_path / "run.jsonl"


def write_own_metric(folder: Path, right: str) -> None:
    """A metric that counts an answer that is right as a number."""
    (folder / "own.py").write_text(
        "from dataclasses import replace\nfrom quantsuite.metrics import Mean, metric\n"
        "OWN = replace(metric('accuracy'), name='own', estimator=Mean(),\n"
        f"    outcomes=lambda items: [{right}.0 * (p == a) for p, a in zip(items.predicted, items.answer)])\n"
    )
    metric(str(folder / "own.py"))


def own_record() -> Record:
    return record(msgspec.structs.replace(DIRECT, metric="own"), items=LETTERS)


@pytest.mark.parametrize(
    ("purpose", "way_out"), [("report", "or repeat the run"), ("baseline", "or measure the baseline again")]
)
def test_a_metric_that_was_edited_is_named_as_what_may_have_changed(
    purpose: Purpose, way_out: str, stale: Path
) -> None:
    message = refusal(stale, purpose)
    assert "line 2: tiny world-mmlu/direct bf16: value is 0.25, its items give 0.5 as own; " in message
    assert f"the number was edited, or the metric own was since; restore the metric, {way_out}" in message


def test_a_run_goes_on_without_what_an_edited_metric_does_not_give(stale: Path) -> None:
    assert read_run(stale, purpose="output").records == [MEASURED["drift"]]
    RunFile(stale).append([own_record()])
    assert read_run(stale).records == [own_record(), MEASURED["drift"]]


def test_a_run_does_not_go_on_from_an_edited_number_of_a_metric_of_quantsuite_s_own(tmp_path: Path) -> None:
    path = edited_file(tmp_path / "run.jsonl", "accuracy", change_number("value"))
    assert "move it away, or repeat the command with --fresh" in refusal(path, "output")


def test_an_earlier_record_does_not_come_back_for_one_that_its_metric_does_not_give(stale: Path) -> None:
    edited = stale.read_text().splitlines()[1]
    RunFile(stale).append([own_record()])
    stale.write_text(stale.read_text() + edited + "\n")
    assert read_run(stale, purpose="output").records == [MEASURED["drift"]]


def test_items_of_another_metric_are_refused(tmp_path: Path) -> None:
    path = edited_file(tmp_path / "run.jsonl", "accuracy", lambda fields: fields["task"].update(metric="perplexity"))
    assert "line 2: items of perplexity: Invalid value 'choices'" in refusal(path)


@pytest.mark.parametrize(("scheme", "message"), [("int9-row", "int9"), ("INT8_Per_Row", "is written int8-row")])
def test_a_record_of_no_scheme_or_by_another_name_of_one_is_refused(scheme: str, message: str, tmp_path: Path) -> None:
    path = edited_file(tmp_path / "run.jsonl", "drift", lambda fields: fields["subject"].update(scheme=scheme))
    assert message in refusal(path)


def test_a_folder_a_pipe_and_nothing_are_no_run_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path) == f"{tmp_path} is a directory; name a run file"
    assert "no regular file" in refusal(tmp_path / "pipe")
    assert "copy a reviewed run file" in refusal(tmp_path / "nothing", "baseline")


def changed(items: Items, **fields: object) -> Items:
    return msgspec.structs.replace(items, **fields)


DRIFTED = factories.divergences(3)
SHORT = Perplexities(nats=[1.0, 2.0], tokens=[3, 4], units=[3, 4])


@pytest.mark.parametrize(
    ("items", "fields", "message"),
    [
        (SHORT, {"nats": [1.0]}, "tokens has 2 items, nats has 1"),
        (SHORT, {"floor_nats": [1.0]}, "floor_nats has 1 items, nats has 2"),
        (SHORT, {"nats": [], "tokens": [], "units": []}, "nats is empty"),
        (SHORT, {"nats": [1.0, float("nan")]}, "nats holds nan"),
        (SHORT, {"nats": [1.0, float("inf")]}, "nats holds inf"),
        (SHORT, {"nats": [1.0, -0.001]}, "nats holds -0.001, less than"),
        (SHORT, {"tokens": [3, -1]}, "tokens holds -1, less than 0"),
        (SHORT, {"units": [0, 0]}, "units sum to 0"),
        (SHORT, {"floor_nats": [1.0, -1.0]}, "floor_nats holds -1.0, less than 0"),
        (LETTERS, {"group": ["a"]}, "group has 1 items, answer has 4"),
        (LETTERS, {"answer": [0, 1, 2, 4]}, "answer holds 4, more than 3"),
        (LETTERS, {"answer": [0, 1, 2, -1]}, "answer holds -1, less than 0"),
        (LETTERS, {"predicted": [0, 1, 2, -2]}, "predicted holds -2, less than -1"),
        (LETTERS, {"log_likelihoods": None, "predicted": [0, 1, 2, 4]}, "predicted holds 4, more than 3"),
        (LETTERS, {"log_likelihoods": [[-1.0, -2.0]] * 4}, "answer holds 2, more than 1"),
        (
            LETTERS,
            {"log_likelihoods": [[-1.0, -2.0]] * 3 + [[-1.0]]},
            "holds 1 of a question of 1 choices",
        ),
        (LETTERS, {"log_likelihoods": [[float("nan")] * 4] * 4}, "log_likelihoods holds nan"),
        (DRIFTED, {"kl": [0.1]}, "same_top has 3 items, kl has 1"),
        (DRIFTED, {"kl": [0.1, 0.1, -0.1]}, "kl holds -0.1, less than"),
        (DRIFTED, {"delta_p": [0.0, 0.0, 1.1]}, "delta_p holds 1.1, more than 1"),
        (DRIFTED, {"delta_p": [0.0, 0.0, -1.1]}, "delta_p holds -1.1, less than -1"),
    ],
)
def test_items_that_cannot_be_are_refused(items: Items, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(items, **fields)


def test_items_within_rounding_of_their_limits_are_kept() -> None:
    assert changed(SHORT, nats=[1.0, -1e-7]) and changed(DRIFTED, kl=[0.0, 0.0, -1e-9], delta_p=[1.0, -1.0, 1 + 1e-7])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"items": None, "value": None}, "a record that passed has no items"),
        ({"value": None}, "has items but not the other"),
        ({"items": None, "outcome": "failed"}, "has a value but not the other"),
        ({"dataset": factories.dataset(5)}, "has 4 items, its dataset 5"),
        ({"details": {"ties": float("nan")}}, "details holds nan"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msgspec.structs.replace(MEASURED["accuracy"], **fields)


def test_a_perplexity_beyond_float64_is_an_error_and_not_infinite() -> None:
    with pytest.raises(ValueError, match="a mean of 1000 nats has no perplexity"):
        metric("perplexity").value(Perplexities(nats=[1000.0], tokens=[1], units=[1]))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_results_that_json_has_no_number_for_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="which is no finite number"):
        ErrorPoint(
            study="k", quantity="e", series="s", scheme="s", x=1, shape=[], measured=number, predicted=None, seed=0
        )
    result = {"test": "t", "contestant": "c", "operation": "o", "scheme": "s", "property": "p", "outcome": "exact"}
    with pytest.raises(ValueError, match="which is no finite number"):
        PropertyResult(**result, factor=number, environment=factories.environment())


def test_drift_has_more_items_than_its_dataset() -> None:
    drifted = MEASURED["drift"]
    assert isinstance(drifted.items, Divergences)
    assert msgspec.structs.replace(drifted, dataset=factories.dataset(2)).measured


RESULT = {
    "test": "t",
    "contestant": "mine",
    "operation": "linear",
    "scheme": "int8-row",
    "property": "product_within_bound",
    "environment": environment(),
}


FAILED = {"outcome": "fails", "reason": "wrong"}


@pytest.mark.parametrize(
    ("outcome", "factor", "reason"),
    [("within bound", 2.5, None), ("within bound", 0.0, None), ("within bound", None, None), ("exact", 0.75, None),
     ("fails", None, None), ("fails", 0.5, "wrong"), ("not supported", None, None)],
)  # fmt: skip
def test_a_finding_is_that_of_its_factor(outcome: Any, factor: float | None, reason: str | None) -> None:
    with pytest.raises(ValueError, match=f"product_within_bound: {outcome}"):
        PropertyResult(**RESULT, outcome=outcome, factor=factor, reason=reason)


def test_of_results_with_one_key_the_last_counts(tmp_path: Path) -> None:
    held, failed = (PropertyResult(**RESULT, **found) for found in ({"outcome": "exact", "factor": 0.0}, FAILED))
    path = tmp_path / "run.jsonl"
    path.write_bytes(HEADER + encode_line(held) + b"\n" + encode_line(failed) + b"\n")
    assert read_run(path).properties == [failed]


def by_kernel(sha256: str) -> Record:
    made = MEASURED["accuracy"]
    return msgspec.structs.replace(
        made, subject=msgspec.structs.replace(made.subject, kernel="mine", kernel_sha256=sha256)
    )


def test_files_of_two_kernels_of_one_name_are_not_read_as_one_run(tmp_path: Path) -> None:
    for name, sha256 in (("a", "ab" * 32), ("b", "cd" * 32), ("unknown", "")):
        write_run(tmp_path / name, [by_kernel(sha256)])
    with pytest.raises(
        RecordError, match=r"b: tiny world-mmlu/direct bf16 by mine .*kernel sha256 is cdcdcd.*, not ab"
    ):
        read_runs([tmp_path / "a", tmp_path / "b"])
    assert read_runs([tmp_path / "a", tmp_path / "unknown"]).records == [by_kernel("")]


def test_an_invented_detail_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_run(path, [record(DIRECT, items=choices(8, 0.5), details={"foo": 5.0})])
    with pytest.raises(ContentError, match="no recipe gives a detail 'foo'"):
        read_run(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [({"seconds": -1.0}, "seconds"), ({"weight_bytes": -5}, "weight_bytes"), ({"unquantized": 17.0}, "unquantized"),
     ({"task": PERPLEXITY}, "the metric document perplexity is not one of Choices")],
)  # fmt: skip
def test_a_number_that_no_run_writes_is_refused(edit: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msgspec.structs.replace(record(DIRECT, items=choices(8, 0.5)), **edit)


@pytest.mark.parametrize("place", ["tokens", "units"])
def test_an_integer_beyond_every_float_is_refused_with_its_file(place: str, tmp_path: Path) -> None:
    path = edited_file(
        tmp_path / "run.jsonl",
        "perplexity",
        lambda edited: edited["items"][place].__setitem__(0, 10**400),
    )
    with pytest.raises(ContentError, match=r"run\.jsonl is not a run file: "):
        read_run(path)


@pytest.mark.parametrize("dtype", ["bfloat", "float32"])
def test_a_record_of_no_model_s_dtype_is_refused(dtype: str, tmp_path: Path) -> None:
    path = edited_file(tmp_path / "run.jsonl", "drift", lambda fields: fields["environment"].update(dtype=dtype))
    assert f"{dtype!r}; use bf16, fp16, fp32" in refusal(path)


def test_a_property_of_no_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="the dtype is 'bfloat'; use bf16, fp16, fp32, or a name such as float32"):
        msgspec.structs.replace(environment(), dtype="bfloat")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn"])
def test_a_property_has_the_dtype_of_its_inputs(dtype: str, tmp_path: Path) -> None:
    given = msgspec.structs.replace(environment(), dtype=dtype)
    write_run(tmp_path / "run.jsonl", properties=[PropertyResult(**{**RESULT, "environment": given}, **FAILED)])
    assert read_run(tmp_path / "run.jsonl").properties[0].environment.dtype == dtype


def test_an_answer_is_the_likeliest_letter() -> None:
    with pytest.raises(ValueError, match="largest elsewhere"):
        Choices(group=["a"], answer=[0], predicted=[1], log_likelihoods=[[-1.0, -2.0, -3.0, -4.0]])
