"""The recipes that lm-evaluation-harness has too give what it gives, on the same model and data."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen3Config

from meta_tests.checkpoints import build_model
from meta_tests.hub_layouts import save_splits
from meta_tests.recipes import prepare, wikitext_rows
from quantsuite.adapters.loading import load_model
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.evaluate import data, windows
from quantsuite.evaluate.cleanups import wikitext as detokenize
from quantsuite.evaluate.data import Document
from quantsuite.evaluate.perplexity import score_text
from quantsuite.evaluate.reading import read_rows
from quantsuite.metrics import Choices
from quantsuite.tasks import Opened, Prepared, Sources, shipped_tasks

INSTALL = "the oracle is not installed: pip install 'lm-eval[hf]'"
lm_eval = pytest.importorskip("lm_eval", reason=INSTALL)

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer  # noqa: E402

PAGES = 2
SUBJECTS = ("anatomy", "world_religions", "college_physics")
LETTER_TOLERANCE = 1e-3


def local(variable: str, what: str) -> str:
    folder = os.environ.get(variable, "")
    if not Path(folder).is_dir() or not folder:
        pytest.skip(f"no local {what}: set {variable} to a folder of it, such as a clone of the hub's dataset")
    return folder


@pytest.fixture(scope="module")
def tiny() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    loaded = load_model("tiny", dtype="fp32")
    return loaded.model, loaded.tokenizer


@pytest.fixture(scope="module")
def long_context(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> PreTrainedModel:
    """A random model that five real examples fit in."""
    return build_model(
        Qwen3Config(
            vocab_size=len(tiny[1]),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=4096,
            bos_token_id=None,
            eos_token_id=0,
        )
    )


@pytest.fixture(scope="module")
def wikitext_pages() -> list[str]:
    return data.pages(wikitext_rows(local("QUANTSUITE_WIKITEXT", "WikiText-2")))


def harness(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> LM:
    huggingface = pytest.importorskip("lm_eval.models.huggingface", reason=INSTALL, exc_type=ImportError)
    return huggingface.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu", max_length=max_length)


def rolling_log_likelihoods(peer: LM, texts: Sequence[str]) -> list[float]:
    requests = [Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0) for text in texts]
    return peer.loglikelihood_rolling(requests, disable_tqdm=True)


def test_detokenized_pages_are_the_harnesss(wikitext_pages: list[str]) -> None:
    changed = [page for page in wikitext_pages if detokenize(page) != wikitext_detokenizer({"page": page})]
    assert changed == []


@pytest.mark.parametrize(
    "text",
    ["the dogs ' tails", "1 @,@ 000 @.@ 5 @-@ x", "( a ) [ b ] { c }", '" q " \' r \'', "= = = = H = = = =",
     "5 \N{DEGREE SIGN} C", "a \n b", " N apples", "it 's", "a : b ; c . d ! e ? f , g", "/' 3/"],
)  # fmt: skip
def test_detokenized_marks_are_the_harnesss(text: str) -> None:
    assert detokenize(text) == wikitext_detokenizer({"page": text})


def test_words_and_bytes_of_pages_are_the_harnesss(wikitext_pages: list[str]) -> None:
    counted = [process_results({"page": page}, [0.0]) for page in wikitext_pages]
    assert [windows.count_words(page) for page in wikitext_pages] == [c["word_perplexity"][1] for c in counted]
    assert [len(page.encode()) for page in wikitext_pages] == [c["byte_perplexity"][1] for c in counted]


def test_wikitext_perplexities_are_the_harnesss(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], wikitext_pages: list[str]
) -> None:
    model, tokenizer = tiny
    ours = prepare("wikitext2/document", local("QUANTSUITE_WIKITEXT", "WikiText-2"), limit=PAGES)
    result = ours.measure(Opened(engine=TransformersEngine(model)), lambda done, total: None)

    docs = [{"page": page} for page in wikitext_pages[:PAGES]]
    totals = rolling_log_likelihoods(harness(model, tokenizer), [wikitext_detokenizer(doc) for doc in docs])
    results = [process_results(doc, (total,)) for doc, total in zip(docs, totals, strict=True)]

    def theirs(metric: str) -> float:
        return math.exp(-sum(r[metric][0] for r in results) / sum(r[metric][1] for r in results))

    assert result.value == pytest.approx(theirs("word_perplexity"), rel=1e-4)
    assert result.details["byte_perplexity"] == pytest.approx(theirs("byte_perplexity"), rel=1e-4)
    assert result.details["bits_per_byte"] == pytest.approx(math.log2(theirs("byte_perplexity")), rel=1e-4)


@pytest.mark.parametrize("max_length", [512, 31])
def test_document_likelihoods_are_the_harnesss(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], max_length: int
) -> None:
    model, tokenizer = tiny
    documents = [Document(**row) for row in data.world_documents()[:6]]
    items = windows.document_items(tokenizer, documents, max_length=max_length, units=lambda text, tokens: tokens)
    ours = score_text(TransformersEngine(model), items).nats

    peer = harness(model, tokenizer, max_length)
    theirs = rolling_log_likelihoods(peer, [document.text for document in documents])
    assert ours == pytest.approx([-total for total in theirs], rel=1e-5)


Rows = list[dict[str, Any]]
COLUMNS = ("question", "subject", "choices", "answer")


def few(dev: Rows, test: Rows, subjects: Sequence[str], count: int) -> dict[str, Rows]:
    """The examples of some subjects, and their first questions."""
    own = [[row for row in test if row["subject"] == subject][:count] for subject in subjects]
    return {"dev": [row for row in dev if row["subject"] in subjects], "test": [row for rows in own for row in rows]}


def real_questions() -> dict[str, Rows]:
    place = local("QUANTSUITE_MMLU", "MMLU")
    dev, test = (read_rows(place, "all", split, COLUMNS) for split in ("dev", "test"))
    return few(dev, test, SUBJECTS, 20)


def world_questions() -> dict[str, Rows]:
    dev, test = data.world_questions()
    return few(dev, test, list(dict.fromkeys(row["subject"] for row in test))[:3], 20)


EXAMINATIONS = {"world": world_questions, "mmlu": real_questions}


@dataclass(frozen=True)
class Examined:
    """The same files for both: the suite's task with its data, and the harness's tasks, one a subject."""

    prepared: Prepared
    tasks: list[ConfigurableTask]


@pytest.fixture(scope="module", params=EXAMINATIONS)
def examined(
    request: pytest.FixtureRequest,
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Examined]:
    splits = EXAMINATIONS[request.param]()
    folder = tmp_path_factory.mktemp("harness")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        place = save_splits(folder / "mmlu", "all", splits)
        prepared = shipped_tasks()["mmlu/direct"].prepare(tiny[1], Sources(places={"mmlu": place}), 4096)
        subjects = dict.fromkeys(row["subject"] for row in splits["test"])
        yield Examined(prepared, [harness_task(subject, place) for subject in subjects])


def harness_task(subject: str, place: str) -> ConfigurableTask:
    template = Path(lm_eval.__file__).parent / "tasks/mmlu/default/_default_template_yaml"
    return ConfigurableTask(
        config=yaml.safe_load(template.read_text())
        | {
            "task": f"mmlu_{subject}",
            "dataset_path": place,
            "dataset_name": "all",
            "description": "The following are multiple choice questions (with answers) about "
            f"{subject.replace('_', ' ')}.\n\n",
            "process_docs": lambda rows: rows.filter(lambda row: row["subject"] == subject),
            "num_fewshot": 5,
        }
    )


def test_prompts_are_the_harnesss(examined: Examined) -> None:
    theirs = {task.fewshot_context(doc, 5) for task in examined.tasks for doc in task.test_docs()}
    assert {question.prompt for question in examined.prepared.questions} == theirs


@pytest.fixture(scope="module")
def answered(
    request: pytest.FixtureRequest,
    examined: Examined,
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    long_context: PreTrainedModel,
) -> tuple[Choices, list[dict[str, Any]]]:
    """What the suite and the harness make of the same questions, in the same order."""
    fits = examined.prepared.longest <= 512
    model = tiny[0] if fits else long_context
    results = lm_eval.simple_evaluate(
        harness(model, tiny[1]), tasks=examined.tasks, num_fewshot=5, bootstrap_iters=0, log_samples=True
    )
    samples = {sample["arguments"][0][0]: sample for samples in results["samples"].values() for sample in samples}
    ours = examined.prepared.measure(Opened(engine=TransformersEngine(model)), lambda done, total: None).items
    return ours, [samples[question.prompt] for question in examined.prepared.questions]


def harness_likelihoods(samples: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([[float(response[0]) for response in sample["filtered_resps"]] for sample in samples])


def test_letters_likelihoods_are_the_harnesss(answered: tuple[Choices, list[dict[str, Any]]]) -> None:
    choices, samples = answered
    ours = torch.tensor(choices.log_likelihoods)
    torch.testing.assert_close(ours, harness_likelihoods(samples), rtol=0, atol=LETTER_TOLERANCE)


def test_answers_are_the_harnesss(answered: tuple[Choices, list[dict[str, Any]]]) -> None:
    choices, samples = answered
    assert choices.predicted == harness_likelihoods(samples).argmax(-1).tolist()


def test_right_answers_are_the_harnesss(answered: tuple[Choices, list[dict[str, Any]]]) -> None:
    choices, samples = answered
    assert [float(right) for right in choices.correct] == [sample["acc"] for sample in samples]
