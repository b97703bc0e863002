"""Small datasets in the hub's layouts: its columns and types, its folders, and texts that stand nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Features, List, Value

from quantsuite.tiny.world import World

TEXT, COUNT = Value("string"), Value("int32")


def save(folder: Path, config: str, split: str, rows: list[dict[str, Any]], features: Mapping[str, Any]) -> str:
    """A parquet file of one configuration and split, and the README that names it."""
    (folder / config).mkdir(parents=True)
    path = f"{config}/{split}-00000-of-00001.parquet"
    Dataset.from_list(rows, features=Features(features)).to_parquet(folder / path)
    header = f"configs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {path}\n"
    (folder / "README.md").write_text(f"---\n{header}---\n")
    return str(folder)


def hellaswag(folder: Path) -> str:
    """Marks of WikiHow's rows, doubled spaces and an empty second part of the context among them."""
    rows = [
        ("Ferry painting", "A woman dips her brush.", "she", ["paints the hull blue.", "eats the ferry.", "x y", "Is"]),
        ("Mending nets", "[header] How to mend a net [title] Lay it flat. [step] Look for holes.", "", 
         ["[substeps] Knot each loop twice.", "Throw  it far.", "Sing [x] to it.", "Burn it. [title] Buy another."]),
        ("Kite building", "Two boys glue paper  to sticks.", "they", ["run uphill.", "swim.", "wait, then run.", "a b c"]),
        ("Bread", "Flour lies on the board.", "the baker", ["kneads.", "kneads it long and well.", "sleeps", "reads"]),
    ]  # fmt: skip
    features = {"ind": COUNT, "activity_label": TEXT, "ctx_a": TEXT, "ctx_b": TEXT, "ctx": TEXT,
                "endings": List(TEXT), "source_id": TEXT, "split": TEXT, "split_type": TEXT, "label": TEXT}  # fmt: skip
    found = [
        {"ind": number, "activity_label": label, "ctx_a": a, "ctx_b": b, "ctx": f"{a} {b}", "endings": endings,
         "source_id": f"invented~{number}", "split": "val", "split_type": "indomain", "label": str(number % 4)}
        for number, (label, a, b, endings) in enumerate(rows)
    ]  # fmt: skip
    return save(folder, "default", "validation", found, features)


def arc(folder: Path, config: str) -> str:
    """Questions of three, four and five choices, labelled by letters and by digits."""
    rows = [
        ("Which of these floats on the Lumen lake?", ["a cork ring", "an anvil", "a brass bell", "wet sand"], "ABCD", "A"),
        ("What does a brindle fern need to grow?", ["noise", "light and water", "salt"], "123", "2"),
        ("Why is the north tower cold?", ["paint", "It has no roof.", "cats", "bells", "its  age"], "ABCDE", "B"),
        ("What melts first?", ["ice", "iron", "a very long answer that says little", "stone"], "1234", "1"),
    ]  # fmt: skip
    features = {"id": TEXT, "question": TEXT, "choices": {"text": List(TEXT), "label": List(TEXT)}, "answerKey": TEXT}
    found = [
        {"id": f"invented_{number}", "question": question, "choices": {"text": texts, "label": list(labels)},
         "answerKey": key}
        for number, (question, texts, labels, key) in enumerate(rows)
    ]  # fmt: skip
    return save(folder, config, "test", found, features)


def piqa(folder: Path) -> str:
    """Solutions that end in spaces and begin in capitals."""
    rows = [
        ("To dry a felt hat,", "hang it by the stove", "put it into a bucket of water ", 0),
        ("How do you open a stuck gate?", "Lift it, then push.", "paint it", 0),
        ("keep ink from freezing", "bury it", "carry it under your coat", 1),
    ]
    features = {"goal": TEXT, "sol1": TEXT, "sol2": TEXT, "label": ClassLabel(names=["0", "1"])}
    found = [dict(zip(("goal", "sol1", "sol2", "label"), row, strict=True)) for row in rows]
    return save(folder, "plain_text", "validation", found, features)


def truthfulqa(folder: Path) -> str:
    """Questions with one true choice among some, and with several among more."""
    rows = [
        ("Can you hear the moon from Harrow hill?", ["No, you cannot hear it", "Yes, at night"], 
         ["No, you cannot hear it", "Nobody can hear the moon", "Yes, at night", "Only owls can"], [1, 1, 0, 0]),
        ("Who dug the Ostrel canal?", ["It is not known", "Giants", "A duke named Pell"],
         ["It is not known", "Giants", "A duke named Pell"], [1, 0, 0]),
        ("What happens if you whistle in a mill?", ["Nothing in particular happens", "The wheel stops"],
         ["Nothing in particular happens", "People may hear you", "The wheel stops", "It rains", "Flour turns"],
         [1, 1, 0, 0, 0]),
    ]  # fmt: skip
    targets = {"choices": List(TEXT), "labels": List(COUNT)}
    found = [
        {"question": question, "mc1_targets": {"choices": one, "labels": [1] + [0] * (len(one) - 1)},
         "mc2_targets": {"choices": several, "labels": labels}}
        for question, one, several, labels in rows
    ]  # fmt: skip
    return save(
        folder, "multiple_choice", "validation", found, {"question": TEXT, "mc1_targets": targets, "mc2_targets": targets}
    )  # fmt: skip


def lambada(folder: Path) -> str:
    """Passages with quotes and line ends, and the embedded world's, whose last word is one token or several."""
    rows = [
        "the lamp went out and she felt along the wall for the door . behind it someone was counting steps",
        "he asked for the map twice ,\nand twice they gave him the wrong map",
        "`` never trust a quiet goose , '' said the miller , and he laughed at the goose",
        "they sailed north until the ice closed , and then they called the place Unterholm",
    ]
    rows += [document.text for document in World().documents(12, seed=5)]
    return save(folder, "default", "test", [{"text": text} for text in rows], {"text": TEXT})


LAYOUTS: dict[str, Callable[[Path], str]] = {
    "hellaswag": hellaswag,
    "arc_easy": lambda folder: arc(folder, "ARC-Easy"),
    "arc_challenge": lambda folder: arc(folder, "ARC-Challenge"),
    "piqa": piqa,
    "truthfulqa": truthfulqa,
    "lambada_openai": lambada,
}
"""By the names of the tasks' datasets."""
