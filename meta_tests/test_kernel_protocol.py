"""What a kernel may declare, the registry that checks go through, and operations that join."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import make_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from meta_tests.mutants import DequantizedProduct, PlainProduct
from quantsuite.checks import CHECKS, CheckFailure, NotApplicable, property_name, register_checks
from quantsuite.conformance.cases import make_cases
from quantsuite.kernels import registry
from quantsuite.kernels.loading import load
from quantsuite.kernels.operations import OPERATIONS, Operation, register_operation
from quantsuite.kernels.protocol import probe_product
from quantsuite.kernels.registry import find, register, registered, unregister
from quantsuite.kernels.stored import missing_storage
from quantsuite.kernels.tensors import map_tensors, nbytes
from quantsuite.kernels.user import UserKernels
from quantsuite.kernels.validation import KernelError
from quantsuite.layer import QuantizedLinear, UnsupportedError
from quantsuite.scheme import Operand, Scheme


def outcomes(kernel: Any, scheme: str) -> dict[str, str]:
    """What each check of a kernel says: held, fails, or not applicable."""
    found = {}
    for case in make_cases([kernel], schemes=[scheme]):
        try:
            case.run()
            found[case.property] = "held"
        except NotApplicable:
            found[case.property] = "not applicable"
        except CheckFailure:
            found[case.property] = "fails"
    return found


@pytest.fixture
def faulty() -> Iterator[PlainProduct]:
    kernel = register(PlainProduct(after=lambda y: y + 1e-3, name="faulty"))
    yield kernel
    unregister(kernel)


def test_a_faulty_kernel_that_is_registered_is_caught(faulty: PlainProduct) -> None:
    kernels = load("quantsuite.contestants.ours").kernels
    (listed,) = [kernel for kernel in kernels if kernel.name == faulty.name]
    assert outcomes(listed, "int8-row")["product_of_zeros"] == "fails"


def test_every_kernel_of_the_package_is_under_the_checks() -> None:
    names = {kernel.name for kernel in load("quantsuite.contestants.ours").kernels}
    assert names == set(registered()) and {"ours", "ours-int32", "ours-dequantized", "torch-int-mm"} <= names


def test_two_kernels_of_one_name_are_refused(faulty: PlainProduct) -> None:
    with pytest.raises(KernelError, match="there is a kernel 'faulty' already"):
        register(PlainProduct(name="faulty"))


def test_a_kernel_that_there_is_not_is_named_with_what_there_is() -> None:
    with pytest.raises(KernelError, match="there is no kernel 'our-codes'; did you mean 'ours-codes'"):
        find("our-codes")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installed packages: one that raises when it is imported, and one with the kernel ``theirs-one``."""
    monkeypatch.syspath_prepend(tmp_path)
    kernel = "SimpleNamespace(name='theirs-one', operation='linear', schemes=['int8-row'], pack=print, linear=print)"
    sources = {"broken": "raise OSError('libcuda.so\\nis missing')", "theirs": f"KERNELS = [{kernel}]"}
    for name, source in sources.items():
        (tmp_path / f"{name}_kernels.py").write_text(f"from types import SimpleNamespace\n{source}\n")
        folder = tmp_path / f"{name}_package-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[quantsuite.kernels]\n{name} = {name}_kernels\n")
    yield
    sys.modules.pop("theirs_kernels", None)


@pytest.mark.parametrize("name", ["theirs", "theirs-one"])
def test_a_package_that_cannot_be_loaded_hides_no_kernel_of_another(name: str, packages: None) -> None:
    assert find(name).name == "theirs-one"


def test_the_entry_point_of_a_name_is_loaded_alone(packages: None, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(registry, "load", lambda location: loaded.append(location) or load(location))
    find("theirs")
    assert loaded == ["theirs_kernels"]


def test_a_package_that_cannot_be_loaded_is_named_where_no_kernel_is_found(packages: None) -> None:
    with pytest.raises(KernelError, match=r"uninstall broken-package \(OSError: libcuda\.so is missing\)$"):
        find("broken")


class Slow(DequantizedProduct):
    """Takes only what it declares."""

    work = 2**14
    largest = 0

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        Slow.largest = max(Slow.largest, x.numel() * len(packed))
        return super().linear(x, packed)


def test_a_slow_kernel_is_checked_on_shapes_within_its_work() -> None:
    Slow.largest = 0
    found = outcomes(Slow(), "int8-row")
    assert 2**12 < Slow.largest <= Slow.work
    assert found["product_within_bound"] == found["product_of_unit_vectors"] == found["product_shapes"] == "held"
    assert found["accumulator_as_claimed"] == "held"
    assert "fails" not in found.values()


def test_a_kernel_whose_work_allows_no_shape_is_not_applicable() -> None:
    class Idle(DequantizedProduct):
        work = 1

    assert set(outcomes(Idle(), "int4-g32").values()) == {"not applicable"}


class Strict(DequantizedProduct):
    """Reads memory in order, whatever the strides say."""

    dtypes = ("float32",)

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        if not x.is_contiguous():
            x = torch.full_like(x, torch.nan)
        return super().linear(x.nan_to_num(1e9), packed)


def test_a_kernel_that_declares_contiguous_tensors_gets_no_others() -> None:
    class Declared(Strict):
        layouts = "contiguous"

    assert outcomes(Strict(), "int8-row")["product_layouts"] == "fails"
    assert outcomes(Declared(), "int8-row")["product_layouts"] == "held"
    x = torch.randn(4, 3).t()
    layer = QuantizedLinear(torch.ones(2, 4), None, Scheme.parse("int8-row"), "real", kernel=Declared())
    assert torch.allclose(layer(x), x @ torch.ones(4, 2))


@pytest.fixture
def norm() -> Iterator[Operation]:
    """An operation that the package does not have: a norm whose output is quantized."""
    operation = register_operation(Operation(name="norm-quantize", requires=("norm",), parse=Operand.parse))
    yield operation
    OPERATIONS.pop(operation.name), CHECKS.pop(operation.name, None)


def test_another_operation_joins_with_its_requirements_and_checks(norm: Operation) -> None:
    def check_rows_have_norm_one(kernel: Any, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
        error = (kernel.norm(torch.ones(2, 8), operand).square().mean(1) - 1).abs().max().item()
        if error > 0.1:
            raise CheckFailure(f"off by {error:g}")
        return error

    register_checks(norm.name, SimpleNamespace(check_rows_have_norm_one=check_rows_have_norm_one))
    right = SimpleNamespace(name="n", operation=norm.name, schemes=("int8-token",), norm=lambda x, operand: x)
    wrong = SimpleNamespace(**{**vars(right), "norm": lambda x, operand: 2 * x})
    assert outcomes(register(right), "int8-token") == {"rows_have_norm_one": "held"}
    assert outcomes(wrong, "int8-token") == {"rows_have_norm_one": "fails"}
    unregister(right)
    with pytest.raises(KernelError, match=r"a kernel needs norm; see quantsuite\.kernels\.protocol"):
        register(SimpleNamespace(name="n", operation=norm.name, schemes=()))


def test_checks_of_an_operation_that_there_is_not_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no operation 'attention'; known: quantize, linear"):
        register_checks("attention")


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ({"work": 0}, "work of mine is 0, expected a whole number from 1"),
        ({"layouts": "strided"}, "layouts of mine is 'strided', expected one of ('any', 'contiguous')"),
        ({"takes_bias": "yes"}, "takes_bias of mine is 'yes', expected one of (True, False)"),
        ({"unpack": 3}, "unpack of mine is 3, expected a function"),
    ],
)
def test_what_is_declared_wrongly_is_named(attribute: dict[str, Any], message: str) -> None:
    given = {"name": "mine", "operation": "linear", "schemes": ("int8-row",), "pack": print, "linear": print}
    with pytest.raises(KernelError, match=re.escape(message)):
        register(SimpleNamespace(**given, **attribute))


def test_tensors_are_found_and_exchanged_wherever_they_are_kept() -> None:
    shared = torch.zeros(4)
    packed = {"a": [shared, (torch.zeros(2), "text")], "b": SimpleNamespace(inner=torch.zeros(3), same=shared[:2])}
    assert nbytes(packed) == 4 * (4 + 2 + 3)
    doubled = map_tensors(packed, lambda tensor: tensor + 1)
    assert torch.equal(doubled["b"].inner, torch.ones(3)) and doubled["a"][1][1] == "text"
    assert torch.equal(packed["b"].inner, torch.zeros(3))


SLOTTED = [
    make_dataclass("Slotted", ["codes", "shape"], slots=True, frozen=True),
    msgspec.defstruct("Struct", [("codes", Any), ("shape", Any)]),
    msgspec.defstruct("Frozen", [("codes", Any), ("shape", Any)], frozen=True),
]


@pytest.mark.parametrize("kind", SLOTTED, ids=lambda kind: kind.__name__)
def test_tensors_in_slots_are_found_and_exchanged(kind: type) -> None:
    packed = kind(torch.zeros(4), (2, 2))
    changed = map_tensors(packed, lambda tensor: tensor + 1)
    assert nbytes(packed) == nbytes(changed) == 16
    assert torch.equal(changed.codes, torch.ones(4)) and torch.equal(packed.codes, torch.zeros(4))
    assert changed.shape == (2, 2)


def test_a_packed_weight_that_refers_to_itself_is_exchanged_as_a_whole() -> None:
    packed = SimpleNamespace(codes=torch.zeros(4), parts={})
    packed.parts["whole"], packed.parts["list"] = packed, [packed]
    changed = map_tensors(packed, lambda tensor: tensor + 1)
    assert nbytes(packed) == 16 and torch.equal(changed.codes, torch.ones(4))
    assert changed.parts["whole"] is changed.parts["list"][0] is changed and changed is not packed


def test_a_packed_weight_in_which_no_tensor_is_found_is_refused() -> None:
    class Opaque(DequantizedProduct):
        def pack(self, weight: Tensor, scheme: Scheme) -> Any:
            return {weight}

    with pytest.raises(KernelError, match=r"packed int8-row into a set in which no tensor is found; keep them in"):
        QuantizedLinear(torch.ones(2, 4), None, Scheme.parse("int8-row"), "real", kernel=Opaque())


def test_of_named_kernels_the_first_that_takes_the_dtype_multiplies(tmp_path: Path) -> None:
    path = tmp_path / "two.py"
    path.write_text(
        "from types import SimpleNamespace as Kernel\n"
        "what = dict(operation='linear', schemes=['int8-row'], pack=print, linear=print)\n"
        "KERNELS = [Kernel(name=f'only-{dtype}', dtypes=[dtype], **what) for dtype in ('float32', 'float16')]\n"
    )
    scheme = Scheme.parse("int8-row")
    assert UserKernels([str(path)], torch.float16).of(scheme) == "only-float16"
    with pytest.raises(UnsupportedError, match="int8-row: only-float32 takes no bfloat16; it takes float32"):
        UserKernels([str(path)], torch.bfloat16).of(scheme)
    unregister(find("only-float32")), unregister(find("only-float16"))


def test_a_probe_that_runs_out_of_memory_is_asked_again() -> None:
    class Full(DequantizedProduct):
        free = False

        def pack(self, weight: Tensor, scheme: Scheme) -> Any:
            if not self.free:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().pack(weight, scheme)

    kernel, scheme = Full(), Scheme.parse("int8-row")
    with pytest.raises(torch.OutOfMemoryError):
        probe_product(kernel, scheme, "cpu", 2, 2, 4)
    kernel.free = True
    assert probe_product(kernel, scheme, "cpu", 2, 2, 4) is None


def test_a_conversion_that_runs_out_of_memory_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **options: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    missing_storage.cache_clear()
    with monkeypatch.context() as full:
        full.setattr(torch, "ones", fail)
        with pytest.raises(torch.OutOfMemoryError):
            missing_storage(torch.int8, "cpu")
    assert missing_storage(torch.int8, "cpu") is None


def test_each_check_of_a_layer_is_registered_once() -> None:
    names = [property_name(check) for check in CHECKS["linear"]]
    assert len(names) == len(set(names)) and {"product_with_bias", "resident_bytes"} <= set(names)
