"""Bad input: what a user gives, how the run ends, and the one line that says why and what to do."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from meta_tests.checkpoints import CONTEXT, PLAIN, VOCABULARY, save_checkpoint
from meta_tests.command import ROOT, quantsuite
from meta_tests.factories import DIRECT, PERPLEXITY, choices, perplexities, record
from quantsuite.lines import encode_line
from quantsuite.plan import LayerPlan, Plan
from quantsuite.records import Record
from quantsuite.runfile import HEADER
from quantsuite.scheme import Scheme
from quantsuite.tiny import embedded_folder

Arguments = list[str]
Prepare = Callable[[Path], Arguments]
LONGEST = 500
"""Characters of a line: more is no message but somebody's dump."""
SMALL = ["--limit", "4", "--scheme", "bf16", "--task", "world/document"]


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("plain") / "checkpoint", PLAIN["qwen3-untied"])


def checkpoint(folder: Path, change: Callable[[Path], None]) -> Arguments:
    """A copy of a sharded checkpoint, changed."""
    copied = shutil.copytree(folder / "plain", folder / "changed")
    change(copied)
    return ["--model", "./changed", *SMALL[:4], "--task", "mmlu/direct"]


def config(**changes: Any) -> Prepare:
    def change(changed: Path) -> None:
        content = json.loads((changed / "config.json").read_text())
        (changed / "config.json").write_text(json.dumps(content | changes))

    return lambda folder: checkpoint(folder, change)


def index(**changes: Any) -> Prepare:
    def change(changed: Path) -> None:
        path = changed / "model.safetensors.index.json"
        content = json.loads(path.read_text())
        content["weight_map"] |= changes
        path.write_text(json.dumps(content))

    return lambda folder: checkpoint(folder, change)


def tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Prepare:
    def rewrite(changed: Path) -> None:
        path = sorted(changed.glob("model-*.safetensors"))[0]
        content = load_file(path)
        change(content)
        save_file(content, path, metadata={"format": "pt"})

    return lambda folder: checkpoint(folder, rewrite)


def pickled(changed: Path) -> None:
    for path in changed.glob("model*"):
        path.unlink()
    torch.save({}, changed / "pytorch_model.bin")


def truncated(changed: Path) -> None:
    path = sorted(changed.glob("model-*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-9])


def without(pattern: str) -> Prepare:
    def remove(changed: Path) -> None:
        for path in changed.glob(pattern):
            path.unlink()

    return lambda folder: checkpoint(folder, remove)


def narrow_vocabulary(folder: Path) -> Arguments:
    """A model of fewer tokens than its tokenizer."""
    config = copy.deepcopy(PLAIN["qwen3-tied"])
    config.vocab_size = 500
    save_checkpoint(folder / "narrow", config)
    return ["--model", "./narrow", *SMALL]


def as_integers(found: dict[str, torch.Tensor]) -> None:
    name = next(name for name, tensor in found.items() if tensor.ndim == 2)
    found[name] = found[name].to(torch.int8)


def masked(folder: Path) -> Arguments:
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, **shape)).save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(embedded_folder()).save_pretrained(folder / "bert")
    return ["--model", "./bert", *SMALL]


def dataset(name: str, **splits: dict[str, list[Any]]) -> Callable[[Path], str]:
    def save(folder: Path) -> str:
        place = folder / "data[1]"
        place.mkdir()
        files = "".join(f"  - split: {split}\n    path: {split}.parquet\n" for split in splits)
        (place / "README.md").write_text(f"---\nconfigs:\n- config_name: {name}\n  data_files:\n{files}---\n")
        for split, columns in splits.items():
            datasets.Dataset.from_dict(columns).to_parquet(place / f"{split}.parquet")
        return "./data[1]"

    return save


def wikitext(rows: list[Any]) -> Prepare:
    save = dataset("wikitext-2-raw-v1", test={"text": rows})
    return lambda folder: ["--wikitext", save(folder), "--task", "wikitext2/head100", "--scheme", "bf16"]


def mmlu(examples: int = 5, **changes: list[Any]) -> Prepare:
    question = {"question": ["q"], "subject": ["s"], "choices": [["a", "b", "c", "d"]], "answer": [2]}
    dev = {name: column * examples for name, column in question.items()}
    save = dataset("all", dev=dev, test=question | changes)
    return lambda folder: ["--mmlu", save(folder), "--task", "mmlu/direct", "--scheme", "bf16"]


def task_file(*arguments: str, country: str = "Norrland", edit: tuple[str, str] = ("", "")) -> Prepare:
    """A task of a user's own, with one question about a country."""

    def prepare(folder: Path) -> Arguments:
        content = (ROOT / "examples/task/capitals.toml").read_text().replace("shots = 2", "shots = 0")
        assert edit[0] in content
        (folder / "own.toml").write_text(content.replace(*edit, 1))
        row = {"country": country, "capitals": ["Vik", "Sund"], "capital": "Vik"}
        (folder / "capitals.jsonl").write_text(json.dumps(row) + "\n")
        return ["--task", "./own.toml", "--scheme", "bf16", *arguments]

    return prepare


def written(name: str, content: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / name).write_text(content)
        return name

    return write


def run_file(*records: Record, edit: tuple[str, str] = ("", "")) -> str:
    text = b"".join([HEADER, *(encode_line(record) + b"\n" for record in records)]).decode()
    assert edit[0] in text
    return text.replace(*edit, 1)


TEXT = record(PERPLEXITY, items=perplexities(4))
ANSWERS = record(DIRECT, items=choices(8, 0.5))
EDITED = ('"value":0.5', '"value":0.75')


def gate(content: str) -> Prepare:
    save = written("baseline.jsonl", content)
    return lambda folder: [*SMALL, "--baseline", save(folder), "--gate=worse"]


def output(content: str) -> Prepare:
    save = written("run.jsonl", content)
    return lambda folder: [*SMALL, "--output", save(folder)]


METHOD = "name, needs = 'own', 'weights'\ndef plan(*args, **options): ...\n"


def given(*arguments: str) -> Prepare:
    return lambda folder: list(arguments)


def plan(scheme: str, layer: str | None = None, *arguments: str, edit: tuple[str, str] = ("", "")) -> Prepare:
    """A saved plan in which one layer has eight bits."""

    def save(folder: Path) -> Arguments:
        layers = {} if layer is None else {layer: LayerPlan(scheme=Scheme.parse("int8-row"))}
        Plan(scheme=Scheme.parse(scheme), layers=layers).save(folder / "plan")
        document = folder / "plan/plan.json"
        document.write_text(document.read_text().replace(*edit))
        return ["--plan", "plan", *arguments]

    return save


def folder_named(name: str, *arguments: str) -> Prepare:
    def make(folder: Path) -> Arguments:
        (folder / name).mkdir()
        return [*arguments, name]

    return make


BAD: dict[str, tuple[Prepare, str]] = {
    "format": (given("--scheme", "int9-row"), "unknown number format 'int9' in 'int9-row'; did you mean 'int"),
    "granularity": (given("--scheme", "int8-gx"), "unknown granularity 'gx'"),
    "no-scheme": (given("--scheme", ","), "',' names nothing; give names separated by commas"),
    "method": (given("--scheme", "int4-g128@magic"), "unknown method 'magic'; known: rtn, clip"),
    "method-file": (given("--method", "my.py", "--scheme", "int8-row@my"), "my.py does not exist; give the path"),
    "method-scheme": (given("--scheme", "mxfp4@clip"), "clip search needs the symmetric, restricted range"),
    "method-group": (given("--scheme", "int8-g96@clip"), "group size 96 does not divide K=512"),
    "no-plan": (given("--plan", "nowhere"), "nowhere holds no plan.json; give a folder that Plan.save wrote"),
    "plan-of-another-model": (
        plan("int8-row@mine", "model.layers.7.mlp.up_proj"),
        "the model has no layer model.layers.7",
    ),
    "plan-of-the-head": (
        plan("int8-row@mine", "lm_head"),
        "lm_head is the output head; quantize it with --include-head",
    ),
    "plan-of-the-reference": (plan("bf16", "model.layers.0.mlp.up_proj"), "bf16 is the reference's name; save a plan"),
    "plan-that-is-named-twice": (
        plan("int8-row", "model.layers.0.mlp.up_proj", "--scheme", "int8-row"),
        "is named int8-row, as --scheme int8-row is; measure them in runs of their own",
    ),
    "edited-plan": (plan("int8-row@mine", edit=("@mine", "@yours")), "the plan was changed after it was saved"),
    "kv-cache": (given("--scheme", "int8-row+kv-int8-token"), "no quantized KV cache; drop +kv-int8-token"),
    "static": (given("--scheme", "int8-row:int8-token-static"), "static activation scales need calibration"),
    "group": (given("--scheme", "int8-g96"), "group size 96 does not divide K=512"),
    "task": (given("--task", "mmlu/direkt"), "unknown task 'mmlu/direkt'; did you mean 'mmlu/direct'"),
    "empty-limit": (given("--limit", ""), "limit '' is not a number of items; use 0 for all"),
    "negative-limit": (given("--limit", "-3"), "limit '-3' is not a number of items; use 0 for all"),
    "other-digits": (given("--limit", "٣"), "is not a number of items; use 0 for all"),
    "execution": (given("--execution", "fake"), "unknown execution 'fake'; use simulated or real"),
    "seed": (given("--seed", "x"), "invalid int value: 'x'"),
    "dtype": (given("--dtype", "int3"), "invalid choice: 'int3'"),
    "margin": (given("--accuracy-margin", "-1"), "margin '-1' is not a number from 0"),
    "unnamed-margin": (given("--margin", "0.1"), "'0.1' is not NAME=VALUE"),
    "margin-of-nothing": (given("--margin", "acuracy=0.1"), "--margin 'acuracy' names no metric of this run; it has "),
    "nan-margin": (given("--perplexity-margin", "nan"), "margin 'nan' is not a number from 0"),
    "device": (given("--device", "abacus"), "device 'abacus' is not usable"),
    "absent-device": (given("--device", "cuda:99"), "device 'cuda:99' is not usable"),
    "meta-device": (given("--device", "meta"), "device 'meta' is not usable"),
    "timeout": (given("--check-timeout", "soon"), "'soon' is not a number of seconds; use 0 for no limit"),
    "negative-timeout": (given("--check-timeout", "-1"), "'-1' is not a number of seconds; use 0 for no limit"),
    "no-model": (given("--model", ""), "an empty name; give one, or leave the option away"),
    "model-folder": (given("--model", "./nowhere"), "nowhere is not a folder; give a checkpoint folder"),
    "bracket-folder": (given("--model", "./no[where]"), "no[where] is not a folder; give a checkpoint folder"),
    "long-name": (given("--model", "a" * 5_000), "(5,000 characters)' is no name of a folder"),
    "hub-model": (given("--model", "nobody/nothing"), "'nobody/nothing'"),
    "no-config": (without("config.json"), "has no config.json; give the folder that save_pretrained wrote"),
    "no-tokenizer": (without("tokenizer*"), "tokenizer"),
    "no-shard": (without("model-00002*"), "is missing (named in model.safetensors.index.json)"),
    "truncated-shard": (lambda folder: checkpoint(folder, truncated), "is truncated or damaged"),
    "pickled": (lambda folder: checkpoint(folder, pickled), "pickle"),
    "remote-code": (config(auto_map={"AutoModelForCausalLM": "code.Model"}), "auto_map"),
    "other-quantizer": (config(quantization_config={"quant_method": "gptq"}), "gptq"),
    "model-type": (config(model_type="no-such-model"), "no-such-model"),
    "sizes": (config(num_hidden_layers=-1), "config.json"),
    "shard-list": (index(**{"lm_head.weight": ["a", "b"]}), "model.safetensors.index.json"),
    "shard-outside": (index(**{"lm_head.weight": "../outside.safetensors"}), "../outside.safetensors"),
    "nan-weights": (tensors(lambda found: next(iter(found.values())).fill_(torch.nan)), "values are NaN or infinite"),
    "unexpected": (tensors(lambda found: found.update(spare=torch.ones(2))), "spare"),
    "integer-weights": (tensors(as_integers), "holds integers, no weights without scales"),
    "other-tokenizer": (narrow_vocabulary, "tokens, the model 500; it belongs to another model"),
    "not-causal": (masked, "causal"),
    "context": (
        lambda folder: ["--model", "./plain", "--task", "wikitext2/window2048"],
        f"reads 2,047 tokens at once, the context of ./plain holds {CONTEXT}",
    ),
    "wikitext-folder": (given("--wikitext", "./nowhere", "--task", "wikitext2/head100"), "nowhere"),
    "mmlu-hub": (given("--mmlu", "nobody/nothing", "--task", "mmlu"), "the folder of a local copy"),
    "empty-rows": (wikitext(["", ""]), "all 2 rows are empty; the recipe needs text"),
    "null-rows": (wikitext(["a text", None]), "None"),
    "number-rows": (wikitext([1, 2]), "row 0: text 1 is no string; the recipe needs a string"),
    "shots": (mmlu(examples=3), "3 examples"),
    "letter-answer": (mmlu(answer=["C"]), "Failed to parse string: 'C' as a scalar of type int64"),
    "null-answer": (mmlu(answer=[None]), "None"),
    "three-choices": (mmlu(choices=[["a", "b", "c"]]), "3 choices"),
    "subject": (mmlu(subject=["astronomy"]), "no examples in dev for astronomy"),
    "hellaswag-offline": (given("--task", "hellaswag"), "split 'validation', from 'Rowan/hellaswag'"),
    "piqa-folder": (given("--task", "piqa", "--dataset", "piqa=./nowhere"), "./nowhere is not a folder"),
    "dataset-name": (given("--dataset", "pica=./piqa"), "no task has a dataset 'pica'; did you mean 'piqa'?"),
    "dataset-unused": (
        given("--dataset", "piqa=./piqa"),
        "--dataset piqa=./piqa is of no effect: the tasks of this run use world, world-mmlu; choose a task of piqa",
    ),
    "method-unused": (
        lambda folder: ["--method", written("own.py", METHOD)(folder), "--scheme", "int8-row"],
        "--method own.py: no scheme of this run names 'own'; write for example --scheme int8-row@own",
    ),
    "dataset-form": (given("--dataset", "piqa"), "'piqa' is no NAME=PLACE; give for example piqa=./piqa"),
    "world-elsewhere": (given("--dataset", "world=./world"), "the dataset world is generated"),
    "task-near": (given("--task", "hellaswg"), "unknown task 'hellaswg'; did you mean 'hellaswag'?"),
    "task-file": (given("--task", "./own.toml"), "there is no task own.toml; . has no .toml file"),
    "task-key": (task_file(edit=("prompt", "promt")), "own.toml: unknown key recipe.promt; did you mean 'prompt'?"),
    "task-column": (task_file(edit=("{{ country", "{{ land")), "own.toml: recipe.prompt names land; the columns are"),
    "task-rows": (task_file(edit=('"capitals.jsonl"', '"rows.jsonl"')), "rows.jsonl is not a file"),
    "task-row": (task_file(edit=(".index(capital)", ".index(country)")), "row 0: recipe.answer cannot be filled in"),
    "task-prompt": (task_file(country="x " * 600), "tokens at once, the context of tiny holds 512"),
    "output-folder": (folder_named("there", *SMALL, "--output"), "there is a directory; name a run file"),
    "output-below-a-file": (
        lambda folder: [*SMALL, "--output", written("file", "")(folder) + "/run.jsonl"],
        "cannot write file/run.jsonl: File exists; choose another place with --output",
    ),
    "output-nowhere": (given(*SMALL, "--output", "/proc/none/run.jsonl"), "cannot write /proc/none/run.jsonl"),
    "output-truncated": (output(run_file(TEXT)[:9]), "--fresh"),
    "output-edited": (output(run_file(ANSWERS, edit=EDITED)), "0.75"),
    "baseline-without-gate": (given("--baseline", "bf16"), "is of no effect without a gate; add --gate=worse"),
    "margin-twice": (
        given("--margin", "accuracy=0.02", "--margin", "accuracy=0.01"),
        "--margin accuracy=0.02 and --margin accuracy=0.01 both set the margin of accuracy; give one of them",
    ),
    "margin-and-its-option": (
        given("--accuracy-margin", "0.02", "--margin", "accuracy=0.01"),
        "--accuracy-margin 0.02 and --margin accuracy=0.01 both set the margin of accuracy; give one of them",
    ),
    "no-baseline": (given(*SMALL, "--baseline", "nowhere.jsonl", "--gate=worse"), "--gate: nowhere.jsonl"),
    "no-own-baseline": (given("--model", "./plain", "--gate=worse"), "--gate: reports/baselines/plain.jsonl"),
    "nan-baseline": (gate(run_file(ANSWERS, edit=('"value":0.5', '"value":NaN'))), "restore it from version control"),
    "truncated-baseline": (gate(run_file(ANSWERS)[:-40]), "restore it from version control"),
    "edited-baseline": (gate(run_file(ANSWERS, edit=EDITED)), "restore it from version control"),
    "empty-baseline": (gate(""), "restore it from version control"),
    "older-baseline": (gate('{"schema_version": 1, "records": []}'), "python -m quantsuite convert baseline.jsonl NEW"),
    "newer-baseline": (gate('{"schema_version": 99, "records": []}'), "99"),
    "other-models-baseline": (
        gate(run_file(record(DIRECT, model="other", items=choices(8, 0.5)))),
        "holds records of other, none of tiny",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def offline() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        yield


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_the_run_in_one_line_before_anything_is_measured(
    name: str, plain_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").symlink_to(plain_folder)
    prepare, line = BAD[name]
    result = quantsuite("run", "-p", "no:xdist", *prepare(tmp_path))
    shown = result.shown
    assert result.status == pytest.ExitCode.USAGE_ERROR, shown
    assert [found for found in shown.splitlines() if line in found][1:] == [], shown
    assert line in shown and "Traceback" not in shown, shown
    assert len(shown.splitlines()) <= 20, shown
    assert max(map(len, shown.splitlines())) <= LONGEST, shown
    assert not list(tmp_path.glob("reports/*")), "something was measured"


def test_numerics_that_cannot_be_written_end_the_run_before_anything_is_checked() -> None:
    result = quantsuite("run", "numerics", "-p", "no:xdist", "--numerics-output", "/proc/none/run.jsonl")
    assert result.status == pytest.ExitCode.USAGE_ERROR
    assert "cannot write /proc/none/run.jsonl" in result.shown and "--numerics-output" in result.shown


def test_checks_of_kernels_refuse_the_output_of_models() -> None:
    kernel = str(ROOT / "examples" / "kernel" / "my_kernel.py")
    result = quantsuite("run", "conformance", "-p", "no:xdist", "--output", "run.jsonl", "--kernel", kernel)
    assert result.status == pytest.ExitCode.USAGE_ERROR
    assert "--output run.jsonl is of records of models" in result.shown and "give --numerics-output" in result.shown
