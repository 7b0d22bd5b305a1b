"""QPA's generator against a circuit and a map written out by hand, and the paper's counts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.lora import Lora
from baselines.qpa import WeightGenerator
from baselines.qpa.generator import FLOOR, feature
from baselines.qpa.method import Qpa
from baselines.quantum import PennyLaneBackend
from quanta_bench.models.meta import count, meta_model


def made(count: int, chunk: int, depth: int, seed: int = 0, **options: Any) -> WeightGenerator:
    generator = WeightGenerator(count, chunk, depth, **options)
    generator.reset(torch.Generator().manual_seed(seed))
    return generator


def state(angles: np.ndarray) -> np.ndarray:
    """Probabilities of RY and CNOT blocks, from matrices on the whole space."""
    depth, qubits = angles.shape
    vector = np.zeros(2**qubits)
    vector[0] = 1
    for block in range(depth):
        rotation = np.eye(1)
        for angle in angles[block]:
            c, s = math.cos(angle / 2), math.sin(angle / 2)
            rotation = np.kron(rotation, [[c, -s], [s, c]])
        vector = rotation @ vector
        for control in range(qubits - 1):
            moved = np.zeros_like(vector)
            for bits in itertools.product((0, 1), repeat=qubits):
                after = list(bits)
                after[control + 1] ^= bits[control]
                moved[_index(after)] = vector[_index(bits)]
            vector = moved
    return vector**2


def _index(bits: Any) -> int:
    return int("".join(map(str, bits)), 2)


@pytest.mark.parametrize(("size", "chunk", "depth", "qubits"), [(100, 9, 3, 4), (40, 8, 2, 3)])
def test_weights_are_the_formula_written_out(
    size: int, chunk: int, depth: int, qubits: int
) -> None:
    generator = made(size, chunk, depth)
    assert generator.qubits == qubits
    p = state(generator.angles.detach().double().numpy()[..., 0])
    v = (0.60 * np.tanh(0.1 * 2 ** (qubits - 1) * p)) ** 0.15
    v = v - v.mean()
    weights: list[float] = []
    for index in range(math.ceil(size / chunk)):
        bits = [2 * int(bit) - 1 for bit in f"{index:0{qubits}b}"]
        x = np.array([*bits, v[index]])
        for layer in generator.mapping:
            assert isinstance(layer, nn.Linear)
            x = layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()
        weights.extend(x)
    expected = torch.tensor(weights[:size])
    expected = expected - expected.mean()
    torch.testing.assert_close(generator(), expected.float(), rtol=1e-4, atol=1e-5)


def test_circuit_is_pennylanes() -> None:
    pytest.importorskip("pennylane")
    backend = PennyLaneBackend("default.qubit")
    torch.testing.assert_close(
        made(300, 20, 3)(), made(300, 20, 3, backend=backend)(), rtol=1e-4, atol=1e-6
    )


def test_two_passes_are_equal() -> None:
    generator = made(1000, 30, 4)
    before = torch.get_rng_state()
    assert torch.equal(generator(), generator())
    assert torch.equal(before, torch.get_rng_state())
    assert generator().mean().abs() < 1e-7


@given(size=st.integers(2, 5000), chunk=st.integers(1, 700), depth=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_count_of_parameters(size: int, chunk: int, depth: int) -> None:
    generator = WeightGenerator(size, chunk, depth, device="meta")
    chunks = -(-size // chunk)
    n = generator.qubits
    assert n == 1 or 2 ** (n - 1) < chunks
    assert chunks <= 2**n
    found = sum(value.numel() for value in generator.parameters())
    assert found == 32 * (n + 1) + 32 + 38_336 + 33 * chunk + n * depth
    assert generator().shape == (size,)


@pytest.mark.parametrize(
    ("model", "chunk", "depth", "of_lora", "generated", "share"),
    [
        ("gpt2", 2048, 8, 204_100, 106_264, "52.06"),
        ("gemma2-2b", 4096, 8, 1_033_216, 173_888, "16.83"),
        ("gemma2-2b", 4096, 15, 1_033_216, 173_944, "16.84"),
        ("gemma2-2b", 4096, 27, 1_033_216, 174_040, "16.84"),
    ],
)
def test_counts_of_the_paper(
    model: str, chunk: int, depth: int, of_lora: int, generated: int, share: str
) -> None:
    inner = {"r": 4, "target_modules": ("lm_head",)}
    qpa = Qpa.from_settings({"settings": inner, "chunk": chunk, "depth": depth})
    found = count(meta_model(model), qpa).trainable
    assert count(meta_model(model), Lora.from_settings(inner)).trainable == of_lora
    assert found == generated
    assert f"{100 * found / of_lora:.2f}" == share


def test_feature_has_finite_slopes_where_probabilities_vanish() -> None:
    p = torch.tensor([0.0, 1e-30, FLOOR / 16, FLOOR / 8 * 1.01, 1e-3, 0.2, 0.5, 1.0])
    p.requires_grad_(True)
    value = feature(p)
    exact = (0.60 * torch.tanh(0.1 * 4 * p.detach().double())) ** 0.15
    torch.testing.assert_close(value.detach().double(), exact, rtol=1e-5, atol=1e-7)
    value.sum().backward()
    assert p.grad is not None
    assert torch.isfinite(p.grad).all()
    assert p.grad[:3].tolist() == [0, 0, 0]
    assert 8 * 9e3 < p.grad[3] < 8 * 11.5e3
    # Above, it is the derivative: against a central difference in double precision.
    wide = p.detach().double()[4:].requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda x: feature(torch.cat((p.detach().double()[:4], x))), wide
    )


@pytest.mark.parametrize("angle", [0.0, math.pi, 1e-20])
def test_gradients_are_finite_at_basis_states(angle: float) -> None:
    generator = made(200, 10, 3)
    with torch.no_grad():
        generator.angles.fill_(angle)  # all probability in one state, 0 in the others
    generator().square().sum().backward()
    assert generator.angles.grad is not None
    for value in generator.parameters():
        assert value.grad is not None
        assert torch.isfinite(value.grad).all()


def test_gradients_are_the_slopes() -> None:
    generator = made(60, 5, 2).double()
    mix = torch.linspace(-1, 1, 60, dtype=torch.float64)
    (generator() @ mix).backward()
    for value in (generator.angles, *generator.mapping[0].parameters()):
        assert value.grad is not None
        flat, slopes = value.detach().view(-1), value.grad.view(-1)
        for index in range(0, len(flat), 7):
            ends = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    flat[index] += step
                    ends.append(float(generator() @ mix))
                    flat[index] -= step
            found = (ends[0] - ends[1]) / 2e-6
            assert math.isclose(found, float(slopes[index]), rel_tol=1e-4, abs_tol=1e-7)


def test_autocast_does_not_reach_it() -> None:
    generator = made(100, 10, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = generator()
    assert torch.equal(found, generator())


def test_start_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = made(100, 10, 2), made(100, 10, 2), made(100, 10, 2, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first(), second())
    assert not torch.equal(first(), other())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 10, 2), "count=1 is below 2"),
        ((10, 0, 2), "chunk=0 is below 1"),
        ((10, 5, 0), "depth=0 is below 1"),
        ((2**26, 1, 2), r"chunk=1 cuts 67,108,864 weights into 67,108,864 chunks: qubits=26"),
    ],
)
def test_bad_sizes(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightGenerator(*arguments)
