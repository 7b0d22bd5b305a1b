"""Quantum networks against PennyLane's circuits, and PennyLane's devices as backends."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.quantum import PennyLaneBackend, QuantumNetwork, backend_from

qml = pytest.importorskip("pennylane")
TURNS = {"rx": qml.RX, "ry": qml.RY, "rz": qml.RZ}
WHOLE = {"qubits": 3, "depth": 2, "rotations": ("rz", "ry"), "entangler": "ring"}


@pytest.fixture(autouse=True)
def _numpy_seeded() -> Iterator[None]:
    before = np.random.get_state()
    yield
    np.random.set_state(before)


def values(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 2).requires_grad_()


def reference(network: QuantumNetwork, angles: Tensor, encoded: Tensor | None) -> tuple[Any, Any]:
    """Probabilities and <Z> of one input from PennyLane, in float64."""
    ansatz = network.ansatz

    @qml.qnode(qml.device("default.qubit", wires=ansatz.qubits, seed=0), interface="torch")
    def circuit() -> Any:
        if encoded is not None:
            rotation = {"ry": "Y", "rx": "X"}[ansatz.encoding]
            qml.AngleEmbedding(encoded, wires=range(ansatz.qubits), rotation=rotation)
        for block in angles:
            for wire, turns in enumerate(block):
                for name, angle in zip(ansatz.rotations, turns, strict=True):
                    TURNS[name](angle, wires=wire)
            if ansatz.entangler != "none":
                for wire in range(ansatz.qubits - 1):
                    qml.CNOT(wires=(wire, wire + 1))
                if ansatz.entangler == "ring" and ansatz.qubits > 2:
                    qml.CNOT(wires=(ansatz.qubits - 1, 0))
        return qml.probs(wires=range(ansatz.qubits)), *(
            qml.expval(qml.Z(wire)) for wire in range(ansatz.qubits)
        )

    probabilities, *expectations = circuit()
    return probabilities, torch.stack(expectations)


def gradients(outputs: Tensor, weights: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    if not outputs.requires_grad:
        return [torch.zeros_like(value) for value in inputs]
    return list(
        torch.autograd.grad(
            (outputs * weights).sum(), inputs, retain_graph=True, materialize_grads=True
        )
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(0, 3),
    st.lists(st.sampled_from(["rx", "ry", "rz"]), min_size=1, max_size=3),
    st.sampled_from(["chain", "ring", "none"]),
    st.sampled_from(["ry", "rx"]),
    st.sampled_from([((), None), ((), ()), ((), (2,)), ((2,), (2,)), ((2,), (1,))]),
    st.integers(0, 1000),
)
def test_engine_is_pennylane(
    qubits: int,
    depth: int,
    rotations: list[str],
    entangler: str,
    encoding: str,
    leads: tuple[tuple[int, ...], tuple[int, ...] | None],
    seed: int,
) -> None:
    network = QuantumNetwork(qubits, depth, rotations, entangler, encoding=encoding)
    angles = values((*leads[0], *network.shape), seed)
    encoded = None if leads[1] is None else values((*leads[1], qubits), seed + 1)
    inputs = [angles] if encoded is None else [angles, encoded]
    batch = torch.broadcast_shapes(leads[0], leads[1] or ())
    all_angles = angles.expand(*batch, *network.shape).reshape(batch.numel(), *network.shape)
    all_encoded = None if encoded is None else encoded.expand(*batch, qubits).reshape(-1, qubits)
    pairs = [
        reference(network, one, None if all_encoded is None else all_encoded[index])
        for index, one in enumerate(all_angles)
    ]
    for index, found in enumerate(
        (network.probabilities(angles, encoded), network.expectations(angles, encoded))
    ):
        expected = torch.stack([pair[index] for pair in pairs]).reshape(found.shape)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        weights = values(tuple(found.shape), seed + 2).detach()
        torch.testing.assert_close(
            gradients(found, weights, inputs),
            gradients(expected, weights, inputs),
            rtol=0,
            atol=1e-10,
        )


# default.mixed starts from a state in single precision.
@pytest.mark.parametrize(
    ("device", "error"),
    [("default.qubit", 1e-10), ("lightning.qubit", 1e-10), ("default.mixed", 1e-6)],
)
@pytest.mark.parametrize(
    "leads", [((), None), ((2,), None), ((), (3,)), ((2, 1), (3,)), ((0,), ())], ids=str
)
def test_devices_give_what_the_engine_gives(device: str, error: float, leads: Any) -> None:
    engine = QuantumNetwork(**WHOLE)
    network = QuantumNetwork(**WHOLE, backend=backend_from(f"pennylane:{device}"))
    angles = values((*leads[0], *network.shape), 0)
    encoded = None if leads[1] is None else values((*leads[1], 3), 1)
    inputs = [angles] if encoded is None else [angles, encoded]
    found, expected = network.expectations(angles, encoded), engine.expectations(angles, encoded)
    torch.testing.assert_close(found, expected, rtol=0, atol=error)
    weights = values(tuple(found.shape), 2).detach()
    torch.testing.assert_close(
        gradients(found, weights, inputs), gradients(expected, weights, inputs), rtol=0, atol=error
    )


def test_depth_0_with_batched_angles() -> None:
    network = QuantumNetwork(2, 0, backend=PennyLaneBackend("default.qubit"))
    found = network.probabilities(torch.zeros(5, *network.shape))
    torch.testing.assert_close(found, torch.eye(4)[0].expand(5, 4))


def test_float32_in_float32_out() -> None:
    network = QuantumNetwork(**WHOLE, backend=PennyLaneBackend("default.qubit"))
    assert network.expectations(values(network.shape, 0).float()).dtype is torch.float32


def test_shots_estimate_within_their_error() -> None:
    engine, shots = QuantumNetwork(**WHOLE), 4000
    network = QuantumNetwork(**WHOLE, backend=backend_from("pennylane:default.qubit", shots, 7))
    angles, encoded = values(network.shape, 0), values((2, 3), 1)
    exact = engine.probabilities(angles, encoded)
    found = network.probabilities(angles, encoded)
    assert found.shape == (2, 8)
    error = (exact * (1 - exact) / shots).sqrt()
    assert ((found - exact).abs() <= 5 * error + 1e-12).all()
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found * shots, (found * shots).round(), rtol=0, atol=1e-9)
    # The rule's shifted values are averages too: half the difference of two, in [-1, 1] each.
    estimates = network.expectations(angles, encoded)
    weights = torch.ones_like(estimates)
    for one, other in zip(
        gradients(estimates, weights, [angles, encoded]),
        gradients(engine.expectations(angles, encoded), weights, [angles, encoded]),
        strict=True,
    ):
        # A gradient is a sum over at most 2 inputs of 3 values, each of deviation <= 1/sqrt(2 N).
        assert ((one - other).abs() <= 5 * 6 / (2 * shots) ** 0.5).all()
        assert not torch.equal(one, other)


def test_shots_depend_on_the_seed_alone() -> None:
    def sample(seed: int) -> Tensor:
        network = QuantumNetwork(**WHOLE, backend=PennyLaneBackend("default.qubit", 50, seed=seed))
        return network.probabilities(values(network.shape, 0))

    np.random.seed(1)
    state = np.random.get_state()[1].tolist()
    first = sample(3)
    assert np.random.get_state()[1].tolist() == state
    np.random.seed(2)
    assert torch.equal(first, sample(3))
    assert not torch.equal(first, sample(4))


def test_copies_and_pickles_compute_the_same() -> None:
    network = QuantumNetwork(**WHOLE, backend=PennyLaneBackend("default.qubit"))
    angles = values(network.shape, 0).detach()
    expected = network.probabilities(angles)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        torch.testing.assert_close(other.probabilities(angles), expected)
    assert repr(network.backend) == "PennyLaneBackend('default.qubit', None, seed=0)"


def test_bad_devices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no device 'default.qbit'; .*default.qubit"):
        backend_from("pennylane:default.qbit")
    for shots in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"shots={shots}"):
            backend_from("pennylane:default.qubit", shots)  # type: ignore[arg-type]
