"""What a record is of: task, subject, identity, dataset and environment, and the key that tells cells apart."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import msgspec

from quantsuite.scheme import DTYPES, REFERENCE_NAME, Execution, Scheme, Variant

_FLOATS = re.compile(r"b?float\d+(_\w+)?")
"""Names of floating dtypes as torch writes them."""


class TaskLabel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A recipe's own name, such as ``mmlu/direct``, with its version and the metric of its items.

    ``sha256`` is over the whole task where it is of a user's file, which may change without its version.
    """

    name: str
    version: int
    metric: str
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.version < 1:
            raise ValueError(f"the version of {self.name} is {self.version}, less than 1")


class Subject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was measured: a model in an engine, under a scheme.

    Args:
        model: its name.
        scheme: the scheme's name; ``bf16`` is the reference.
        execution: ``simulated``, ``real``, or ``None`` for the reference.
        engine: what ran it.
        plan: hash of the plan, where it is not the scheme's own.
        head: whether the output head was quantized too.
        kernel: which multiplied, where it was chosen.
        kernel_sha256: of the file that such a kernel is of; empty where there is none to read.
        model_sha256: of the weights and the configuration; empty if they were not loaded.

    Raises:
        ValueError: if the scheme is none, or has another name.
    """

    model: str
    scheme: str
    execution: Execution | None = None
    engine: str
    plan: str = ""
    head: bool = False
    kernel: str = ""
    kernel_sha256: str = ""
    model_sha256: str

    def __post_init__(self) -> None:
        if (name := str(Scheme.parse(self.scheme))) != self.scheme:
            raise ValueError(f"the scheme {self.scheme} is written {name}")

    @property
    def variant(self) -> Variant:
        """The scheme in its execution."""
        return Variant(Scheme.parse(self.scheme), self.execution)

    @property
    def is_reference(self) -> bool:
        return self.scheme == REFERENCE_NAME

    @property
    def label(self) -> str:
        """The scheme and its execution, as test ids and tables show them."""
        return self.variant.label

    @property
    def chosen(self) -> str:
        """The kernel and the plan, where they were chosen, as words after a label."""
        kernel, plan = f" by {self.kernel}" if self.kernel else "", f", plan {self.plan[:12]}" if self.plan else ""
        return kernel + plan

    @property
    def title(self) -> str:
        """The label with what else tells records of it apart."""
        return self.label + self.chosen

    @property
    def alias(self) -> str | None:
        """Another name that users know it by."""
        return self.variant.alias

    @property
    def format(self) -> str | None:
        """That of the weight; ``None`` for the reference."""
        weight = self.variant.scheme.weight
        return None if weight is None else weight.format.name

    @property
    def granularity(self) -> str | None:
        """That of the weight; ``None`` for the reference."""
        weight = self.variant.scheme.weight
        return None if weight is None else str(weight.granularity)


class Identity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stood in the model as it was measured, matrix by matrix, whatever was planned.

    Args:
        schemes: of the matrices that were quantized, and how many had each.
        storage: dtypes that matrices were held in, quantized or not, and how many were in each: that of the format's
            codes, or that of the model.
        kernels: which multiplied many tokens, and how many matrices each; none in simulated execution.
        decode: the same of a single token, where it differs.
        share: of the model's parameters, those of quantized matrices; ``None`` if the engine does not say.
        bits: of a weight of quantized matrices, scales and padding with them; ``None`` if there are none.

    Raises:
        ValueError: if a count is less than 1, the share not from 0 to 1, or the bits no number from 0.
    """

    schemes: dict[str, int] = {}
    storage: dict[str, int] = {}
    kernels: dict[str, int] = {}
    decode: dict[str, int] = {}
    share: float | None = None
    bits: float | None = None

    def __post_init__(self) -> None:
        for counts in (self.schemes, self.storage, self.kernels, self.decode):
            if wrong := [name for name, count in counts.items() if count < 1]:
                raise ValueError(f"{counts[wrong[0]]} matrices of {wrong[0]}, less than 1")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"the share quantized is {self.share}, not from 0 to 1")
        if self.bits is not None and not 0 <= self.bits < math.inf:
            raise ValueError(f"bits a weight are {self.bits}, no number from 0")

    @property
    def matrices(self) -> int:
        """How many were quantized; of fused experts each one."""
        return sum(self.schemes.values())


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """The items that were scored: ``sha256`` is over the items themselves, in order."""

    name: str
    sha256: str
    items: int
    limit: int
    seed: int

    def __post_init__(self) -> None:
        if self.items < 1 or self.limit < 0 or (self.limit and self.items > self.limit):
            raise ValueError(f"a dataset has {self.items:,} items of a limit of {self.limit:,}")

    def __str__(self) -> str:
        return f"{self.items:,} items of {self.name} (sha256 {self.sha256[:12]}, limit {self.limit}, seed {self.seed})"


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with what: ``device`` is ``cpu`` or the accelerator's name.

    ``dtype`` is a model's, as ``--dtype`` takes it, or a kernel's inputs', as torch names it.
    """

    device: str
    dtype: str
    versions: dict[str, str]
    hardware: str
    threads: int

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES and not _FLOATS.fullmatch(self.dtype):
            raise ValueError(f"the dtype is {self.dtype!r}; use {', '.join(DTYPES)}, or a name such as float32")
        if not 1 <= self.threads < 2**31:
            raise ValueError("threads are less than 1, or more than any machine runs")


class Key(NamedTuple):
    """What a measured cell is told apart by; of records with the same, the last counts.

    Which items were scored, and how many, is a condition of a cell and not part of its key.
    """

    model: str
    task: str
    scheme: str
    execution: str
    plan: str
    engine: str
    device: str
    dtype: str
    head: bool
    kernel: str

    @property
    def reference(self) -> Key:
        """That of the reference which the cell is compared with."""
        return self._replace(scheme=REFERENCE_NAME, execution="", plan="", kernel="")

    @property
    def setting(self) -> tuple[str, ...]:
        """The model, and in what it was measured: cells of one setting are compared with each other."""
        return self.model, self.engine, self.device, self.dtype, "quantized head" if self.head else ""
