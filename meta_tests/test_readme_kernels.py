"""The README's kernels are right in every dtype that they are tried in."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from quantsuite.checks import NotApplicable
from quantsuite.conformance.cases import make_cases
from quantsuite.kernels.validation import validate

README = (Path(__file__).parent.parent / "README.md").read_text()


def example(start: str) -> dict[str, Any]:
    """What the README's Python example that holds a text defines."""
    (code,) = (part.split("```")[0] for part in README.split("```python\n")[1:] if start in part.split("```")[0])
    module = ModuleType("readme")
    exec(code, vars(module))
    return vars(module)


def held(kernel: Any) -> set[tuple[str, str]]:
    """Properties and dtypes that hold; one that does not raises."""
    found = set()
    for case in make_cases([kernel]):
        try:
            case.run()
        except NotApplicable:
            continue
        found.add((case.dtype_name, case.property))
    return found


def test_the_kernel_is_right_in_every_dtype() -> None:
    kernel = validate(SimpleNamespace(**example("def pack(weight, scheme)")), "README")
    assert {(name, "product_within_bound") for name in ("float32", "bfloat16", "float16")} <= held(kernel)


def test_the_layer_and_the_fake_quantizer_are_right() -> None:
    pytest.importorskip("torchao")
    layer, quantizer = example("kernel_of_layer")["KERNELS"]
    assert ("bfloat16", "training_is_inference") in held(layer)
    assert ("float32", "subnormal_values") in held(quantizer)
