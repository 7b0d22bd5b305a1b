"""Quantum networks on the engine, against gates applied one by one and against formulas."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.quanta import Circuit, Gate
from baselines.quantum import EngineBackend, QuantumNetwork, backend_from
from baselines.quantum.engine import state

PAULI = {
    "rx": torch.tensor([[0, 1], [1, 0]], dtype=torch.complex128),
    "ry": torch.tensor([[0, -1j], [1j, 0]], dtype=torch.complex128),
    "rz": torch.tensor([[1, 0], [0, -1]], dtype=torch.complex128),
}
CNOT = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]).reshape(2, 2, 2, 2)
LEADS: list[tuple[tuple[int, ...], tuple[int, ...] | None]] = [
    ((), None),
    ((3,), None),
    ((), (2, 3)),
    ((), (40,)),
    ((3,), (2, 1)),
    ((2, 1), (3,)),
    ((0,), ()),
]


def values(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype) * 2


def gate_by_gate(network: QuantumNetwork, angles: Tensor, encoded: Tensor | None) -> Tensor:
    """Amplitudes of one input: each rotation a gate, each CNOT a fixed gate."""
    ansatz = network.ansatz
    gates, tensors = [], []

    def turn(name: str, qubit: int, angle: Tensor) -> None:
        gates.append(Gate((qubit,), given=True))
        # exp(-i a P / 2), for the square of P is the identity
        identity = torch.eye(2, dtype=torch.complex128)
        tensors.append(torch.cos(angle / 2) * identity - 1j * torch.sin(angle / 2) * PAULI[name])

    if encoded is not None:
        for qubit in range(ansatz.qubits):
            turn(ansatz.encoding, qubit, encoded[qubit])
    pairs = [(i, i + 1) for i in range(ansatz.qubits - 1)]
    if ansatz.entangler == "ring" and ansatz.qubits > 2:
        pairs.append((ansatz.qubits - 1, 0))
    for block in range(ansatz.depth):
        for qubit in range(ansatz.qubits):
            for index, name in enumerate(ansatz.rotations):
                turn(name, qubit, angles[block, qubit, index])
        if ansatz.entangler != "none":
            gates += [Gate(pair, value=CNOT) for pair in pairs]
    start = torch.eye(2**ansatz.qubits, dtype=torch.complex128)[0]
    return Circuit((2,) * ansatz.qubits, gates).apply(start, tensors)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(0, 3),
    st.lists(st.sampled_from(["rx", "ry", "rz"]), min_size=1, max_size=3),
    st.sampled_from(["chain", "ring", "none"]),
    st.sampled_from(["ry", "rx"]),
    st.sampled_from(LEADS),
    st.integers(0, 1000),
)
def test_merged_gates_are_the_circuit_of_single_ones(
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
    found = network.probabilities(angles, encoded)
    batch = torch.broadcast_shapes(leads[0], leads[1] or ())
    assert found.shape == (*batch, 2**qubits)
    assert found.dtype is torch.float64
    # The last input only, and the first: the oracle is slow.
    for position in (0, -1) if batch.numel() else ():
        one_angles = angles.expand(*batch, *network.shape).reshape(batch.numel(), *network.shape)[
            position
        ]
        one = None if encoded is None else encoded.expand(*batch, qubits).reshape(-1, qubits)
        amplitudes = gate_by_gate(network, one_angles, None if one is None else one[position])
        expected = amplitudes.abs().square()
        torch.testing.assert_close(
            found.reshape(-1, 2**qubits)[position], expected, rtol=0, atol=1e-12
        )
    torch.testing.assert_close(found.sum(-1), torch.ones(batch, dtype=torch.float64))


def test_many_inputs_give_what_each_gives_alone() -> None:
    network = QuantumNetwork(3, 2, ("rz", "ry"), "ring")
    angles, encoded = values(network.shape, 0), values((5, 7, 3), 1)
    together = network.expectations(angles, encoded)
    alone = [network.expectations(angles, one) for one in encoded.reshape(-1, 3)]
    torch.testing.assert_close(together.reshape(-1, 3), torch.stack(alone), rtol=0, atol=1e-12)


def test_qubit_0_is_the_most_significant_bit() -> None:
    network = QuantumNetwork(3, 1, entangler="none")
    angles = torch.zeros(network.shape)
    encoded = torch.tensor([math.pi, 0.0, 0.0])
    for found in (
        network.probabilities(angles, encoded),
        network.probabilities(encoded.reshape(network.shape)),
    ):
        torch.testing.assert_close(found, torch.eye(8)[4])
    torch.testing.assert_close(
        network.expectations(angles, encoded), torch.tensor([-1.0, 1.0, 1.0])
    )


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_two_qubits_by_hand(first: float, second: float) -> None:
    # After RY(a), RY(b) and a CNOT, <Z0> = cos a and <Z1> = cos a cos b.
    angles = torch.tensor([[[first], [second]]], dtype=torch.float64)
    found = QuantumNetwork(2, 1).expectations(angles)
    expected = torch.tensor([math.cos(first), math.cos(first) * math.cos(second)])
    torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rotations", [("ry",), ("rz", "rx")])
@pytest.mark.parametrize("inputs", [2, 5])  # gate by gate, and multiplied out
def test_gradients_are_those_of_finite_differences(rotations: tuple[str, ...], inputs: int) -> None:
    network = QuantumNetwork(2, 2, rotations)
    angles = values(network.shape, 0).requires_grad_()
    encoded = values((inputs, 2), 1).requires_grad_()
    assert torch.autograd.gradcheck(network.expectations, (angles, encoded))
    assert torch.autograd.gradcheck(network.probabilities, (angles, encoded))


@pytest.mark.parametrize(
    ("rotations", "encoding", "real"),
    [
        (("ry",), "ry", True),
        (("ry", "ry"), "ry", True),
        (("ry",), "rx", False),
        (("rz",), "ry", False),
    ],
)
def test_rotations_about_y_stay_real(rotations: tuple[str, ...], encoding: str, real: bool) -> None:
    network = QuantumNetwork(3, 2, rotations, encoding=encoding)
    amplitudes = state(network.ansatz, values(network.shape, 0), values((9, 3), 1))
    assert amplitudes.is_complex() is not real


@pytest.mark.parametrize("rotations", [("ry",), ("rz", "ry")])
def test_half_precision_and_autocast_compute_in_float32(rotations: tuple[str, ...]) -> None:
    network = QuantumNetwork(3, 2, rotations)
    angles, encoded = values(network.shape, 0, torch.float32), values((20, 3), 1).bfloat16()
    expected = network.expectations(angles.double(), encoded.double())
    with torch.autocast("cpu", torch.bfloat16):
        under = network.expectations(angles, encoded)
    for found in (under, network.expectations(angles, encoded)):
        assert found.dtype is torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert network.expectations(angles.half()).dtype is torch.float32
    assert network.expectations(angles, encoded.double()).dtype is torch.float64


def test_meta_device_gives_shapes() -> None:
    network = QuantumNetwork(4, 2)
    angles = torch.empty(network.shape, device="meta")
    encoded = torch.empty(2, 7, 4, device="meta")
    assert network.expectations(angles, encoded).shape == (2, 7, 4)
    assert network.probabilities(angles, encoded).shape == (2, 7, 16)
    assert network.probabilities(angles).is_meta


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"qubits": 0}, "qubits=0"),
        ({"qubits": 25}, "qubits=25"),
        ({"qubits": True}, "qubits=True"),
        ({"depth": -1}, "depth=-1"),
        ({"rotations": ()}, "rotations"),
        ({"rotations": ("ry", "rw")}, "rw.*one or more of rx, ry, rz"),
        ({"entangler": "star"}, "entangler='star'.*chain, ring, none"),
        ({"encoding": "rz"}, "encoding='rz'.*about z"),
    ],
)
def test_bad_networks_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        QuantumNetwork(**{"qubits": 2, "depth": 1, **arguments})


@pytest.mark.parametrize(
    ("angles", "encoded", "words"),
    [
        ((2, 3), None, r"angles has shape \(2, 3\), expected \(..., 1, 2, 1\)"),
        ((2, 1, 1), None, "angles has shape"),
        ((1, 2, 1), (3,), r"encoded has shape \(3,\), expected \(..., 2\)"),
        ((4, 1, 2, 1), (3, 2), "do not broadcast"),
    ],
)
def test_wrong_shapes_are_refused(
    angles: tuple[int, ...], encoded: tuple[int, ...] | None, words: str
) -> None:
    network = QuantumNetwork(2, 1)
    with pytest.raises(ValueError, match=words):
        network.expectations(torch.zeros(angles), None if encoded is None else torch.zeros(encoded))


def test_integers_are_refused() -> None:
    network = QuantumNetwork(2, 1)
    with pytest.raises(ValueError, match=r"angles has dtype torch.int64"):
        network.probabilities(torch.zeros(network.shape, dtype=torch.int64))


def test_backend_by_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(backend_from("engine"), EngineBackend)
    with pytest.raises(ValueError, match="shots=100: the backend 'engine' is exact"):
        backend_from("engine", shots=100)
    for words in ("engin", "pennylane", "pennylane:", "qiskit:aer"):
        with pytest.raises(ValueError, match=f"backend='{words}' is neither"):
            backend_from(words)
    monkeypatch.setitem(sys.modules, "pennylane", None)
    with pytest.raises(ValueError, match=r"pip install 'quanta-bench\[quantum\]'"):
        backend_from("pennylane:default.qubit")


def test_repr_copy_and_pickle() -> None:
    network = QuantumNetwork(2, 1, ("rz", "ry"), "ring", encoding="rx")
    same = eval(repr(network), {**globals()})
    assert same.ansatz == network.ansatz
    angles = values(network.shape, 0)
    for other in (same, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other.probabilities(angles), network.probabilities(angles))
