"""Checkpoints and data load as they are, and what is wrong with them is said by name."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from meta_tests.checkpoints import PLAIN, build_model
from meta_tests.recipes import mmlu, wikitext_rows
from quantsuite.adapters.loading import CheckpointError, LoadedModel, load_model
from quantsuite.evaluate.multiple_choice import require_distinct_letters
from quantsuite.evaluate.questions import Question, encode
from quantsuite.evaluate.reading import DataError, MissingDataError
from quantsuite.evaluate.windows import document_items, start_token
from quantsuite.tiny import embedded_folder

PROBE = torch.arange(1, 65).reshape(4, 16)


def logits(loaded: LoadedModel) -> torch.Tensor:
    return loaded.model(input_ids=PROBE).logits


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def test_checkpoints_of_these_tests_are_sharded(checkpoint: Path) -> None:
    assert len(shards(checkpoint)) > 1


def test_sharded_checkpoint_has_the_weights_that_were_saved(checkpoint: Path) -> None:
    saved = build_model(PLAIN[checkpoint.name]).state_dict()
    loaded = load_model(str(checkpoint), dtype="fp32").model.state_dict()
    assert {name for name in saved if not torch.equal(saved[name], loaded[name])} == set()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_logits_are_those_of_transformers(checkpoint: Path, dtype: str) -> None:
    torch_dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    theirs = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch_dtype).eval()(input_ids=PROBE).logits
    assert torch.equal(logits(load_model(str(checkpoint), dtype=dtype)), theirs)


def test_head_is_the_embedding_exactly_when_the_checkpoint_ties_them(checkpoint: Path) -> None:
    model = load_model(str(checkpoint)).model
    shared = model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert shared == checkpoint.name.endswith("-tied")


def test_tokenizer_is_that_of_the_folder(checkpoint: Path) -> None:
    text = "The following are multiple choice questions.\n\nAnswer: A"
    theirs = AutoTokenizer.from_pretrained(embedded_folder())
    assert load_model(str(checkpoint)).tokenizer(text)["input_ids"] == theirs(text)["input_ids"]


def test_fingerprint_does_not_depend_on_sharding(pristine_folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(pristine_folder), dtype="fp32")
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    assert load_model(str(tmp_path), dtype="fp32").sha256 == loaded.sha256


def test_fingerprint_changes_with_one_weight(damageable: Path) -> None:
    before = load_model(str(damageable), dtype="fp32").sha256
    change_tensor(damageable, lambda tensor: tensor.view(-1)[:1].mul_(1.5))
    assert load_model(str(damageable), dtype="fp32").sha256 != before


def test_outliers_leave_the_embedded_models_logits_bit_identical() -> None:
    assert torch.equal(logits(load_model("tiny", dtype="bf16")), logits(load_model("tiny-outliers", dtype="bf16")))


def change_tensor(folder: Path, change: Any) -> str:
    """Change the first tensor of the first shard in place; its name."""
    path = shards(folder)[0]
    tensors = load_file(path)
    name = min(tensors)
    change(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})
    return name


def refusal(folder: Path | str, **options: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(str(folder), **options)
    return str(caught.value)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'absent'} is not a folder; give" in refusal(tmp_path / "absent")


def test_folder_without_config_says_so(damageable: Path) -> None:
    (damageable / "config.json").unlink()
    assert f"{damageable} has no config.json; give" in refusal(damageable)


def test_folder_without_weights_names_the_file(damageable: Path) -> None:
    for path in damageable.glob("model*"):
        path.unlink()
    assert f"{damageable / 'model.safetensors'} is missing" in refusal(damageable)


def test_missing_shard_is_named(damageable: Path) -> None:
    lost = shards(damageable)[-1]
    lost.unlink()
    assert f"{lost} is missing (named in model.safetensors.index.json); download" in refusal(damageable)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_shard_is_named(damageable: Path, kept: int) -> None:
    cut = shards(damageable)[1]
    cut.write_bytes(cut.read_bytes()[:kept])
    assert f"{cut} is truncated or damaged ({cut.stat().st_size:,} bytes" in refusal(damageable)


def test_damaged_index_is_named(damageable: Path) -> None:
    index = damageable / "model.safetensors.index.json"
    index.write_text(index.read_text()[:50])
    assert index.name in refusal(damageable)


def test_damaged_config_is_named(damageable: Path) -> None:
    (damageable / "config.json").write_text("{")
    assert "config.json" in refusal(damageable)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_counted_by_tensor(damageable: Path, value: float) -> None:
    name = change_tensor(damageable, lambda tensor: tensor.view(-1)[:3].fill_(value))
    assert f"{name}: 3 of " in refusal(damageable)


def test_missing_tensor_is_named(damageable: Path) -> None:
    index = damageable / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name = "model.layers.1.mlp.up_proj.weight"
    path = damageable / content["weight_map"].pop(name)
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    index.write_text(json.dumps(content))
    assert f"lacks 1 tensors, first {name}" in refusal(damageable)


def test_tensor_of_another_shape_is_refused(damageable: Path) -> None:
    config = json.loads((damageable / "config.json").read_text())
    (damageable / "config.json").write_text(json.dumps(config | {"intermediate_size": 80}))
    assert "down_proj.weight is [64, 96], its config.json says [64, 80]" in refusal(damageable)


def test_folder_without_tokenizer_says_so(damageable: Path) -> None:
    for path in damageable.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in refusal(damageable)


def test_unknown_dtype_names_the_known() -> None:
    with pytest.raises(ValueError, match="unknown dtype 'int3'; use one of bf16, fp16, fp32"):
        load_model("tiny", dtype="int3")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
def test_hub_model_without_network_has_a_way_out() -> None:
    message = refusal("nobody/no-such-model")
    assert "cannot load 'nobody/no-such-model'" in message and "Give a checkpoint folder" in message


@pytest.mark.usefixtures("offline")
def test_hub_dataset_without_network_has_a_way_out() -> None:
    with pytest.raises(MissingDataError, match=r"from 'nobody/no-such-data'.*the folder of a local copy"):
        wikitext_rows("nobody/no-such-data")


@pytest.fixture(autouse=True)
def own_dataset_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    yield
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def save_dataset(folder: Path, config: str, **splits: dict[str, list[Any]]) -> str:
    """A dataset in the hub's layout: a README that names the files, and a parquet file a split."""
    folder.mkdir()
    files = "".join(f"  - split: {split}\n    path: {split}.parquet\n" for split in splits)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n")
    for split, columns in splits.items():
        datasets.Dataset.from_dict(columns).to_parquet(folder / f"{split}.parquet")
    return str(folder)


QUESTIONS = {"question": ["q"], "subject": ["s"], "choices": [["a", "b", "c", "d"]], "answer": [2]}
EXAMPLES = {column: values * 5 for column, values in QUESTIONS.items()}


def test_local_wikitext_has_its_rows_in_order(tmp_path: Path) -> None:
    rows = ["", " = Title = \n", " text \n"]
    assert wikitext_rows(save_dataset(tmp_path / "d", "wikitext-2-raw-v1", test={"text": rows})) == tuple(rows)


def test_local_mmlu_has_its_questions(tmp_path: Path) -> None:
    [question] = mmlu(save_dataset(tmp_path / "d", "all", dev=EXAMPLES, test=QUESTIONS))
    assert (question.group, question.continuations, question.answer) == ("s", (" A", " B", " C", " D"), 2)
    assert question.prompt.endswith("\n\nq\nA. a\nB. b\nC. c\nD. d\nAnswer:")


def test_wikitext_with_other_columns_names_both(tmp_path: Path) -> None:
    location = save_dataset(tmp_path / "d", "wikitext-2-raw-v1", test={"page": ["a"], "title": ["b"]})
    with pytest.raises(DataError, match="has columns page, title and lacks text"):
        wikitext_rows(location)


def test_mmlu_with_other_columns_names_both(tmp_path: Path) -> None:
    columns = {"question": ["q"], "options": [["a", "b", "c", "d"]], "answer": [0]}
    with pytest.raises(DataError, match="has columns question, options, answer and lacks subject, choices;"):
        mmlu(save_dataset(tmp_path / "d", "all", dev=columns, test=columns))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"choices": [["a", "b", "c"]]}, r"3 choices, \['a', 'b', 'c'\]; the recipe needs 4"),
        ({"answer": [4]}, "answer 4 is none of 4 choices; the recipe needs 0 to 3"),
        ({"answer": [-1]}, "answer -1 is none of 4 choices; the recipe needs 0 to 3"),
    ],
    ids=["three-choices", "4", "-1"],
)
def test_question_that_letters_cannot_answer_is_named(tmp_path: Path, change: dict[str, list[Any]], said: str) -> None:
    with pytest.raises(DataError, match=rf"split 'test', row 0: {said}"):
        mmlu(save_dataset(tmp_path / "d", "all", dev=EXAMPLES, test=QUESTIONS | change))


def test_subject_without_examples_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no examples in dev for astronomy"):
        mmlu(save_dataset(tmp_path / "d", "all", dev=EXAMPLES, test=QUESTIONS | {"subject": ["astronomy"]}))


def test_empty_dataset_is_named(tmp_path: Path) -> None:
    location = save_dataset(tmp_path / "d", "wikitext-2-raw-v1", test={"text": [""]})
    empty = datasets.Dataset.from_dict({"text": []}, features=datasets.Features(text=datasets.Value("string")))
    empty.to_parquet(tmp_path / "d" / "test.parquet")
    with pytest.raises(DataError, match=r"split 'test', from '.*/d': .* no data"):
        wikitext_rows(location)


def test_dataset_without_the_split_has_a_way_out(tmp_path: Path) -> None:
    location = save_dataset(tmp_path / "d", "all", dev=EXAMPLES)
    with pytest.raises(MissingDataError, match=r"split 'test', from .*the folder of a local copy"):
        mmlu(location)


def test_truncated_dataset_file_has_a_way_out(tmp_path: Path) -> None:
    location = save_dataset(tmp_path / "d", "wikitext-2-raw-v1", test={"text": ["a"]})
    file = tmp_path / "d" / "test.parquet"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(MissingDataError, match="cannot load 'wikitext-2-raw-v1', split 'test'"):
        wikitext_rows(location)


def test_missing_dataset_folder_has_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="the folder of a local copy"):
        mmlu(str(tmp_path / "absent"))


def word_tokenizer(words: list[str], **special: str) -> PreTrainedTokenizerFast:
    """A tokenizer that knows the given words, and makes any other the unknown one."""
    vocabulary = {word: index for index, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **special)


def test_document_recipe_needs_a_start_token() -> None:
    with pytest.raises(DataError, match=r"neither a BOS nor an EOS token.*choose a window recipe"):
        document_items(word_tokenizer(["a"]), [], max_length=8, units=lambda text, tokens: tokens)


def test_start_token_is_bos_before_eos() -> None:
    tokenizer = word_tokenizer(["<s>", "</s>"], bos_token="<s>", eos_token="</s>")
    assert start_token(tokenizer) == tokenizer.bos_token_id


def test_start_token_is_eos_where_there_is_no_bos() -> None:
    tokenizer = word_tokenizer(["</s>"], eos_token="</s>")
    assert start_token(tokenizer) == tokenizer.eos_token_id


LETTERED = Question(group="", prompt="Answer:", continuations=(" A", " B", " C", " D"), answer=0)


@pytest.mark.parametrize("known", [[], ["A", "B"]], ids=["no-letters", "two-letters"])
def test_tokenizer_that_cannot_tell_letters_apart_is_refused(known: list[str]) -> None:
    with pytest.raises(DataError, match="does not tell them apart; the recipe needs"):
        require_distinct_letters(encode(word_tokenizer(["Answer:", *known]), [LETTERED]), "ABCD")


def test_tokenizer_that_knows_all_but_one_letter_tells_them_apart() -> None:
    (found,) = encode(word_tokenizer(["Answer:", "A", "B", "C"]), [LETTERED])
    require_distinct_letters([found], "ABCD")
    assert [(choice.first, choice.continuation) for choice in found] == [(1, (2,)), (1, (3,)), (1, (4,)), (1, (0,))]
