"""Tasks are values: they travel, they are chosen by name, and a file that is none is refused in one line."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import datasets
import msgspec
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from quantsuite.adapters.loading import load_model
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.evaluate.reading import DataError, MissingDataError
from quantsuite.tasks import Opened, Sources, TaskError, load_task, select_tasks, shipped_tasks
from quantsuite.tiny import embedded_folder
from quantsuite.tiny.world import World
from quantsuite.train_tiny import quiz_text

ROWS = [
    {"country": "Norrland", "capitals": ["Vik", "Sund"], "capital": "Vik"},
    {"country": "Estrell", "capitals": ["Mor", "Pell", "Quay"], "capital": "Quay"},
    {"country": "Tamar", "capitals": ["Hob", "Lumen"], "capital": "Hob"},
]
TASK = """
name = "capitals"
version = 1
metric = "accuracy"

[dataset]
kind = "files"
name = "capitals"
rows = "rows.jsonl"
columns = { country = "text", capitals = "texts", capital = "text" }

[recipe]
kind = "choices"
prompt = "The capital of {{ country }} is"
choices = "capitals"
answer = "capitals.index(capital)"
"""


def write(folder: Path, content: str = TASK, rows: list[dict[str, Any]] = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.toml").write_text(content)
    return folder / "task.toml"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(embedded_folder())


def refused(path: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
    with pytest.raises((TaskError, DataError)) as caught:
        task = load_task(path)
        assert tokenizer is not None
        task.prepare(tokenizer, Sources(), 512)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", shipped_tasks())
def test_a_shipped_task_is_named_as_its_file(name: str) -> None:
    path = Path(load_task.__code__.co_filename).parent / f"{name}.toml"
    assert load_task(path).name == name


@pytest.mark.parametrize("name", shipped_tasks())
def test_a_task_that_was_pickled_is_the_same(name: str) -> None:
    task = shipped_tasks()[name]
    assert pickle.loads(pickle.dumps(task)) == task


@pytest.mark.parametrize("name", ["world/document", "world-mmlu/direct", "world-mmlu/generate"])
def test_a_task_that_was_pickled_measures_the_same(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    engine = TransformersEngine(load_model("tiny").model)
    before = shipped_tasks()[name]
    found = [
        task.prepare(tokenizer, Sources(limit=4), 512).measure(Opened(engine=engine), lambda done, total: None)
        for task in (before, pickle.loads(pickle.dumps(before)))
    ]
    assert found[0] == found[1]


WRONG = {
    "unknown key": (
        "[recipe]",
        '[recipe]\npromt = "x"',
        "unknown key recipe.promt; did you mean 'prompt'? there are kind,",
    ),
    "unknown key at the top": (
        'name = "c',
        'shot = 1\nname = "c',
        "unknown key shot; did you mean 'shots'? there are name,",
    ),
    "a field that is filled in": (
        "version = 1",
        'version = 1\nsha256 = "x"',
        "unknown key sha256; there are name, ver",
    ),
    "missing key": ('answer = "', 'group = "', "recipe.answer is missing"),
    "missing name": ('name = "capitals"\nversion', "version", "the key name is missing"),
    "missing kind": ('kind = "files"\n', "", "the key dataset.kind is missing; give one of hub, files, world"),
    "unknown recipe": (
        'kind = "choices"',
        'kind = "choice"',
        "recipe.kind 'choice' is unknown; did you mean 'choices'? there are",
    ),
    "unknown type": (
        'country = "text"',
        'country = "txt"',
        "'txt' is unknown; did you mean 'text'? there are text, string",
    ),
    "type of a value": ("version = 1", 'version = "1"', "version: Expected `int`, got `str`"),
    "version": ("version = 1", "version = 0", "version 0 is less than 1"),
    "unknown metric": ('"accuracy"', '"acuracy"', "unknown metric 'acuracy'; did you mean 'accuracy'?"),
    "metric of others": ('"accuracy"', '"perplexity"', "takes Perplexities; a recipe of kind 'choices' yields Choices"),
    "unknown column": (
        "{{ country }}",
        "{{ land }}",
        "recipe.prompt names land; the columns are country, capitals, capital",
    ),
    "template": ("{{ country }}", "{{ country", "recipe.prompt is no template: "),
    "unknown clean-up": (
        "{{ country }}",
        "{{ country | hellswag }}",
        "recipe.prompt is no template: No filter named 'hellswag'",
    ),
    "shots": ("version = 1", "version = 1\nshots = 2", "shots 2 need examples; give dataset.examples"),
    "extends": ("version = 1", 'version = 1\nextends = "task.toml"', "extends leads back to"),
    "no TOML": ("version = 1", "version = ", "is no TOML: "),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_no_task_is_refused_with_what_there_is(tmp_path: Path, case: str) -> None:
    old, new, said = WRONG[case]
    assert old in TASK
    shown = refused(write(tmp_path, TASK.replace(old, new, 1)))
    assert shown.startswith(str(tmp_path / "task.toml")) and said in shown


BAD_ROWS = {
    "an answer that is no choice": (
        {"capital": "Oslo"},
        "row 1: recipe.answer cannot be filled in: ValueError: 'Oslo'",
    ),
    "one choice": ({"capitals": ["Quay"], "capital": "Quay"}, "row 1: 1 choices, ['Quay']; the recipe needs 2 or more"),
    "a blank choice": ({"capitals": ["Quay", " "]}, "row 1: capitals ['Quay', ' '] is no list of texts"),
    "a blank text": ({"country": " "}, "row 1: country ' ' is no text"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_row_that_is_no_question_is_named(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, case: str) -> None:
    change, said = BAD_ROWS[case]
    assert said in refused(write(tmp_path, rows=[ROWS[0], ROWS[1] | change]), tokenizer)


def test_a_column_that_is_not_there_is_named(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"country": "Norrland", "capitals": ["Vik", "Sund"]}]
    shown = refused(write(tmp_path, rows=rows), tokenizer)
    assert "has columns country, capitals and lacks capital; a recipe for it needs" in shown


def test_a_template_reaches_nothing_beyond_its_row(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = "{{ country.__class__.__mro__ }}"
    shown = refused(write(tmp_path, TASK.replace("{{ country }}", prompt)), tokenizer)
    assert "row 0: recipe.prompt cannot be filled in: access to attribute '__class__'" in shown


def test_a_template_makes_no_text_without_end(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    shown = refused(write(tmp_path, TASK.replace("{{ country }}", "{{ country * 100000000 }}")), tokenizer)
    assert "row 0: recipe.prompt cannot be filled in: * of values up to 100,000,000" in shown


def test_a_file_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path)
    assert refused(tmp_path / "tsk.toml").endswith(f"{tmp_path} has task.toml")


def test_rows_that_are_not_there_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = write(tmp_path)
    (tmp_path / "rows.jsonl").unlink()
    assert "rows.jsonl is not a file.  Give a file that ends in .jsonl, .json, .csv, .parquet" in refused(
        path, tokenizer
    )


def test_a_dataset_can_stand_elsewhere(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    write(tmp_path / "other", rows=ROWS[:2])
    sources = Sources(places={"capitals": str(tmp_path / "other")})
    assert load_task(write(tmp_path / "one")).prepare(tokenizer, sources, 512).dataset.items == 2


@pytest.mark.parametrize("suffix", ["json", "csv", "parquet"])
def test_rows_are_read_from_other_formats(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, suffix: str) -> None:
    content = TASK.replace("rows.jsonl", f"rows.{suffix}").replace('"texts"', '"text"')
    content = content.replace('choices = "capitals"', 'choices = "[capitals, capital]"')
    path = write(tmp_path, content.replace("capitals.index(capital)", "0"))
    rows = datasets.Dataset.from_list([row | {"capitals": " ".join(row["capitals"])} for row in ROWS])
    getattr(rows, {"json": "to_json", "csv": "to_csv", "parquet": "to_parquet"}[suffix])(tmp_path / f"rows.{suffix}")
    found = load_task(path).prepare(tokenizer, Sources(), 512)
    assert found.questions[0].continuations == (" Vik Sund", " Vik")


def test_a_file_extends_another_but_for_what_it_gives(tmp_path: Path) -> None:
    base = load_task(write(tmp_path))
    (tmp_path / "own.toml").write_text('extends = "task.toml"\nname = "own"\nrecipe.prompt = "{{ country }}:"\n')
    own = load_task(tmp_path / "own.toml")
    assert (own.name, own.recipe.prompt) == ("own", "{{ country }}:")
    assert (own.dataset, own.recipe.answer) == (base.dataset, base.recipe.answer)


CHANGES = [
    ('metric = "accuracy"', 'metric = "normalized accuracy"'),
    ("capital of", "main town of"),
    ('answer = "', 'delimiter = ""\nanswer = "'),
    ("version = 1", "version = 2"),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_a_users_task_that_was_edited_is_another(tmp_path: Path, old: str, new: str) -> None:
    before = load_task(write(tmp_path)).label
    assert load_task(write(tmp_path, TASK.replace(old, new))).label.sha256 != before.sha256


def test_a_users_task_is_the_same_in_any_folder(tmp_path: Path) -> None:
    content = TASK.replace("rows =", 'examples = "rows.jsonl"\nrows =').replace("version = 1", "version = 1\nshots = 1")
    labels = [load_task(write(tmp_path / name, content)).label for name in ("one", "other")]
    assert labels[0] == labels[1] and len(labels[0].sha256) == 64


@pytest.mark.parametrize("name", shipped_tasks())
def test_a_shipped_task_is_recorded_by_its_version_alone(name: str) -> None:
    task = shipped_tasks()[name]
    assert msgspec.to_builtins(task.label) == {
        "name": name, "version": task.version, "metric": task.label.metric
    }  # fmt: skip


def test_a_copy_of_a_shipped_task_is_that_one(tmp_path: Path) -> None:
    copy = shutil.copy(Path(load_task.__code__.co_filename).parent / "piqa/accuracy.toml", tmp_path)
    assert select_tasks([str(copy)]) == [shipped_tasks()["piqa/accuracy"]]


@pytest.mark.parametrize(
    ("own", "rows", "examples"),
    [
        ("", "base/rows.jsonl", "base/more.jsonl"),
        ('dataset.rows = "rows.jsonl"', "own/rows.jsonl", "base/more.jsonl"),
        ('dataset.examples = "more.jsonl"', "base/rows.jsonl", "own/more.jsonl"),
        ('dataset.folder = "deep"', "own/deep/rows.jsonl", "own/deep/more.jsonl"),
    ],
)
def test_files_of_a_dataset_are_beside_the_file_that_names_them(
    tmp_path: Path, own: str, rows: str, examples: str
) -> None:
    write(tmp_path / "base", TASK.replace("rows =", 'examples = "more.jsonl"\nrows ='))
    path = write(tmp_path / "own", f'extends = "../base/task.toml"\nname = "own"\n{own}\n')
    dataset = load_task(path).dataset
    found = [(Path(dataset.folder) / each).resolve() for each in (dataset.rows, dataset.examples)]
    assert found == [tmp_path / rows, tmp_path / examples]


def test_a_name_is_never_extended(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "own.toml").write_text('extends = "task.toml"\n')
    assert "the key name is missing" in refused(tmp_path / "own.toml")


def test_a_family_a_name_and_a_file_are_chosen_together(tmp_path: Path) -> None:
    names = [task.name for task in select_tasks(["mmlu", "piqa/normalized", str(write(tmp_path))])]
    assert names == ["mmlu/direct", "mmlu/generate", "piqa/normalized", "capitals"]


@pytest.mark.parametrize(("name", "meant"), [("hellaswg", "hellaswag"), ("arc_easy/acuracy", "arc_easy/accuracy")])
def test_an_unknown_name_has_a_near_one(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"unknown task '{name}'; did you mean '{meant}'\\?"):
        select_tasks([name])


def test_a_file_with_the_name_of_a_shipped_task_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, TASK.replace('name = "capitals"', 'name = "mmlu/direct"', 1))
    with pytest.raises(TaskError, match="the name 'mmlu/direct' is that of another task"):
        select_tasks([str(path)])


def test_a_limit_draws_questions_with_the_seed(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [ROWS[0] | {"country": f"Land{number}"} for number in range(40)]
    task = load_task(write(tmp_path, rows=rows))

    def prompts(seed: int) -> list[str]:
        return [each.prompt for each in task.prepare(tokenizer, Sources(limit=5, seed=seed), 512).questions]

    assert len(prompts(1)) == 5 and prompts(1) == prompts(1) != prompts(2)


def test_the_hub_is_not_needed_to_say_that_it_is_not_there(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(MissingDataError, match=r"cannot load split 'validation', from 'nobody/piqa'.*a local copy"):
        shipped_tasks()["piqa/accuracy"].prepare(tokenizer, Sources(places={"piqa": "nobody/piqa"}), 512)


SHOT = "Which wind crosses the island of Taetis?\nA. south\nB. autumn\nC. north\nD. morning\nAnswer: C\n\n"
LAST = "Which wind crosses the island of Mera?\nA. polar\nB. winter\nC. west\nD. north\nAnswer:"


def test_the_embedded_questions_have_the_form_of_mmlu(tokenizer: PreTrainedTokenizerBase) -> None:
    heading = "The following are multiple choice questions (with answers) about island geography.\n\n"
    prompt = shipped_tasks()["world-mmlu/direct"].prepare(tokenizer, Sources(), 512).questions[0].prompt
    assert prompt.startswith(heading + SHOT) and prompt.endswith(f"\n\n{LAST}") and prompt.count("Answer:") == 6


def test_the_embedded_model_is_taught_in_the_form_of_its_questions() -> None:
    questions = World(0).quiz(random.Random(3))
    text = quiz_text(World(0), random.Random(3))
    subject = questions[0].subject.replace("_", " ")
    assert text.startswith(f"The following are multiple choice questions (with answers) about {subject}.\n\n")
    lines = [[q.question, *map(" ".join, zip(("A.", "B.", "C.", "D."), q.choices, strict=True))] for q in questions]
    solved = ["\n".join([*each, f"Answer: {'ABCD'[q.answer]}"]) for each, q in zip(lines, questions, strict=True)]
    assert text.endswith("\n\n" + "\n\n".join(solved))
