"""Tasks: a recipe on a dataset, by name; what ``--task`` chooses from."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from transformers import PreTrainedTokenizerBase

from quantsuite.engine import Engine
from quantsuite.evaluate import data, multiple_choice, windows
from quantsuite.evaluate.drift import drift
from quantsuite.evaluate.perplexity import score_text
from quantsuite.evaluate.windows import TextItem
from quantsuite.metrics import Choices, Items
from quantsuite.metrics.accuracy import ACCURACY
from quantsuite.metrics.divergence import DIVERGENCE
from quantsuite.metrics.perplexity import WORD_PERPLEXITY
from quantsuite.records import Dataset, TaskLabel
from quantsuite.tiny import EMBEDDED

Kind = Literal["perplexity", "choices", "drift"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where data comes from and how much of it is used.

    Args:
        wikitext: hub id or folder of WikiText-2.
        mmlu: hub id or folder of MMLU.
        limit: questions drawn, or first windows or documents taken; 0 for all.
        seed: of the draw of questions.
    """

    wikitext: str = data.WIKITEXT_HUB
    mmlu: str = data.MMLU_HUB
    limit: int = 0
    seed: int = 42


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a task yields: the metric's value, further numbers, and the outcome of every item."""

    value: float
    details: dict[str, float]
    items: Items


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A task with its data loaded.

    Args:
        dataset: what identifies the items.
        longest: the most tokens that are read at once; of questions, of the prompt that has the most characters.
        measure: the measurement.
    """

    dataset: Dataset
    longest: int
    measure: Callable[[Engine, Engine | None, Progress], Measurement]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A named recipe on a dataset.

    Args:
        label: as records carry it.
        kind: which items it yields.
        prepare: loads the data for a tokenizer and a context length.
        context: tokens that the recipe reads at once, whatever the data; 0 if that depends on the data.
    """

    label: TaskLabel
    kind: Kind
    prepare: Callable[[PreTrainedTokenizerBase, Sources, int], Prepared]
    context: int = 0

    @property
    def name(self) -> str:
        return self.label.name


def _identify(name: str, items: Sequence[object], sources: Sources) -> Dataset:
    digest = hashlib.sha256(msgspec.json.encode(items)).hexdigest()
    return Dataset(name=name, sha256=digest, items=len(items), limit=sources.limit, seed=sources.seed)


def _longest(items: Sequence[TextItem]) -> int:
    return max((len(window.tokens) - 1 for item in items for window in item.windows), default=0)


def _limited(items: list[TextItem], limit: int) -> list[TextItem]:
    return items[:limit] if limit else items


def _prepare_text(name: str, items: list[TextItem], sources: Sources, documents: Sequence[str] | None) -> Prepared:
    items = _limited(items, sources.limit)

    def measure(engine: Engine, reference: Engine | None, progress: Progress) -> Measurement:
        total = sum(len(item.windows) for item in items)
        result = score_text(engine, items, progress=lambda done: progress(done, total))
        given = {} if documents is None else {"bytes": sum(len(text.encode()) for text in documents)}
        metric = WORD_PERPLEXITY
        return Measurement(value=metric.value(result), details=metric.details(result, given), items=result)

    return Prepared(dataset=_identify(name, items, sources), longest=_longest(items), measure=measure)


def _perplexity_task(
    name: str, recipe: Callable[[PreTrainedTokenizerBase, Sequence[str]], list[TextItem]], context: int = 0
) -> Task:
    def prepare(tokenizer: PreTrainedTokenizerBase, sources: Sources, max_length: int) -> Prepared:
        return _prepare_text("wikitext2", recipe(tokenizer, data.wikitext_rows(sources.wikitext)), sources, None)

    return Task(
        label=TaskLabel(name=f"wikitext2/{name}", version=1, metric="perplexity"),
        kind="perplexity",
        prepare=prepare,
        context=context,
    )


def _wikitext_documents(tokenizer: PreTrainedTokenizerBase, sources: Sources, max_length: int) -> Prepared:
    pages = data.pages(data.wikitext_rows(sources.wikitext))
    items = windows.document_items(
        tokenizer,
        pages,
        max_length=max_length,
        clean=windows.detokenize,
        units=lambda text, tokens: windows.count_words(text),
    )
    return _prepare_text("wikitext2", items, sources, [page.text for page in pages[: sources.limit or None]])


def _world_items(tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[TextItem]:
    return windows.document_items(
        tokenizer, data.world_documents(), max_length=max_length, units=lambda text, tokens: tokens
    )


def _world_documents(tokenizer: PreTrainedTokenizerBase, sources: Sources, max_length: int) -> Prepared:
    documents = data.world_documents()[: sources.limit or None]
    return _prepare_text("world", _world_items(tokenizer, max_length), sources, [d.text for d in documents])


def _world_drift(tokenizer: PreTrainedTokenizerBase, sources: Sources, max_length: int) -> Prepared:
    return _prepare_drift("world", _limited(_world_items(tokenizer, max_length), sources.limit), sources)


def _wikitext_drift(tokenizer: PreTrainedTokenizerBase, sources: Sources, max_length: int) -> Prepared:
    items = windows.chunk512(tokenizer, data.wikitext_rows(sources.wikitext))
    return _prepare_drift("wikitext2", _limited(items, sources.limit), sources)


def _prepare_drift(name: str, items: list[TextItem], sources: Sources) -> Prepared:
    def measure(engine: Engine, reference: Engine | None, progress: Progress) -> Measurement:
        assert reference is not None
        total = sum(len(item.windows) for item in items)
        result = drift(reference, engine, items, progress=lambda done: progress(done, total))
        return Measurement(value=DIVERGENCE.value(result), details=DIVERGENCE.details(result, {}), items=result)

    return Prepared(dataset=_identify(name, items, sources), longest=_longest(items), measure=measure)


def _choices_task(
    name: str, examination: Callable[[Sources], data.Examination], method: Callable[..., Choices]
) -> Task:
    def prepare(tokenizer: PreTrainedTokenizerBase, sources: Sources, max_length: int) -> Prepared:
        drawn = examination(sources).draw(sources.limit, sources.seed)

        def measure(engine: Engine, reference: Engine | None, progress: Progress) -> Measurement:
            total = len(drawn.questions)
            result = method(engine, tokenizer, drawn, progress=lambda done: progress(done, total))
            return Measurement(value=ACCURACY.value(result), details=ACCURACY.details(result, {}), items=result)

        prompts = [multiple_choice.prompts(drawn, q.subject, [q])[0] for q in drawn.questions]
        items = [f"{prompt} {question.answer}" for prompt, question in zip(prompts, drawn.questions, strict=True)]
        longest = len(tokenizer(max(prompts, key=len), verbose=False)["input_ids"])
        if method is multiple_choice.generate:
            longest += multiple_choice.MAX_NEW_TOKENS - 1
        return Prepared(dataset=_identify(drawn.name, items, sources), longest=longest, measure=measure)

    label = TaskLabel(name=f"{name}/{method.__name__}", version=1, metric="accuracy")
    return Task(label=label, kind="choices", prepare=prepare)


def _document_task(
    name: str,
    kind: Kind,
    metric: str,
    prepare: Callable[[PreTrainedTokenizerBase, Sources, int], Prepared],
    context: int = 0,
) -> Task:
    label = TaskLabel(name=name, version=1, metric=metric)
    return Task(label=label, kind=kind, prepare=prepare, context=context)


_ALL = (
    _document_task("world/document", "perplexity", "document perplexity", _world_documents),
    *(
        _choices_task("world-mmlu", lambda sources: data.world_examination(), method)
        for method in (multiple_choice.direct, multiple_choice.generate)
    ),
    _document_task("world/drift", "drift", "divergence", _world_drift),
    _perplexity_task("window2048", windows.window2048, context=2047),
    _perplexity_task("chunk512", windows.chunk512, context=511),
    _perplexity_task("head100", windows.head100),
    _document_task("wikitext2/document", "perplexity", "word perplexity", _wikitext_documents),
    *(
        _choices_task("mmlu", lambda sources: data.mmlu(sources.mmlu), method)
        for method in (multiple_choice.direct, multiple_choice.generate)
    ),
    _document_task("wikitext2/drift", "drift", "divergence", _wikitext_drift, context=511),
)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def select_tasks(names: Iterable[str]) -> list[Task]:
    """Tasks by name, or by the part before the slash: ``mmlu`` is ``mmlu/direct`` and ``mmlu/generate``.

    Raises:
        ValueError: if a name is none of these.
    """
    chosen: dict[str, Task] = {}
    for name in names:
        matching = [task for task in TASKS.values() if name in (task.name, task.name.split("/")[0])]
        if not matching:
            close = difflib.get_close_matches(name, TASKS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"unknown task {name!r}; {hint}known: {', '.join(TASKS)}")
        chosen |= {task.name: task for task in matching}
    return list(chosen.values())


def default_tasks(model: str, context: int | None) -> list[Task]:
    """The embedded model's own texts and questions, or WikiText-2 and MMLU for any other model.

    Of WikiText-2's recipes the first of those of 2,048 tokens, 512 tokens, and any number that the context holds.
    """
    if model in EMBEDDED:
        return select_tasks(["world/document", "world-mmlu"])
    recipes = (TASKS[f"wikitext2/{name}"] for name in ("window2048", "chunk512", "document"))
    text = next(task for task in recipes if context is None or task.context <= context)
    return [text, *select_tasks(["mmlu"])]
