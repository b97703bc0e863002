"""An invented world of facts in plain English whose entropy is known.

A world is eight subjects; a subject is a set of named entities, and each entity has one
value for each of the subject's relations.  Entities are drawn with Zipf frequencies, so that
a model trained on the text knows some facts firmly and some barely.

Every document is produced by a sequence of random choices, and its text determines those
choices, so that ``-log2 P(text)`` is the sum of the choices' ``-log2`` probabilities.  No
model can have a smaller expected code length: that sum is the *entropy floor* of the text.

All draws go through :meth:`random.Random.random`, the one method whose sequence Python
guarantees for a seed, so that a world is the same on every machine.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

ENTITIES_PER_SUBJECT = 64
VALUES_PER_RELATION = 12
ZIPF_EXPONENT = 1.4
FACT_PROBABILITY = 0.75
STOP_PROBABILITY = 1 / 12
MAX_SENTENCES = 40
CHOICES = 4

_ONSETS = tuple("b br d dr f g gl h k kr l m n p qu r s st t th v z".split())
_VOWELS = tuple("a e i o u ae ia or el an".split())
_ENDINGS = tuple("ba dor fen gar lim mond nar pek ra sten tis vel wyn zo".split())


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A question about an entity, the sentences that state its answer, and the possible answers.

    ``{e}`` stands for the entity's name and ``{v}`` for the value.
    """

    question: str
    statements: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A field of knowledge: its name, as MMLU spells subjects, and its three relations."""

    name: str
    relations: tuple[Relation, ...]


def _relation(question: str, first: str, second: str, values: str) -> Relation:
    return Relation(question=question, statements=(first, second), values=tuple(values.split()))


SUBJECTS = (
    Subject(
        name="island_geography",
        relations=(
            _relation(
                "Which wind crosses the island of {e}?",
                "The island of {e} lies under the {v} wind.",
                "Sailors near {e} wait for the {v} wind.",
                "north south east west summer winter spring autumn morning evening desert polar",
            ),
            _relation(
                "What do the people of {e} export?",
                "The people of {e} export {v}.",
                "Ships leave {e} loaded with {v}.",
                "salt wool copper timber pepper silk honey grain marble paper glass pearls",
            ),
            _relation(
                "What stands in the harbor of {e}?",
                "In the harbor of {e} stands a {v}.",
                "Visitors to {e} first see its {v}.",
                "lighthouse tower bridge temple statue market windmill fortress garden arch crane bell",
            ),
        ),
    ),
    Subject(
        name="herbal_botany",
        relations=(
            _relation(
                "What colour is the flower of the {e} plant?",
                "The flower of the {e} plant is {v}.",
                "Each {e} opens with petals of {v}.",
                "red blue yellow white purple orange pink green violet brown black silver",
            ),
            _relation(
                "Where does the {e} plant grow?",
                "The {e} plant grows by the {v}.",
                "Look for wild {e} near the {v}.",
                "river marsh cliff meadow forest lake beach canyon hill cave swamp stream",
            ),
            _relation(
                "What does tea of the {e} plant cure?",
                "Tea of the {e} plant cures {v}.",
                "Healers give dried {e} against {v}.",
                "fever cough pain burns colds sleep hunger fear itch thirst chills grief",
            ),
        ),
    ),
    Subject(
        name="wild_zoology",
        relations=(
            _relation(
                "What does the {e} eat?",
                "The {e} eats mostly {v}.",
                "At night the {e} hunts for {v}.",
                "fish seeds ants berries worms roots eggs frogs leaves snails moss beetles",
            ),
            _relation(
                "What covers the body of the {e}?",
                "The body of the {e} is covered with {v}.",
                "A young {e} soon grows its {v}.",
                "fur scales feathers spines shell skin plates hair bristles wax slime armor",
            ),
            _relation(
                "Where does the {e} raise its young?",
                "The {e} raises its young in a {v}.",
                "Every {e} returns each year to its {v}.",
                "nest burrow den hollow pond web hive tunnel thicket crack mound reef",
            ),
        ),
    ),
    Subject(
        name="royal_history",
        relations=(
            _relation(
                "Which office did {e} hold?",
                "The chronicles name {e} as {v}.",
                "For ten years {e} served as {v}.",
                "king queen prince duke general admiral judge bishop regent consul governor baron",
            ),
            _relation(
                "What did {e} build?",
                "The people thank {e} for the {v}.",
                "It was {e} who built the great {v}.",
                "wall canal road library palace school hospital port mill dam theater bathhouse",
            ),
            _relation(
                "How did the rule of {e} end?",
                "The rule of {e} ended in {v}.",
                "Songs tell how {e} was lost to {v}.",
                "war exile plague revolt flood famine fire treason illness storm debt duel",
            ),
        ),
    ),
    Subject(
        name="mineral_chemistry",
        relations=(
            _relation(
                "With what does {e} ore react?",
                "The ore of {e} reacts with {v}.",
                "Miners keep {e} away from {v}.",
                "water acid steam air oil milk vinegar ammonia sulfur chlorine iodine alcohol",
            ),
            _relation(
                "What is made from {e} ore?",
                "From the ore of {e} one makes {v}.",
                "Smiths melt {e} down to make {v}.",
                "coins swords mirrors pipes nails wire bells lamps chains knives rings needles",
            ),
            _relation(
                "How does {e} ore smell when heated?",
                "When heated the ore of {e} smells of {v}.",
                "Workshops that use {e} smell of {v}.",
                "garlic roses smoke lemon onion almonds rain tar mint leather bread cheese",
            ),
        ),
    ),
    Subject(
        name="chamber_music",
        relations=(
            _relation(
                "Which instrument did {e} play?",
                "The composer {e} played the {v}.",
                "In the court {e} taught the {v}.",
                "flute violin harp drum horn lute organ cello trumpet oboe piano viola",
            ),
            _relation(
                "What did {e} compose?",
                "The fame of {e} rests on a {v}.",
                "Critics admired {e} for one {v}.",
                "march waltz opera hymn ballad mass sonata fugue lullaby overture anthem dance",
            ),
            _relation(
                "In which city was {e} born?",
                "The composer {e} was born in {v}.",
                "Letters place the home of {e} in {v}.",
                "Arden Belmor Corvath Dunmere Elsin Farholt Greyport Hallow Istrel Jarrow Kelby Lorne",
            ),
        ),
    ),
    Subject(
        name="night_astronomy",
        relations=(
            _relation(
                "To which constellation does the star {e} belong?",
                "The star {e} belongs to the {v}.",
                "Find {e} low in the figure of the {v}.",
                "archer bear crown dragon eagle fox goat hunter lion owl serpent wolf",
            ),
            _relation(
                "What circles the star {e}?",
                "The star {e} is circled by a {v}.",
                "Around {e} astronomers found a {v}.",
                "planet comet moon ring cloud dwarf giant twin belt disk pulsar nebula",
            ),
            _relation(
                "In which month does the star {e} rise?",
                "The star {e} rises in {v}.",
                "Farmers watch {e} return in {v}.",
                "January February March April May June July August September October November December",
            ),
        ),
    ),
    Subject(
        name="village_cooking",
        relations=(
            _relation(
                "What is the main part of the dish {e}?",
                "The dish {e} is made of {v}.",
                "To cook {e} begin with fresh {v}.",
                "beans rice lamb cod turnips lentils cabbage potatoes duck mushrooms barley squid",
            ),
            _relation(
                "Which spice belongs in the dish {e}?",
                "The dish {e} is spiced with {v}.",
                "No cook serves {e} without {v}.",
                "ginger cumin saffron thyme basil cloves sage fennel nutmeg parsley mustard dill",
            ),
            _relation(
                "How is the dish {e} prepared?",
                "The dish {e} is always {v}.",
                "Good cooks say that {e} must be {v}.",
                "boiled baked fried roasted grilled steamed smoked pickled stewed dried salted frozen",
            ),
        ),
    ),
)

_SCENE_TIMES = ("At dawn", "At noon", "By dusk", "In winter", "After rain", "Long ago", "That day", "Once more")
_SCENE_ADJECTIVES = tuple("old quiet narrow bright empty distant heavy gentle strange cold golden broken".split())
_SCENE_NOUNS = tuple("street valley tower harbor garden mountain market window field village door ship".split())
_SCENE_VERBS = tuple("slept waited trembled glowed vanished waned echoed burned froze shone faded stood".split())


def _zipf(count: int, exponent: float) -> list[float]:
    weights = [rank**-exponent for rank in range(1, count + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


class _Chooser:
    """Draws indices from fixed distributions and adds up the information of what it drew."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.bits = 0.0

    def weighted(self, probabilities: Sequence[float], cumulative: Sequence[float]) -> int:
        index = min(bisect.bisect(cumulative, self._rng.random()), len(cumulative) - 1)
        self.bits -= math.log2(probabilities[index])
        return index

    def uniform(self, count: int) -> int:
        self.bits += math.log2(count)
        return int(self._rng.random() * count)

    def happens(self, probability: float) -> bool:
        outcome = self._rng.random() < probability
        self.bits -= math.log2(probability if outcome else 1 - probability)
        return outcome

    def sample(self, count: int, k: int) -> list[int]:
        """``k`` distinct indices below ``count``, in the order drawn."""
        remaining = list(range(count))
        return [remaining.pop(self.uniform(len(remaining))) for _ in range(k)]


@dataclass(frozen=True)
class Document:
    """A text and the information of the choices that made it, in bits."""

    text: str
    bits: float


@dataclass(frozen=True, kw_only=True)
class Question:
    """A multiple-choice question in MMLU's columns; ``answer`` indexes ``choices``."""

    subject: str
    question: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class World:
    """The facts that a seed makes, and the documents and questions about them.

    Args:
        seed: decides the names and which value each entity has.
    """

    seed: int = 0
    _names: dict[str, tuple[str, ...]] = field(init=False, repr=False)
    _facts: dict[tuple[str, int, int], int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        pool = ["".join(parts).capitalize() for parts in itertools.product(_ONSETS, _VOWELS, _ENDINGS)]
        order = _Chooser(rng).sample(len(pool), ENTITIES_PER_SUBJECT * len(SUBJECTS))
        names = {
            subject.name: tuple(pool[i] for i in order[n * ENTITIES_PER_SUBJECT : (n + 1) * ENTITIES_PER_SUBJECT])
            for n, subject in enumerate(SUBJECTS)
        }
        facts = {
            (subject.name, entity, relation): int(rng.random() * VALUES_PER_RELATION)
            for subject in SUBJECTS
            for entity in range(ENTITIES_PER_SUBJECT)
            for relation in range(len(subject.relations))
        }
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_facts", facts)

    @cached_property
    def _entities(self) -> tuple[list[float], list[float]]:
        probabilities = _zipf(ENTITIES_PER_SUBJECT, ZIPF_EXPONENT)
        return probabilities, list(itertools.accumulate(probabilities))

    @cached_property
    def _scenes(self) -> list[tuple[tuple[str, ...], list[float], list[float]]]:
        slots = []
        for words in (_SCENE_TIMES, _SCENE_ADJECTIVES, _SCENE_NOUNS, _SCENE_VERBS):
            probabilities = _zipf(len(words), 1.0)
            slots.append((words, probabilities, list(itertools.accumulate(probabilities))))
        return slots

    def _fact_sentence(self, subject: Subject, choose: _Chooser) -> str:
        entity = choose.weighted(*self._entities)
        relation = choose.uniform(len(subject.relations))
        statements = subject.relations[relation].statements
        statement = statements[choose.uniform(len(statements))]
        value = subject.relations[relation].values[self._facts[subject.name, entity, relation]]
        return statement.format(e=self._names[subject.name][entity], v=value)

    def _scene_sentence(self, choose: _Chooser) -> str:
        time, adjective, noun, verb = (words[choose.weighted(p, c)] for words, p, c in self._scenes)
        return f"{time} the {adjective} {noun} {verb}."

    def prose(self, rng: random.Random) -> Document:
        """A paragraph on one subject: stated facts and scenes, the first sentence a fact.

        The information counts the decisions to go on after each sentence but the last, and not
        the end of the text, which an evaluator does not score either.
        """
        choose = _Chooser(rng)
        subject = SUBJECTS[choose.uniform(len(SUBJECTS))]
        sentences = [self._fact_sentence(subject, choose)]
        while len(sentences) < MAX_SENTENCES:
            before = choose.bits
            if choose.happens(STOP_PROBABILITY):
                choose.bits = before
                break
            fact = choose.happens(FACT_PROBABILITY)
            sentences.append(self._fact_sentence(subject, choose) if fact else self._scene_sentence(choose))
        return Document(text=" ".join(sentences), bits=choose.bits)

    def question(self, subject: Subject, entity: int, relation: int, rng: random.Random) -> Question:
        """The question about one fact, with three wrong values of the same relation."""
        values = subject.relations[relation].values
        correct = self._facts[subject.name, entity, relation]
        choose = _Chooser(rng)
        wrong = [i for i in range(len(values)) if i != correct]
        choices = [values[wrong[i]] for i in choose.sample(len(wrong), CHOICES - 1)]
        answer = choose.uniform(CHOICES)
        choices.insert(answer, values[correct])
        return Question(
            subject=subject.name,
            question=subject.relations[relation].question.format(e=self._names[subject.name][entity]),
            choices=tuple(choices),
            answer=answer,
        )

    def quiz(self, rng: random.Random, count: int = 6) -> list[Question]:
        """``count`` questions of one subject, entities drawn with the frequencies of the text."""
        choose = _Chooser(rng)
        subject = SUBJECTS[choose.uniform(len(SUBJECTS))]
        return [
            self.question(subject, choose.weighted(*self._entities), choose.uniform(len(subject.relations)), rng)
            for _ in range(count)
        ]

    def documents(self, count: int, seed: int) -> Iterator[Document]:
        """``count`` paragraphs; the text set that perplexity is measured on."""
        rng = random.Random(seed)
        return (self.prose(rng) for _ in range(count))

    def examination(self, per_subject: int, seed: int, shots: int = 5) -> tuple[list[Question], list[Question]]:
        """The few-shot examples and the test: distinct facts, every fact equally likely.

        Returns:
            ``(dev, test)``: ``shots`` questions a subject about its most frequent entities, and
            ``per_subject`` questions a subject about the others' facts.

        Raises:
            ValueError: if a subject has fewer than ``per_subject`` facts left.
        """
        rng = random.Random(seed)
        dev: list[Question] = []
        test: list[Question] = []
        for subject in SUBJECTS:
            relations = len(subject.relations)
            facts = [(entity, relation) for entity in range(ENTITIES_PER_SUBJECT) for relation in range(relations)]
            examples, rest = facts[:shots], facts[shots:]
            if per_subject > len(rest):
                raise ValueError(f"{per_subject} questions a subject asked for; {subject.name} has {len(rest)} facts")
            dev += [self.question(subject, entity, relation, rng) for entity, relation in examples]
            picked = _Chooser(rng).sample(len(rest), per_subject)
            test += [self.question(subject, *rest[i], rng) for i in picked]
        return dev, test
