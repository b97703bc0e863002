"""Weights that are not linear layers: experts are quantized one by one, and nothing is left out in silence."""

import copy
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    DeepseekV3Config,
    GPT2Config,
    GptOssConfig,
    Llama4TextConfig,
    MambaConfig,
    OlmoeConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from meta_tests.checkpoints import MIXTURES, PLAIN, build_model, save_checkpoint
from quantsuite.adapters.loading import load_model
from quantsuite.adapters.transformers import TransformersEngine
from quantsuite.bounds import bound_execution
from quantsuite.engine import GenerateRequest, Rows, ScoreRequest
from quantsuite.experts import FusedExperts, QuantizedExperts
from quantsuite.layer import QuantizedLinear
from quantsuite.linear import MisfitError, UnsupportedError, misfits, quantized, unquantized, weight_bytes
from quantsuite.parts import build_layer
from quantsuite.plan import LayerPlan
from quantsuite.quantize import dequantize, quantize
from quantsuite.scheme import EXECUTIONS, Execution, Scheme

schemes = pytest.mark.parametrize(
    "scheme",
    [Scheme.parse(n) for n in ("int8-tensor", "fp8-row", "int4-g32", "int8-row:int8-token", "mxfp4:mxfp8")],
    ids=str,
)
executions = pytest.mark.parametrize("execution", EXECUTIONS)
mixtures = pytest.mark.parametrize("name", MIXTURES)
TOKENS = torch.arange(1, 65).reshape(4, 16)

SMALL = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
OTHER_MIXTURES: dict[str, PreTrainedConfig] = {
    "olmoe": OlmoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2),
    "gpt-oss": GptOssConfig(**SMALL, head_dim=16, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2),
    "deepseek-v3": DeepseekV3Config(
        **SMALL, n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=32, first_k_dense_replace=1,
        n_group=2, topk_group=1, q_lora_rank=32, kv_lora_rank=32, qk_rope_head_dim=16, qk_nope_head_dim=16,
        v_head_dim=16, num_key_value_heads=4,
    ),
}  # fmt: skip
"""Shared experts, biases, and fused weights that are transposed and interleaved."""


def fused_modules(model: nn.Module) -> dict[str, FusedExperts]:
    return {path: fused for path, module in model.named_modules() if (fused := FusedExperts.find(module))}


def quantized_experts(fused: FusedExperts, scheme: Scheme, execution: Execution) -> QuantizedExperts:
    """Experts whose matrices have one scheme."""
    plan = LayerPlan(scheme=scheme)
    return QuantizedExperts(fused, lambda name, weight, bias: build_layer(weight, bias, plan, execution))


class ExpertByExpert(nn.Module):
    """A mixture as the checkpoint holds it: three matrices an expert, and a loop over tokens' choices."""

    def __init__(self, experts: list[list[QuantizedLinear]]) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, hidden: Tensor, index: Tensor, shares: Tensor) -> Tensor:
        slots = []
        for slot in range(index.shape[1]):
            rows = torch.zeros_like(hidden, dtype=torch.promote_types(hidden.dtype, shares.dtype))
            for number, (gate, up, down) in enumerate(self.experts):
                # All tokens of an expert go through it at once, as sums depend on the shape of a product.
                chosen = (index == number).any(1)
                if chosen.any():
                    given = hidden[chosen]
                    output = down(functional.silu(gate(given)) * up(given))
                    mine = index[chosen][:, slot] == number
                    rows[chosen.nonzero()[:, 0][mine]] = output[mine] * shares[chosen][mine][:, slot, None]
            slots.append(rows)
        return torch.stack(slots, 1).sum(1).to(hidden.dtype)


def checkpoint_experts(folder: Path, path: str) -> list[list[Tensor]]:
    """Gate, up and down of each expert, by the names that the checkpoint gives them."""
    tensors: dict[str, Tensor] = {}
    for shard in folder.glob("*.safetensors"):
        tensors |= load_file(shard)
    layer = re.search(r"layers\.\d+\.", path)[0]
    names = {"gate_proj": 0, "up_proj": 1, "down_proj": 2, "w1": 0, "w3": 1, "w2": 2}
    experts: dict[int, list[Tensor]] = {}
    for name, tensor in tensors.items():
        if match := re.search(rf"{re.escape(layer)}\w+\.experts\.(\d+)\.(\w+)\.weight", name):
            experts.setdefault(int(match[1]), [tensor] * 3)[names[match[2]]] = tensor
    return [experts[number] for number in sorted(experts)]


@contextmanager
def by_hand(model: PreTrainedModel, folder: Path, scheme: Scheme, execution: Execution) -> Iterator[None]:
    """The model with layers and experts exchanged by this file's own code; the routers stay."""
    linears = {p: m for p, m in model.named_modules() if type(m) is nn.Linear and not re.search(r"gate$|lm_head", p)}
    experts = {p: fused.module for p, fused in fused_modules(model).items()}
    for path, linear in linears.items():
        model.set_submodule(path, QuantizedLinear.from_linear(linear, scheme, execution))
    for path in experts:
        matrices = checkpoint_experts(folder, path)
        layers = [[QuantizedLinear(w.to(model.dtype), None, scheme, execution) for w in each] for each in matrices]
        model.set_submodule(path, ExpertByExpert(layers))
    yield
    for path, module in {**linears, **experts}.items():
        model.set_submodule(path, module)


@pytest.fixture(scope="module", params=itertools.product(MIXTURES, ["bf16", "fp32"]), ids="-".join)
def mixture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, Path]:
    """A model loaded from a checkpoint, and the folder of it."""
    name, dtype = request.param
    folder = save_checkpoint(tmp_path_factory.mktemp("mixtures") / name, MIXTURES[name])
    return load_model(str(folder), dtype=dtype).model, folder


@schemes
@executions
@torch.inference_mode()
def test_a_quantized_mixture_is_its_experts_quantized_one_by_one(
    mixture: tuple[PreTrainedModel, Path], scheme: Scheme, execution: Execution
) -> None:
    model, folder = mixture
    with by_hand(model, folder, scheme, execution):
        expected = model(input_ids=TOKENS).logits
    with quantized(model, scheme, execution):
        assert torch.equal(model(input_ids=TOKENS).logits, expected)


@schemes
@mixtures
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@torch.inference_mode()
def test_simulated_and_real_experts_agree_within_the_bound(name: str, scheme: Scheme, dtype: torch.dtype) -> None:
    fused = next(iter(fused_modules(build_model(MIXTURES[name]).to(dtype)).values()))
    pairs = zip(*(quantized_experts(fused, scheme, execution).experts for execution in EXECUTIONS), strict=True)
    for simulated, real in ((s, r) for pair in pairs for s, r in zip(*pair, strict=True)):
        x = torch.randn(5, real.in_features, generator=torch.Generator().manual_seed(0)).to(dtype)
        seen = x if scheme.activation is None else dequantize(quantize(x, scheme.activation))
        operands = 1 if scheme.activation is None else 2
        bound = bound_execution(seen, real.effective_weight(), dtype, quantized_operands=operands)
        assert ((simulated(x).double() - real(x).double()).abs() <= bound).all()


@mixtures
def test_real_experts_take_the_bytes_of_their_codes_and_scales(name: str) -> None:
    model = build_model(MIXTURES[name]).bfloat16()
    for fused in fused_modules(model).values():
        rows = sum(w.shape[0] for e in range(len(fused)) for w, _ in fused.matrices(e).values())
        elements = sum(weight.numel() for weight in fused.weights)
        experts = quantized_experts(fused, Scheme.parse("int4-row"), "real")
        assert weight_bytes(experts) == elements // 2 + 4 * rows


@mixtures
@executions
def test_a_mixture_is_as_it_was_after_the_block(name: str, execution: Execution) -> None:
    model = build_model(MIXTURES[name])
    before, modules = {k: v.clone() for k, v in model.state_dict().items()}, dict(model.named_modules())
    with quantized(model, Scheme.parse("int8-row"), execution):
        assert dict(model.named_modules()) != modules
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@mixtures
def test_a_quantized_mixture_scores_and_generates_as_the_engine_promises(name: str) -> None:
    model = build_model(MIXTURES[name])
    sequences = [tuple(range(1, 20)), (*range(1, 15), 40, 41)]
    with torch.inference_mode(), quantized(model, Scheme.parse("int8-row"), "simulated"):
        engine = TransformersEngine(model)
        for result in engine.score([ScoreRequest(tokens=sequence, first=1, want=Rows()) for sequence in sequences]):
            logits = model(input_ids=torch.tensor([sequences[result.request]])).logits[0]
            assert torch.allclose(result.log_probs, logits.log_softmax(-1)[:-1], atol=1e-3)
        ours = engine.generate([GenerateRequest(tokens=sequence, max_new_tokens=5) for sequence in sequences])
        for sequence, continuation in zip(sequences, ours, strict=True):
            theirs = model.generate(torch.tensor([sequence]), max_new_tokens=5, do_sample=False)
            assert continuation == theirs[0, len(sequence) :].tolist()


@pytest.mark.parametrize("config", OTHER_MIXTURES.values(), ids=OTHER_MIXTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@torch.inference_mode()
def test_fused_weights_of_other_layouts_are_recognized_by_what_they_compute(
    config: PreTrainedConfig, dtype: torch.dtype
) -> None:
    model = build_model(config).to(dtype)
    for path, fused in fused_modules(model).items():
        fused.check(path)
    with quantized(model, Scheme.parse("int8-row"), "simulated"):
        assert sum(isinstance(module, QuantizedExperts) for module in model.modules()) == len(
            fused_modules(build_model(config))
        )


@pytest.mark.parametrize("flag", ["is_transposed", "is_concatenated"])
def test_a_layout_that_is_misunderstood_is_an_error(flag: str) -> None:
    model = build_model(OTHER_MIXTURES["gpt-oss"])
    for fused in fused_modules(model).values():
        setattr(fused.module, flag, not getattr(fused.module, flag))
        with pytest.raises(UnsupportedError, match=r"layers\.0\.mlp\.experts\.gate_up_proj"):
            FusedExperts(module=_Frozen(fused.module, flag)).check("layers.0.mlp.experts")


class _Frozen(nn.Module):
    """An experts module that computes as before a flag of it was turned."""

    def __init__(self, module: nn.Module, flag: str) -> None:
        super().__init__()
        for name, parameter in module.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.is_transposed, self.is_concatenated = module.is_transposed, module.is_concatenated
        self._apply_gate = module._apply_gate
        self._inner, self._flag = [module], flag

    def forward(self, *inputs: Tensor) -> Tensor:
        (module,) = self._inner
        setattr(module, self._flag, not getattr(module, self._flag))
        try:
            return module(*inputs)
        finally:
            setattr(module, self._flag, not getattr(module, self._flag))


def test_experts_of_an_unknown_signature_name_their_parameter() -> None:
    config = Llama4TextConfig(
        **SMALL, head_dim=16, num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=96, pad_token_id=0
    )
    model = build_model(config)
    with (
        pytest.raises(UnsupportedError, match=r"feed_forward\.experts\.gate_up_proj \[4, 64, 192\]: .*--scheme bf16"),
        quantized(model, Scheme.parse("int8-row"), "simulated"),
    ):
        pass


def test_a_weight_of_an_expert_that_is_not_finite_is_named() -> None:
    model = build_model(MIXTURES["qwen3-moe"])
    model.model.layers[1].mlp.experts.gate_up_proj.data[3, -1, 0] = torch.nan
    with (
        pytest.raises(ValueError, match=r"layers\.1\.mlp\.experts\.3\.up_proj: 1 of 2048 values are NaN"),
        quantized(model, Scheme.parse("int8-row"), "real"),
    ):
        pass


@executions
@torch.inference_mode()
def test_a_transposed_linear_layer_is_quantized_as_the_layer_that_it_is(execution: Execution) -> None:
    model = build_model(GPT2Config(vocab_size=256, n_embd=64, n_layer=2, n_head=4, n_positions=64))
    scheme, convolutions = Scheme.parse("int4-g32"), {}
    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            convolutions[path] = module
            model.set_submodule(path, QuantizedLinear(module.weight.T.contiguous(), module.bias, scheme, execution))
    expected = model(input_ids=TOKENS).logits
    for path, module in convolutions.items():
        model.set_submodule(path, module)
    with quantized(model, scheme, execution):
        assert torch.equal(model(input_ids=TOKENS).logits, expected)
    assert len(convolutions) == 8


@pytest.mark.parametrize("config", [*MIXTURES.values(), *OTHER_MIXTURES.values()], ids=[*MIXTURES, *OTHER_MIXTURES])
def test_routers_and_gates_of_shared_experts_stay_as_they_are(config: PreTrainedConfig) -> None:
    model = build_model(config)
    routers = {p: m for p, m in model.named_modules() if re.search(r"(router|gate)$", p)}
    with quantized(model, Scheme.parse("int8-row"), "simulated", include_head=True):
        assert routers and all(model.get_submodule(path) is module for path, module in routers.items())


def test_a_projection_with_as_many_outputs_as_experts_is_no_router() -> None:
    config = copy.deepcopy(MIXTURES["qwen3-moe"])
    config.num_experts = 32
    model = build_model(config)
    assert model.model.layers[0].self_attn.k_proj.out_features == len(model.model.layers[0].mlp.gate.weight) == 32
    with quantized(model, Scheme.parse("int8-row"), "simulated"):
        assert isinstance(model.model.layers[0].self_attn.k_proj, QuantizedLinear)


@pytest.mark.parametrize("include_head", [False, True])
def test_shares_and_quantized_parameters_are_the_whole_model(include_head: bool) -> None:
    model = build_model(MIXTURES["qwen2-moe"])
    total = sum(parameter.numel() for parameter in model.parameters())
    shares = unquantized(model, include_head)
    assert set(shares) == {"embeddings", "norms and biases", "routers"} | (set() if include_head else {"head"})
    with quantized(model, Scheme.parse("int8-row"), "real", include_head=include_head):
        codes = sum(
            module.effective_weight().numel() for module in model.modules() if isinstance(module, QuantizedLinear)
        )
    assert sum(shares.values()) + codes / total == pytest.approx(1)


def test_a_tied_head_counts_once_as_an_embedding() -> None:
    model = build_model(PLAIN["qwen3-tied"])
    share = model.lm_head.weight.numel() / sum(parameter.numel() for parameter in model.parameters())
    assert unquantized(model)["embeddings"] == pytest.approx(share)
    assert "head" not in unquantized(model)


def test_a_weight_of_no_known_kind_is_refused_by_name_shape_and_share() -> None:
    model = build_model(MambaConfig(vocab_size=256, hidden_size=64, num_hidden_layers=1, state_size=8))
    message = r"layers\.0\.mixer\.A_log \[128, 8\], \d\.\d\d% of the parameters, .*--scheme bf16"
    with pytest.raises(UnsupportedError, match=message):
        unquantized(model)
    with pytest.raises(UnsupportedError, match=message), quantized(model, Scheme.parse("int8-row"), "real"):
        pass
    with quantized(model, Scheme(), "real"):
        pass


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("int8-g128", r"model\.layers\.0\.self_attn\.q_proj: group size 128 does not divide K=64; use one of 32, 64"),
        (
            "int8-g64",
            r"model\.layers\.0\.mlp\.experts\.0\.down_proj: group size 64 does not divide K=32; use one of 32",
        ),
        ("int8-row:int8-g64", r"model\.layers\.0\.mlp\.experts\.0\.down_proj: group size 64 does not divide K=32"),
        ("int8-b48x32", r"model\.layers\.0\.self_attn\.q_proj: block height 48 does not divide N=64"),
        ("int8-row:int8-b1x32", r"model\.layers\.0\.self_attn\.q_proj: blocks need a matrix"),
    ],
)
def test_a_scheme_that_does_not_fit_is_told_before_anything_is_quantized(name: str, reason: str) -> None:
    model, scheme = build_model(MIXTURES["qwen3-moe"]), Scheme.parse(name)
    found = misfits(model, scheme)
    assert found is not None and re.match(reason, found)
    started: list[str] = []
    with (
        pytest.raises(MisfitError, match=re.escape(found)),
        quantized(model, scheme, "simulated", progress=started.append),
    ):
        pass
    assert started == []


@pytest.mark.parametrize("name", ["bf16", "int8-g32", "mxfp4:mxfp8", "int8-tensor", "nvfp4", "int8-row:int8-token"])
def test_a_scheme_that_fits_has_no_misfit(name: str) -> None:
    assert misfits(build_model(MIXTURES["qwen3-moe"]), Scheme.parse(name)) is None


def test_the_head_is_asked_only_if_it_is_quantized() -> None:
    model = build_model(PLAIN["qwen3-untied"])
    model.lm_head = nn.Linear(60, 7)
    assert misfits(model, Scheme.parse("int8-g32"), include_head=False) is None
    assert misfits(model, Scheme.parse("int8-g32"), include_head=True).startswith("lm_head: ")
