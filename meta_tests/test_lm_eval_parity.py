"""The recipes that lm-evaluation-harness has too give what it gives, on the same model and data."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen3Config

from meta_tests.checkpoints import build_model
from quantsuite.adapters.loading import load_model
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.evaluate import data, multiple_choice, windows
from quantsuite.evaluate.data import Document, Examination
from quantsuite.evaluate.perplexity import score_text
from quantsuite.records import Choices
from quantsuite.tasks import TASKS, Sources

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
def wikitext_pages() -> tuple[Document, ...]:
    return data.pages(data.wikitext_rows(local("QUANTSUITE_WIKITEXT", "WikiText-2")))


def harness(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> LM:
    huggingface = pytest.importorskip("lm_eval.models.huggingface", reason=INSTALL, exc_type=ImportError)
    return huggingface.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu", max_length=max_length)


def rolling_log_likelihoods(peer: LM, texts: Sequence[str]) -> list[float]:
    requests = [Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0) for text in texts]
    return peer.loglikelihood_rolling(requests, disable_tqdm=True)


def test_detokenized_pages_are_the_harnesss(wikitext_pages: tuple[Document, ...]) -> None:
    changed = [
        page.text
        for page in wikitext_pages
        if windows.detokenize(page.text) != wikitext_detokenizer({"page": page.text})
    ]
    assert changed == []


@pytest.mark.parametrize(
    "text",
    ["the dogs ' tails", "1 @,@ 000 @.@ 5 @-@ x", "( a ) [ b ] { c }", '" q " \' r \'', "= = = = H = = = =",
     "5 \N{DEGREE SIGN} C", "a \n b", " N apples", "it 's", "a : b ; c . d ! e ? f , g", "/' 3/"],
)  # fmt: skip
def test_detokenized_marks_are_the_harnesss(text: str) -> None:
    assert windows.detokenize(text) == wikitext_detokenizer({"page": text})


def test_words_and_bytes_of_pages_are_the_harnesss(wikitext_pages: tuple[Document, ...]) -> None:
    counted = [process_results({"page": page.text}, [0.0]) for page in wikitext_pages]
    assert [windows.count_words(page.text) for page in wikitext_pages] == [c["word_perplexity"][1] for c in counted]
    assert [len(page.text.encode()) for page in wikitext_pages] == [c["byte_perplexity"][1] for c in counted]


def test_wikitext_perplexities_are_the_harnesss(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], wikitext_pages: tuple[Document, ...]
) -> None:
    model, tokenizer = tiny
    sources = Sources(wikitext=local("QUANTSUITE_WIKITEXT", "WikiText-2"), limit=PAGES)
    ours = TASKS["wikitext2/document"].prepare(tokenizer, sources, 512)
    result = ours.measure(TransformersEngine(model), None, lambda done, total: None)

    docs = [{"page": page.text} for page in wikitext_pages[:PAGES]]
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
    documents = data.world_documents()[:6]
    items = windows.document_items(tokenizer, documents, max_length=max_length, units=lambda text, tokens: tokens)
    ours = score_text(TransformersEngine(model), items).nats

    peer = harness(model, tokenizer, max_length)
    theirs = rolling_log_likelihoods(peer, [document.text for document in documents])
    assert ours == pytest.approx([-total for total in theirs], rel=1e-5)


def save_questions(examination: Examination, folder: Path) -> dict[str, str]:
    """MMLU's columns on disk, a file a split, as the harness reads them."""
    files = {}
    examples = [question for questions in examination.examples.values() for question in questions]
    for split, questions in (("dev", examples), ("test", examination.questions)):
        files[split] = str(folder / f"{split}.json")
        rows = [
            {"question": q.question, "subject": q.subject, "choices": list(q.choices), "answer": q.answer}
            for q in questions
        ]
        datasets.Dataset.from_list(rows).to_json(files[split])
    return files


def harness_tasks(examination: Examination, folder: Path) -> list[ConfigurableTask]:
    """The harness's own MMLU tasks, one a subject, on the given questions."""
    template = Path(lm_eval.__file__).parent / "tasks/mmlu/default/_default_template_yaml"
    files = save_questions(examination, folder)
    return [
        ConfigurableTask(
            config=yaml.safe_load(template.read_text())
            | {
                "task": f"mmlu_{subject}",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": files},
                "description": "The following are multiple choice questions (with answers) about "
                f"{subject.replace('_', ' ')}.\n\n",
                "process_docs": lambda rows, subject=subject: rows.filter(lambda row: row["subject"] == subject),
                "num_fewshot": 5,
            }
        )
        for subject in examination.examples
    ]


def harness_samples(
    peer: LM, examination: Examination, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """What the harness logs of each question, in the examination's order."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
    results = lm_eval.simple_evaluate(
        peer, tasks=harness_tasks(examination, folder), num_fewshot=5, bootstrap_iters=0, log_samples=True
    )
    by_question = {
        (sample["doc"]["subject"], sample["doc"]["question"], tuple(sample["doc"]["choices"])): sample
        for samples in results["samples"].values()
        for sample in samples
    }
    return [by_question[q.subject, q.question, q.choices] for q in examination.questions]


def few(examination: Examination, subjects: Sequence[str], count: int) -> Examination:
    """The first questions of some subjects."""
    return Examination(
        name=examination.name,
        examples={subject: examination.examples[subject] for subject in subjects},
        questions=tuple(
            q for subject in subjects for q in [q for q in examination.questions if q.subject == subject][:count]
        ),
    )


def real_questions() -> Examination:
    return few(data.mmlu(local("QUANTSUITE_MMLU", "MMLU")), SUBJECTS, 20)


def world_questions() -> Examination:
    examination = data.world_examination()
    return few(examination, list(examination.examples)[:3], 20)


EXAMINATIONS = {"world": world_questions, "mmlu": real_questions}


@pytest.mark.parametrize("source", EXAMINATIONS)
def test_prompts_are_the_harnesss(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examination = EXAMINATIONS[source]()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    theirs = set()
    for task in harness_tasks(examination, tmp_path):
        theirs |= {task.fewshot_context(doc, 5) for doc in task.test_docs()}
    assert {multiple_choice.prompts(examination, q.subject, [q])[0] for q in examination.questions} == theirs


@pytest.fixture(scope="module", params=EXAMINATIONS)
def answered(
    request: pytest.FixtureRequest,
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    long_context: PreTrainedModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Choices, list[dict[str, Any]]]:
    """What the suite and the harness make of the same questions."""
    examination = EXAMINATIONS[request.param]()
    model, tokenizer = (tiny[0] if request.param == "world" else long_context), tiny[1]
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("harness")
        samples = harness_samples(harness(model, tokenizer), examination, folder, monkeypatch)
    return multiple_choice.direct(TransformersEngine(model), tokenizer, examination), samples


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
