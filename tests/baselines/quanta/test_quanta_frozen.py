"""Outputs come from the weights as they are, however these are written; `frozen` is the exception.

The reference is Eq. 8 in double precision, with T and S as matrices built entry by entry by einsum.
"""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from peft import get_peft_model
from quanta_models import TOKENS, adapted, layers, logits, train
from torch import Tensor, nn
from torch.nn import functional
from weight_writes import WRITES, Write

from baselines.quanta import QuantaConfig, QuantaLinear
from baselines.quanta.method import Quanta
from baselines.tuners.frozen import frozen

DIMS = (4, 3, 2)
DTYPES = [torch.float32, torch.bfloat16]


def model_of(dtype: torch.dtype = torch.float32) -> nn.Module:
    model = nn.Sequential(nn.Linear(24, 12).to(dtype)).requires_grad_(False)
    model = get_peft_model(model, QuantaConfig(dims=DIMS, target_modules=["0"])).eval()
    with torch.no_grad():
        for gate in layer_of(model).quanta_gates.parameters():
            gate += 0.1 * torch.randn_like(gate)
    return model


def layer_of(model: nn.Module) -> QuantaLinear:
    return next(module for module in model.modules() if isinstance(module, QuantaLinear))


def vectors(dtype: torch.dtype = torch.float32, count: int = 3) -> Tensor:
    return torch.randn(count, 24, generator=torch.Generator().manual_seed(3)).to(dtype)


def matrix(gates: list[Tensor], layer: QuantaLinear) -> Tensor:
    circuit = layer.quanta_circuits["default"].circuit
    expression = circuit.operator_expression()
    matrix = torch.einsum(expression, *(gate.double() for gate in gates))
    return matrix.reshape(math.prod(circuit.out_sizes), math.prod(circuit.sizes))


def expected(model: nn.Module, x: Tensor) -> Tensor:
    layer = layer_of(model)
    base = layer.get_base_layer()
    trained = matrix(list(layer.quanta_gates["default"]), layer)
    start = matrix(list(layer.quanta_frozen["default"].buffers()), layer)
    weight = base.weight.double() + trained - start
    return functional.linear(x.double(), weight, base.bias.double()).detach()


def close(found: Tensor, reference: Tensor) -> bool:
    tolerance = 1e-5 if found.dtype == torch.float32 else 0.05
    return torch.allclose(found.double(), reference, atol=tolerance)


WHAT = {
    "gates": lambda layer: list(layer.quanta_gates.parameters()),
    "frozen gates": lambda layer: list(layer.quanta_frozen.buffers()),
    "base": lambda layer: list(layer.get_base_layer().parameters()),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("name", WRITES)
def test_every_write_is_in_the_next_output(name: str, what: str, dtype: torch.dtype):
    if what != "gates" and ("AdamW" in name or "swap" in name):
        pytest.skip("neither trains, nor is a parameter to swap")
    write: Write = WRITES[name]
    model, x = model_of(dtype), vectors(dtype)
    for passes in (torch.no_grad(), torch.inference_mode()):
        with passes:
            before = model(x)
        write(WHAT[what](layer_of(model)))
        with passes:
            after = model(x)
            assert close(after, expected(model, x))
        assert not torch.allclose(after, before, atol=1e-3)
        assert torch.allclose(
            model(x).detach(), after, atol=1e-2 if dtype != torch.float32 else 1e-6
        )


@pytest.mark.parametrize("name", ["data", "AdamW, fused"])
def test_a_compiled_layer_follows_writes(name: str):
    model, x = model_of(), vectors()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        compiled(x)
    WRITES[name](WHAT["gates"](layer_of(model)))
    WRITES["data"](WHAT["base"](layer_of(model)))
    with torch.no_grad():
        assert close(compiled(x), expected(model, x))


def test_loading_a_state_is_in_the_next_output():
    model, other, x = model_of(), model_of(), vectors()
    with torch.no_grad():
        model(x)
        model.load_state_dict(other.state_dict())
        assert torch.equal(model(x), other(x))
        model.load_state_dict(model_of().state_dict(), assign=True)
        assert close(model(x), expected(model, x))


# Inside the block.


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_frozen_outputs_are_those_outside(kind: str, dtype: torch.dtype, autocast: bool):
    if autocast and dtype == torch.float64:
        pytest.skip("autocast leaves float64 alone")
    model = adapted(kind, dtype)
    train(model)
    low = autocast or dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outside = logits(model)
        with Quanta.from_settings({}).frozen(model):
            first, second = logits(model), logits(model)
            with torch.inference_mode():
                assert torch.equal(logits(model), first)
    assert torch.equal(first, second)
    tolerance = 0.1 if low else 1e-5 if dtype == torch.float32 else 1e-12
    assert (first - outside).abs().max() < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices_are_made_once_in_a_block_and_dropped_at_its_end(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    model, x = model_of(dtype), vectors(dtype)
    made = []
    make = QuantaLinear.update_matrix
    monkeypatch.setattr(
        QuantaLinear, "update_matrix", lambda *args: made.append(args) or make(*args)
    )
    with torch.no_grad():
        with frozen(model):
            for _ in range(3):
                model(x)
            with frozen(model):
                model(x)
            assert len(made) == 1
            copied = copy.deepcopy(model)
        WRITES["data"](WHAT["gates"](layer_of(model)))
        assert close(model(x), expected(model, x))
        assert len(made) == 1
        # A copy made inside is outside.
        WRITES["data"](WHAT["gates"](layer_of(copied)))
        assert close(copied(x), expected(copied, x))
        buffer = io.BytesIO()
        with frozen(model):
            model(x)
            torch.save(model.state_dict(), buffer)
        assert set(model.state_dict()) == set(model_of().state_dict())


def test_a_failed_block_drops_what_it_kept():
    model, x = model_of(), vectors()

    def interrupted() -> None:
        with torch.no_grad(), frozen(model):
            model(x)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    WRITES["data"](WHAT["gates"](layer_of(model)))
    with torch.no_grad():
        assert close(model(x), expected(model, x))


def test_a_frozen_model_still_trains_and_switches():
    model = adapted(dropout=0.2)
    plain = copy.deepcopy(model)
    with frozen(model):
        logits(model)
        for one in (model, plain):
            torch.manual_seed(0)
            one.train()(TOKENS, labels=TOKENS).loss.backward()
        for one, other in zip(model.parameters(), plain.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None)
            assert one.grad is None or torch.equal(one.grad, other.grad)
        torch.manual_seed(1)
        dropped = logits(model)
        torch.manual_seed(1)
        assert torch.equal(dropped, logits(plain))  # dropout is never in a matrix
        with model.disable_adapter(), plain.disable_adapter():
            assert torch.equal(logits(model), logits(plain))
    assert len(layers(model)) > 0


def test_several_active_adapters_inside():
    model = adapted(dtype=torch.float64)
    train(model)
    model.add_adapter("second", QuantaConfig(dims=(8, 8), target_modules=["q_proj"], seed=5))
    model.set_adapter("second")
    train(model)
    model.base_model.set_adapter(["default", "second"])
    outside = logits(model)
    with frozen(model):
        assert torch.allclose(logits(model), outside, atol=1e-12)
        model.set_adapter("second")
        inside = logits(model)
    assert torch.allclose(logits(model), inside, atol=1e-12)
    assert not torch.allclose(inside, outside, atol=1e-3)
