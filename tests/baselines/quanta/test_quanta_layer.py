"""One adapted layer: Eq. 8 for every kind of base layer, and how `peft` chooses the targets."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from baselines.quanta import QuantaConfig, QuantaLinear, QuantaModel


def linear(dtype: torch.dtype = torch.float32) -> nn.Linear:
    return nn.Linear(24, 12).to(dtype).requires_grad_(False)


def layer(base: nn.Module | None = None, trained: bool = True, **fields) -> QuantaLinear:
    config = QuantaConfig(dims=(4, 3, 2), **fields)
    result = QuantaLinear(linear() if base is None else base, "default", config, "name")
    if trained:
        with torch.no_grad():
            for gate in result.quanta_gates.parameters():
                gate += 0.1 * torch.randn_like(gate)
    return result


def vectors(count: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 24, generator=torch.Generator().manual_seed(3)).to(dtype)


def expected(adapted: QuantaLinear, x: Tensor) -> Tensor:
    """W0 x + (T - S) x + bias in double precision."""
    base = adapted.get_base_layer()
    weight = base.weight.mT if isinstance(base, Conv1D) else base.weight
    delta = adapted.get_delta_weight("default").double()
    delta = delta.mT if isinstance(base, Conv1D) else delta
    return functional.linear(x.double(), weight.double() + delta, base.bias.double())


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 3, 24), (0, 24)])
def test_forward_is_equation_8(kind: str, shape: tuple[int, ...]):
    base = linear() if kind == "linear" else Conv1D(12, 24).requires_grad_(False)
    adapted = layer(base)
    x = torch.randn(shape)
    result = adapted(x)
    assert result.dtype == torch.float32
    assert torch.allclose(result.double(), expected(adapted, x), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_change_of_dtype(dtype: torch.dtype):
    adapted = layer()
    adapted(vectors())
    adapted.to(dtype)
    x = vectors(dtype=dtype)
    assert adapted(x).dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 0.05
    assert torch.allclose(adapted(x).double(), expected(adapted, x), atol=tolerance)


def test_gradients_are_those_of_equation_8():
    adapted, x = layer(linear(torch.float64)), vectors(dtype=torch.float64).requires_grad_()
    gates = list(adapted.quanta_gates.parameters())
    toward = torch.randn(5, 12, dtype=torch.float64)
    found = torch.autograd.grad(adapted(x), [x, *gates], toward)
    weight = adapted.get_base_layer().weight + adapted.update_matrix("default", torch.float64)
    reference = torch.autograd.grad(functional.linear(x, weight), [x, *gates], toward)
    for first, second in zip(found, reference, strict=True):
        assert torch.allclose(first, second, atol=1e-12)


def test_trained_and_frozen_gates_share_no_memory():
    adapted = layer(trained=False)
    pairs = zip(adapted.quanta_gates.parameters(), adapted.quanta_frozen.buffers(), strict=True)
    for gate, frozen in pairs:
        assert torch.equal(gate, frozen)
        assert gate.data_ptr() != frozen.data_ptr()


# Base layers that are more than a frozen weight.


class Halved(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


def test_a_forward_of_its_own():
    base = Halved(24, 12).requires_grad_(False)
    adapted = layer(base, trained=False)
    assert torch.equal(adapted(vectors()), base(vectors()))


def test_hooks_of_the_base_layer_still_run():
    base, seen = linear(), []
    base.register_forward_hook(lambda *_: seen.append(1))
    layer(base)(vectors())
    assert seen


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_base_parameter_that_trains_gets_its_gradient(name: str):
    adapted = layer()
    adapted(vectors())
    parameter = getattr(adapted.base_layer, name).requires_grad_()
    adapted(vectors()).sum().backward()
    assert parameter.grad.abs().sum() > 0


def test_weight_that_is_not_plain_is_not_merged():
    base = linear()
    base.weight = nn.Parameter(torch.zeros(12, 24, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"torch.int8; an adapter merges into plain"):
        layer(base).merge()


def test_adapter_of_another_kind_beneath():
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.proj(x)

    beneath = get_peft_model(Wrapped(), LoraConfig(target_modules=["proj"], r=2)).base_model.model
    with torch.no_grad():
        beneath.proj.lora_B["default"].weight.normal_()
    before = beneath(vectors())
    adapted = layer(beneath.proj, trained=False)
    assert torch.equal(adapted(vectors()), before)


# Through peft's selection of targets.


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(3))
        self.conv = nn.Conv1d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.layers:
            x = module(x).tanh()
        return x


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"target_modules": "all-linear"}, {"layers.0", "layers.1", "layers.2"}),
        ({"target_modules": r"layers\.[01]"}, {"layers.0", "layers.1"}),
        ({"target_modules": ["0", "1"], "exclude_modules": ["1"]}, {"layers.0"}),
    ],
)
def test_targets(fields: dict, names: set[str]):
    model = QuantaModel(Net(), QuantaConfig(**fields), "default")
    assert set(model.targeted_module_names) == names
    assert {name for name, m in model.model.named_modules() if isinstance(m, QuantaLinear)} == names


def test_budget_and_dims_by_module():
    dims = {"0": (2, 3, 4), ".*": None}
    config = QuantaConfig(dims=dims, target_modules="all-linear", parameter_budget=200)
    model = QuantaModel(Net(), config, "default")
    chosen = [module.quanta_circuits["default"].dims for module in model.model.layers]
    assert chosen == [(2, 3, 4), (3, 2, 2, 2), (3, 2, 2, 2)]


def test_unsupported_layer_is_named():
    with pytest.raises(ValueError, match="module 'conv' is a Conv1d; adapters here"):
        QuantaModel(Net(), QuantaConfig(target_modules=["conv"]), "default")


def test_compiles_to_one_graph():
    adapted, x = layer(), vectors()
    eager = adapted(x)
    compiled = torch.compile(adapted, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), eager, atol=1e-6)
    eager_gradients = torch.autograd.grad(adapted(x).sum(), list(adapted.quanta_gates.parameters()))
    gradients = torch.autograd.grad(compiled(x).sum(), list(adapted.quanta_gates.parameters()))
    for first, second in zip(eager_gradients, gradients, strict=True):
        assert torch.allclose(first, second, atol=1e-5)


def test_autocast_does_not_round_what_is_merged():
    adapted = layer(linear(torch.bfloat16))
    adapted.merge()
    outside = adapted.base_layer.weight.clone()
    adapted.unmerge()
    with torch.autocast("cpu", torch.bfloat16):
        adapted.merge()
    assert torch.equal(adapted.base_layer.weight, outside)
