"""The embedded world: its entropy is what its text says, and the embedded model is a useful one."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import re

import pytest

from quantsuite.adapters.loading import load_model
from quantsuite.cells import Cell
from quantsuite.metrics import Choices, Perplexities
from quantsuite.scheme import Scheme, Variant
from quantsuite.session import Session
from quantsuite.tasks import Sources, select_tasks
from quantsuite.tiny import embedded_folder, world
from quantsuite.tiny.outliers import inject_outliers
from quantsuite.tiny.world import SUBJECTS, World


def zipf_bits(rank: int, count: int, exponent: float) -> float:
    total = sum(r**-exponent for r in range(1, count + 1))
    return -math.log2(rank**-exponent / total)


def sentence_bits(sentence: str, subject: world.Subject, names: tuple[str, ...]) -> float:
    """The information of a sentence, recovered from its words alone; without the choice of its kind."""
    for relation, statement in ((r, s) for r in subject.relations for s in r.statements):
        pattern = re.escape(statement).replace(r"\{e\}", r"(?P<e>\w+)").replace(r"\{v\}", r"(?P<v>\w+)")
        if (match := re.fullmatch(pattern, sentence)) and match["v"] in relation.values:
            rank = names.index(match["e"]) + 1
            return zipf_bits(rank, len(names), world.ZIPF_EXPONENT) + math.log2(len(subject.relations)) + 1
    time, adjective, noun, verb = re.fullmatch(r"(.+) the (\w+) (\w+) (\w+)\.", sentence).groups()
    slots = (world._SCENE_TIMES, world._SCENE_ADJECTIVES, world._SCENE_NOUNS, world._SCENE_VERBS)
    words = zip((time, adjective, noun, verb), slots, strict=True)
    return sum(zipf_bits(slot.index(word) + 1, len(slot), 1.0) for word, slot in words)


def test_the_information_of_a_text_can_be_recovered_from_the_text() -> None:
    """Every choice is visible, so that the sum of their information is the text's code length."""
    subject_of = {name: subject for subject in SUBJECTS for name in World()._names[subject.name]}
    for document in World().documents(300, seed=11):
        sentences = [s + "." for s in document.text.rstrip(".").split(". ")]
        subject = next(subject_of[word] for word in re.findall(r"\w+", sentences[0]) if word in subject_of)
        names = World()._names[subject.name]
        bits = math.log2(len(SUBJECTS)) + sentence_bits(sentences[0], subject, names)
        for sentence in sentences[1:]:
            fact = any(word in names for word in re.findall(r"\w+", sentence))
            kind = world.FACT_PROBABILITY if fact else 1 - world.FACT_PROBABILITY
            bits += sentence_bits(sentence, subject, names) - math.log2(kind) - math.log2(1 - world.STOP_PROBABILITY)
        assert document.bits == pytest.approx(bits)


def test_names_and_statements_are_unambiguous() -> None:
    names = list(itertools.chain.from_iterable(World()._names.values()))
    assert len(set(names)) == len(names) == world.ENTITIES_PER_SUBJECT * len(SUBJECTS)
    statements = [s for subject in SUBJECTS for r in subject.relations for s in r.statements]
    assert len(set(statements)) == len(statements)
    assert all(len(set(r.values)) == world.VALUES_PER_RELATION for subject in SUBJECTS for r in subject.relations)


def test_a_seed_decides_the_world_on_every_machine() -> None:
    text = "\n".join(document.text for document in World(0).documents(100, seed=1))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "7474307b67d43315"
    assert World(1)._names != World(0)._names


def test_the_test_text_is_not_what_training_saw() -> None:
    """Training seeds its draws with text, the test sets with their own numbers: no sequence in common."""
    test = {d.text for d in World().documents(240, seed=1_000_001) if len(d.text) > 300}
    rng = random.Random("0/0")
    assert not test & {World().prose(rng).text for _ in range(2000)}


def test_questions_of_the_examination_are_distinct_and_have_their_fact_as_answer() -> None:
    dev, test = World().examination(125, seed=3)
    assert len({q.question for q in dev + test}) == len(dev) + len(test) == 40 + 1000
    facts = {d for document in World().documents(3000, seed=4) for d in document.text.split(". ")}
    question = next(q for q in test if q.subject == "wild_zoology" and q.question.startswith("What does the"))
    entity = question.question.split()[3]
    stated = {s.split()[-1] for s in facts if s.startswith(f"The {entity} eats mostly")}
    assert stated <= {question.choices[question.answer]}


def test_more_questions_than_facts_is_an_error() -> None:
    with pytest.raises(ValueError, match="has 187 facts"):
        World().examination(188, seed=0)


@pytest.fixture(scope="module")
def tiny() -> Session:
    return Session("tiny", device="cpu", sources=Sources())


def measure(session: Session, task: str, scheme: str) -> Perplexities | Choices:
    execution = None if scheme == "bf16" else "simulated"
    (chosen,) = select_tasks([task])
    return session.measure(Cell(task=chosen, variant=Variant(Scheme.parse(scheme), execution)), "test").items


def excess(items: Perplexities) -> float:
    return sum(items.nats) / sum(items.floor_nats) - 1


def test_the_embedded_model_is_within_a_tenth_of_the_entropy_floor(tiny: Session) -> None:
    assert 0 < excess(measure(tiny, "world/document", "bf16")) < 0.10


def test_the_embedded_model_knows_some_facts_and_not_others(tiny: Session) -> None:
    items = measure(tiny, "world-mmlu/direct", "bf16")
    assert 0.70 <= sum(items.correct) / len(items) <= 0.95


def test_harsh_rounding_hurts_the_embedded_model(tiny: Session) -> None:
    """3 bits per tensor at least double the distance to the floor and cost at least ten points."""
    assert excess(measure(tiny, "world/document", "int3-tensor")) > 2 * excess(measure(tiny, "world/document", "bf16"))
    before, after = (sum(measure(tiny, "world-mmlu/direct", s).correct) for s in ("bf16", "int3-tensor"))
    assert before - after >= 100


def test_outliers_double_the_distance_to_the_floor_of_int8_per_tensor() -> None:
    outliers = Session("tiny-outliers", device="cpu", sources=Sources())
    reference = measure(outliers, "world/document", "bf16")
    assert excess(measure(outliers, "world/document", "int8-tensor")) > 2 * excess(reference)


def test_outliers_need_a_power_of_two() -> None:
    with pytest.raises(ValueError, match=r"100\.0 is not a power of two"):
        inject_outliers(load_model("tiny").model, factor=100.0)


def test_the_checkpoint_is_small_and_says_how_it_was_trained() -> None:
    folder = embedded_folder()
    assert (folder / "model.safetensors").stat().st_size <= 16_000_000
    assert json.loads((folder / "training.json").read_text())["seed"] == 0
