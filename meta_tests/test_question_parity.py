"""The shipped question tasks give what lm-evaluation-harness's own give, on the same model and files."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from meta_tests.hub_layouts import LAYOUTS
from quantsuite.adapters.loading import load_model
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.evaluate.multiple_choice import score
from quantsuite.tasks import Opened, Prepared, Sources, select_tasks
from quantsuite.tiny import embedded_folder

INSTALL = "the oracle is not installed: pip install 'lm-eval[hf]'"
lm_eval = pytest.importorskip("lm_eval", reason=INSTALL)

from lm_eval.api.task import ConfigurableTask  # noqa: E402

NAT = 1e-4
"""What float32 sums of a few dozen tokens may differ by between batches."""

FILES = {
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "piqa": "piqa/piqa.yaml",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
}
"""The harness's tasks by their names."""

TASKS = {
    "hellaswag/accuracy": ("hellaswag", "acc"),
    "hellaswag/normalized": ("hellaswag", "acc_norm"),
    "arc_easy/accuracy": ("arc_easy", "acc"),
    "arc_easy/normalized": ("arc_easy", "acc_norm"),
    "arc_challenge/accuracy": ("arc_challenge", "acc"),
    "arc_challenge/normalized": ("arc_challenge", "acc_norm"),
    "piqa/accuracy": ("piqa", "acc"),
    "piqa/normalized": ("piqa", "acc_norm"),
    "truthfulqa/mc1": ("truthfulqa_mc1", "acc"),
    "truthfulqa/mc2": ("truthfulqa_mc2", "acc"),
    "lambada_openai/match": ("lambada_openai", "acc"),
    "lambada_openai/perplexity": ("lambada_openai", "perplexity"),
}
"""Of each shipped task the harness's, and its metric."""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(embedded_folder())


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return load_model("tiny", dtype="fp32").model


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The folders of small datasets, by the names of the tasks' datasets."""
    folder = tmp_path_factory.mktemp("layouts")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        yield {name: save(folder / name) for name, save in LAYOUTS.items()}


def harness_config(path: Path) -> dict[str, Any]:
    """A task of the harness with its functions and what it includes, but for splits that it does not measure."""

    class Loader(yaml.SafeLoader):
        pass

    def function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        module, _, name = str(loader.construct_scalar(node)).rpartition(".")
        return getattr(importlib.import_module(f"lm_eval.tasks.{path.parent.name}.{module}"), name)

    Loader.add_constructor("!function", function)
    config = yaml.load(path.read_text(), Loader)
    base = config.pop("include", None)
    config.pop("tag", None)
    config = (harness_config(path.parent / base) if base else {}) | config
    unread = ("training_split", *(["validation_split"] if config.get("test_split") else []))
    return config | dict.fromkeys(unread)


@pytest.fixture(scope="module")
def theirs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, places: dict[str, str]) -> dict[str, Any]:
    """What the harness makes of the datasets by its own tasks."""
    huggingface = pytest.importorskip("lm_eval.models.huggingface", reason=INSTALL, exc_type=ImportError)
    peer = huggingface.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu")
    root = Path(lm_eval.__file__).parent / "tasks"
    chosen = {task: name.split("/")[0] for name, (task, _) in TASKS.items()}
    tasks = [
        ConfigurableTask(config=harness_config(root / FILES[task]) | {"dataset_path": places[name]})
        for task, name in chosen.items()
    ]
    return lm_eval.simple_evaluate(peer, tasks=tasks, bootstrap_iters=0, log_samples=True)


@pytest.fixture(scope="module", params=TASKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def samples(theirs: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """What the harness logs of a task's questions, in the file's order."""
    return sorted(theirs["samples"][TASKS[name][0]], key=lambda sample: sample["doc_id"])


@pytest.fixture(scope="module")
def prepared(name: str, tokenizer: PreTrainedTokenizerBase, places: dict[str, str]) -> Prepared:
    (task,) = select_tasks([name])
    return task.prepare(tokenizer, Sources(places=places), 512)


def test_prompts_and_continuations_are_the_harnesss(prepared: Prepared, samples: list[dict[str, Any]]) -> None:
    theirs = [list(sample["arguments"]) for sample in samples]
    assert [[(each.prompt, text) for text in each.continuations] for each in prepared.questions] == theirs


def test_log_likelihoods_are_the_harnesss(
    prepared: Prepared, model: PreTrainedModel, samples: list[dict[str, Any]]
) -> None:
    found = score(TransformersEngine(model), prepared.tokenizer, prepared.questions)
    theirs = [[float(response[0][0]) for response in sample["resps"]] for sample in samples]
    assert found == [pytest.approx(row, abs=NAT) for row in theirs]


def test_the_value_is_the_harnesss(
    name: str, prepared: Prepared, model: PreTrainedModel, theirs: dict[str, Any]
) -> None:
    ours = prepared.measure(Opened(engine=TransformersEngine(model)), lambda done, total: None)
    task, metric = TASKS[name]
    assert ours.value == pytest.approx(theirs["results"][task][f"{metric},none"], rel=1e-4)
