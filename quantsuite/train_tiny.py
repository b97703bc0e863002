"""Train the embedded model: ``python -m quantsuite.train_tiny --output DIR``.

Text and questions are generated as training goes, from the seed and the step alone, so that a
run that was interrupted continues with the data that it would have seen: repeat the command.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from quantsuite.evaluate.data import question_row
from quantsuite.tasks import shipped_tasks
from quantsuite.tasks.questions import solved
from quantsuite.tasks.rows import Row
from quantsuite.tiny.world import World

END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 2048
CONTEXT = 512
ANSWER_WEIGHT = 8.0
TASK = "world-mmlu/direct"
"""Whose form quizzes have, so that the model is asked as it was taught."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What decides the result, beside the machine's arithmetic.

    Args:
        steps: optimizer steps.
        tokens: tokens a step; sequences of ``short`` tokens, then of ``CONTEXT`` for the last tenth.
        short: length of the sequences of the first nine tenths.
        seed: of the weights, the world and the data.
        muon_rate: peak learning rate of the matrices (Muon).
        adam_rate: peak learning rate of the embedding and the norms (AdamW).
    """

    steps: int = 3000
    tokens: int = 4096
    short: int = 256
    seed: int = 0
    muon_rate: float = 0.005
    adam_rate: float = 2e-3

    def rate(self, step: int) -> float:
        """Warm-up over 60 steps, constant, then linear to zero over the last two fifths."""
        decay = 0.4 * self.steps
        return min(1.0, (step + 1) / 60, (self.steps - step) / decay)

    def context(self, step: int) -> int:
        return self.short if step < 0.9 * self.steps else CONTEXT


def quiz_text(world: World, rng: random.Random) -> str:
    """Six solved questions on one subject in MMLU's five-shot form."""
    rows = [Row(place="a quiz", values=question_row(question)) for question in world.quiz(rng)]
    return solved(shipped_tasks()[TASK].recipe, rows).rstrip("\n")


def train_tokenizer(world: World, seed: int, documents: int = 12_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE of ``VOCABULARY`` entries on a sample of the world's text."""
    rng = random.Random(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample = (quiz_text(world, rng) if i % 3 == 0 else world.prose(rng).text for i in range(documents))
    tokenizer.train_from_iterator(sample, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, model_max_length=CONTEXT
    )


def config(vocabulary: int, end_of_text: int) -> Qwen3Config:
    """Qwen3 with 7.7 M parameters; the down projection reduces K = 1,024, the others K = 512."""
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_of_text,
        pad_token_id=end_of_text,
    )


class Batches:
    """Sequences of one step: half of them prose, half quizzes, each starting with a document.

    Half of the sequences begin with the end-of-text token, as evaluation recipes with a start
    token do, and half without, as those without one.
    """

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerFast, training: Training) -> None:
        self._world, self._tokenizer, self._training = world, tokenizer, training
        self._letters = torch.tensor(
            [tokenizer.encode(f" {letter}")[0] for letter in shipped_tasks()[TASK].recipe.letters]
        )
        self._colon = tokenizer.encode("Answer:")[-1]

    def _sequence(self, make: Callable[[], str], length: int, start: bool) -> list[int]:
        end: int = self._tokenizer.eos_token_id
        ids: list[int] = []
        while len(ids) <= length + 1:
            ids += [end, *self._tokenizer.encode(make())]
        return ids[: length + 1] if start else ids[1 : length + 2]

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``(inputs, targets, weights)``, each ``[sequences, context]``.

        The letter after ``Answer:`` weighs ``ANSWER_WEIGHT``: one token in thirty, and the only one
        that teaches how to answer.  A proper score at every position keeps its optimum.
        """
        rng = random.Random(f"{self._training.seed}/{step}")
        context = self._training.context(step)

        def prose() -> str:
            return self._world.prose(rng).text

        def quiz() -> str:
            return quiz_text(self._world, rng)

        count = self._training.tokens // context
        rows = torch.tensor([self._sequence(prose if i % 2 else quiz, context, start=i % 4 < 2) for i in range(count)])
        inputs, targets = rows[:, :-1], rows[:, 1:]
        answers = (inputs == self._colon) & torch.isin(targets, self._letters)
        return inputs, targets, 1.0 + (ANSWER_WEIGHT - 1.0) * answers


def optimizers(model: torch.nn.Module, training: Training) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=training.muon_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=training.adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(output: Path, training: Training, *, device: str, save_every: int = 100) -> None:
    """Train and write ``config.json``, the tokenizer, ``model.safetensors`` (bf16) and ``training.json``.

    Args:
        output: the folder; ``checkpoint.pt`` in it holds the state of an unfinished run.
        training: the settings; they must equal those of the run that is continued.
        device: where to train, as torch names it.
        save_every: steps between checkpoints.

    Raises:
        ValueError: if ``checkpoint.pt`` belongs to other settings.
    """
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / "checkpoint.pt"
    world = World(training.seed)
    tokenizer = train_tokenizer(world, training.seed)
    torch.manual_seed(training.seed)
    model = Qwen3ForCausalLM(config(VOCABULARY, tokenizer.eos_token_id)).to(device)
    steppers = optimizers(model, training)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        if state["training"] != asdict(training):
            raise ValueError(
                f"{checkpoint} belongs to {state['training']}, not to {asdict(training)}; "
                "repeat its settings or delete it"
            )
        model.load_state_dict(state["model"])
        for stepper, saved in zip(steppers, state["optimizers"], strict=True):
            stepper.load_state_dict(saved)
        first = state["step"]

    peaks = [group["lr"] for stepper in optimizers(model, training) for group in stepper.param_groups]
    batches = Batches(world, tokenizer, training)
    progress = tqdm(range(first, training.steps), initial=first, total=training.steps, unit="step")
    for step in progress:
        inputs, targets, weights = (part.to(device) for part in batches(step))
        groups = [group for stepper in steppers for group in stepper.param_groups]
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * training.rate(step)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits = model(input_ids=inputs, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        (losses @ weights.flatten() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        answered = weights.flatten() > 1
        right = (logits.flatten(0, 1).argmax(-1) == targets.flatten())[answered]
        progress.set_postfix(nats_per_token=f"{losses.mean():.3f}", answers=f"{right.float().mean():.0%}")
        if (step + 1) % save_every == 0:
            _save_checkpoint(checkpoint, step + 1, model, steppers, training)

    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    (output / "training.json").write_text(json.dumps(asdict(training), indent=2) + "\n")
    checkpoint.unlink(missing_ok=True)


def _save_checkpoint(
    path: Path, step: int, model: torch.nn.Module, steppers: list[torch.optim.Optimizer], training: Training
) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizers": [stepper.state_dict() for stepper in steppers],
        "training": asdict(training),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train quantsuite's embedded model.")
    parser.add_argument("--output", type=Path, required=True, help="folder of the model; repeat the command to resume")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: all)")
    for name, default in asdict(Training()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    arguments = vars(parser.parse_args())
    output, device, threads = (arguments.pop(name) for name in ("output", "device", "threads"))
    if threads:
        torch.set_num_threads(threads)
    train(output, Training(**arguments), device=device)


if __name__ == "__main__":
    main()
