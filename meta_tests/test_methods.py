"""Methods: what a scheme's ``@method`` stands for, and that its plan is all that is used of it."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from meta_tests.checkpoints import MIXTURES, PLAIN, build_model
from quantsuite import methods
from quantsuite.linear import matrices, quantized
from quantsuite.methods import MethodError, make_plan
from quantsuite.plan import Plan, PlanError
from quantsuite.quantize import quantize
from quantsuite.scheme import EXECUTIONS, Execution, Operand, Scheme

TOKENS = torch.arange(1, 33).reshape(2, 16)

OWN = """
from quantsuite.plan import LayerPlan, Plan
from quantsuite.scheme import Scheme

class Mine:
    name, needs = "mine", "weights"

    def plan(self, model, scheme, *, include_head, progress):
        return Plan(scheme=scheme, layers={"model.layers.0.mlp.up_proj": LayerPlan(scheme=Scheme.parse("int8-row"))})
"""


@pytest.fixture(params=["qwen3-untied", "qwen3-moe"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build_model((PLAIN | MIXTURES)[request.param])


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path / 'own.py'}:Mine"


@pytest.mark.parametrize("name", ["int8-row", "int8-row@rtn", "nvfp4@rtn", "int8-row:int8-token@rtn"])
def test_round_to_nearest_is_the_scheme_alone(model: PreTrainedModel, name: str) -> None:
    plan = make_plan(model, Scheme.parse(name))
    assert str(plan) == name
    assert replace(plan, scheme=replace(plan.scheme, method=None)) == Plan.of(Scheme.parse(name.partition("@")[0]))


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("name", ["int4-g32", "int8-row", "nf4-g16", "int3-tensor", "int4-row:int8-token"])
@torch.inference_mode()
def test_clip_search_is_the_operand_that_ends_in_clip(model: PreTrainedModel, name: str, execution: Execution) -> None:
    weight, colon, activation = name.partition(":")
    with quantized(model, Scheme.parse(f"{weight}-clip{colon}{activation}"), execution):
        expected = model(input_ids=TOKENS).logits
    with quantized(model, make_plan(model, Scheme.parse(f"{name}@clip")), execution):
        assert torch.equal(model(input_ids=TOKENS).logits, expected)


def test_clip_search_plans_codes_and_scales_of_every_matrix(model: PreTrainedModel) -> None:
    plan, seen = make_plan(model, Scheme.parse("int4-g32@clip"), progress=(names := []).append), dict(matrices(model))
    assert names == list(plan.layers) == list(seen)
    for name, weight in seen.items():
        expected, found = quantize(weight, Operand.parse("int4-g32-clip")), plan.layers[name].weight
        assert torch.equal(found.values, expected.values) and torch.equal(found.scale, expected.scale)
        assert str(found.operand) == "int4-g32"


@pytest.mark.parametrize("include_head", [False, True])
def test_the_head_is_planned_only_if_it_is_quantized(include_head: bool) -> None:
    model = build_model(PLAIN["qwen3-untied"])
    plan = make_plan(model, Scheme.parse("int4-g32@clip"), include_head=include_head)
    assert ("lm_head" in plan.layers) is include_head


def test_a_plan_says_what_made_it_and_two_methods_differ(model: PreTrainedModel) -> None:
    clipped, nearest = (make_plan(model, Scheme.parse(f"int4-g32@{name}")) for name in ("clip", "rtn"))
    assert (str(clipped), str(nearest)) == ("int4-g32@clip", "int4-g32@rtn")
    assert clipped.sha256 and not nearest.sha256 and clipped != nearest


@pytest.mark.parametrize("name", ["mxfp4@clip", "int4-g32-asym@clip", "int4-g32-full@clip", "bf16@clip"])
def test_a_scheme_without_scales_to_search_is_told(model: PreTrainedModel, name: str) -> None:
    with pytest.raises(MethodError, match="drop @clip"):
        make_plan(model, Scheme.parse(name))


def test_a_group_that_does_not_divide_is_told_by_layer() -> None:
    with pytest.raises(
        MethodError, match=r"^int4-g48@clip: model\.layers\.0\.self_attn\.q_proj: group size 48 does not divide K=64"
    ):
        make_plan(build_model(PLAIN["qwen3-untied"]), Scheme.parse("int4-g48@clip"))


def test_a_method_of_a_users_file_is_found_by_its_name(own: str) -> None:
    plan = make_plan(build_model(PLAIN["qwen3-untied"]), Scheme.parse("int4-g32@mine"), places=[own])
    assert str(plan) == "int4-g32@mine" and list(plan.layers) == ["model.layers.0.mlp.up_proj"]
    assert methods.known([own])[:3] == ["mine", "rtn", "clip"]


def test_a_method_of_an_installed_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(OWN)
    (tmp_path / "theirs-1.0.dist-info").mkdir()
    (tmp_path / "theirs-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (tmp_path / "theirs-1.0.dist-info/entry_points.txt").write_text("[quantsuite.methods]\nmine = theirs:Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert methods.find("mine").name == "mine" and "mine" in methods.known()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["clip"], r"^method '.*a0\.py' is named 'clip', as is quantsuite's own; give it another name$"),
        (["mine", "mine"], r"^method '.*a1\.py' is named 'mine', as is '.*a0\.py'; give it another name$"),
    ],
)
def test_two_methods_of_one_name_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    places = [str(tmp_path / f"a{number}.py") for number in range(len(names))]
    for place, name in zip(places, names, strict=True):
        Path(place).write_text(f"name, needs = {name!r}, 'weights'\ndef plan(*args, **options): ...\n")
    with pytest.raises(MethodError, match=message):
        methods.find("rtn", places)


def test_an_unknown_method_is_one_line_with_what_there_is(own: str) -> None:
    model = build_model(PLAIN["qwen3-untied"])
    expected = r"^unknown method 'clipp'; did you mean 'clip'\? known: mine, rtn, clip; --method my\.py adds .*$"
    with pytest.raises(MethodError, match=expected):
        make_plan(model, Scheme.parse("int4-g32@clipp"), places=[own])


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_scheme_is_not_run_as_if_it_named_no_method(execution: Execution) -> None:
    model = build_model(PLAIN["qwen3-untied"])
    with pytest.raises(PlanError, match="make_plan"), quantized(model, Scheme.parse("int8-row@clip"), execution):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 'two words'", "name is 'two words', expected a word"),
        ("name = 'mine'", "needs is None, expected one of 'weights'"),
        ("name, needs = 'mine', 'weights'", "mine has no function plan"),
        ("import missing_module_of_no_one", "cannot be imported: ModuleNotFoundError: No module"),
        ("name = (", "cannot be imported: SyntaxError"),
    ],
)
def test_a_file_that_holds_no_method_says_what_is_missing(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(MethodError, match=message) as caught:
        methods.load(str(tmp_path / "own.py"))
    assert "\n" not in str(caught.value)


def test_a_place_where_nothing_is_says_so(own: str) -> None:
    with pytest.raises(MethodError, match="does not exist; give the path of a Python file"):
        methods.load("nowhere.py")
    with pytest.raises(MethodError, match="has no 'Yours'; it has LayerPlan, Plan, Scheme, Mine"):
        methods.load(own.replace("Mine", "Yours"))


@pytest.mark.parametrize("returned", ["None", "Plan.of(Scheme.parse('int8-row'))"])
def test_what_a_method_returns_is_a_plan_of_the_scheme(tmp_path: Path, returned: str) -> None:
    (tmp_path / "own.py").write_text(
        "from quantsuite.plan import Plan\nfrom quantsuite.scheme import Scheme\nname, needs = 'mine', 'weights'\n"
        f"def plan(model, scheme, *, include_head, progress): return {returned}\n"
    )
    with pytest.raises(MethodError, match="expected a Plan of int4-g32"):
        make_plan(build_model(PLAIN["qwen3-tied"]), Scheme.parse("int4-g32@mine"), places=[str(tmp_path / "own.py")])


def test_methods_and_layers_do_not_know_each_other() -> None:
    package = Path(methods.__file__).parent
    imports = {
        path: {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        for path in [*package.glob("*.py"), package.parent / "layer.py", package.parent / "linear.py"]
    }
    assert not any("quantsuite.layer" in each for path, each in imports.items() if path.parent == package)
    assert not any(
        "quantsuite.methods" in (module or "") for path in imports if path.parent != package for module in imports[path]
    )
