"""Quantum networks on the circuit engine: qubits are axes of size 2.

Exact, batched and differentiated by autograd. Rotations about y alone keep all amplitudes real.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from baselines.quanta import Circuit, Gate
from baselines.quantum.ansatz import Ansatz
from baselines.quantum.backend import Backend

LARGE_PRODUCT = 8  # speed of a multiply-add in a large product, relative to that in a gate


class EngineBackend(Backend):
    """The circuit engine, which computes exact probabilities in the dtype of the angles."""

    def probabilities(self, ansatz: Ansatz, angles: Tensor, encoded: Tensor | None) -> Tensor:
        """Probabilities of the basis states, shape ``(..., 2**qubits)``."""
        amplitudes = state(ansatz, angles, encoded)
        if amplitudes.is_complex():
            return amplitudes.real.square() + amplitudes.imag.square()
        return amplitudes.square()

    def __repr__(self) -> str:
        return "EngineBackend()"


def state(ansatz: Ansatz, angles: Tensor, encoded: Tensor | None) -> Tensor:
    """Amplitudes of the basis states after the last block.

    Args:
        ansatz: The network.
        angles: Shape ``(..., depth, qubits, rotations)``, float32 or float64.
        encoded: Shape ``(..., qubits)``, of the same dtype; ``None`` starts from |0...0>.

    Returns:
        Shape ``(..., 2**qubits)``, real if all rotations are about y, otherwise complex.
    """
    start = _start(ansatz, angles, encoded)
    if not ansatz.depth:
        return start
    circuit = _circuit(ansatz)
    gates = _gates(ansatz, angles)
    shared = angles.dim() == len(ansatz.shape)
    if not shared or not _matrix_is_faster(circuit, math.prod(start.shape[:-1])):
        return circuit.apply(start, gates)
    matrix = circuit.matrix(gates)
    dtype = torch.promote_types(start.dtype, matrix.dtype)
    return start.to(dtype) @ matrix.mT.to(dtype)


def _matrix_is_faster(circuit: Circuit, vectors: int) -> bool:
    """Whether to multiply out the gates, if all vectors share them, into one matrix."""
    by_gate = vectors * circuit.multiply_adds()
    build = circuit.in_features * circuit.multiply_adds()
    return build + vectors * circuit.in_features**2 / LARGE_PRODUCT < by_gate


def rotation(name: str, angle: Tensor) -> Tensor:
    """The 2 x 2 matrix exp(-i angle P / 2) of a rotation, P the Pauli matrix of its axis.

    Args:
        name: ``"rx"``, ``"ry"`` or ``"rz"``.
        angle: In radians, shape ``(...)``.

    Returns:
        Shape ``(..., 2, 2)``; real for ``"ry"``, else complex.
    """
    cos, sin = torch.cos(angle / 2), torch.sin(angle / 2)
    if name == "ry":
        rows = cos, -sin, sin, cos
    elif name == "rx":
        zero = torch.zeros_like(cos)
        diagonal, other = torch.complex(cos, zero), torch.complex(zero, -sin)
        rows = diagonal, other, other, diagonal
    else:
        phase = torch.complex(cos, -sin)
        zero = torch.zeros_like(phase)
        rows = phase, zero, zero, phase.conj()
    return torch.stack(rows, dim=-1).reshape(*angle.shape, 2, 2)


def _start(ansatz: Ansatz, angles: Tensor, encoded: Tensor | None) -> Tensor:
    """|0...0>, or the product state that encodes an input: shape ``(..., 2**qubits)``."""
    if encoded is None:
        start = angles.new_zeros(2**ansatz.qubits)
        start[0] = 1
        return start
    columns = rotation(ansatz.encoding, encoded)[..., 0]
    product = columns[..., -1, :]
    # Last qubit first, so that the longest axis stays last in memory.
    for qubit in reversed(range(ansatz.qubits - 1)):
        product = (columns[..., qubit, :, None] * product[..., None, :]).flatten(-2)
    return product


@cache
def _circuit(ansatz: Ansatz) -> Circuit:
    """The blocks as a circuit with given gates; see `_gates`."""
    axes = ansatz.cnots or [(qubit,) for qubit in range(ansatz.qubits)]
    return Circuit((2,) * ansatz.qubits, [Gate(pair, given=True) for pair in axes] * ansatz.depth)


def _gates(ansatz: Ansatz, angles: Tensor) -> list[Tensor]:
    """Gate tensors of `_circuit`, in its order.

    A block's rotations on one qubit are fused into one matrix, which the first CNOT on that qubit
    absorbs: a chain block of n qubits is n - 1 gates rather than n (rotations + 1) - 1.
    """
    matrix = rotation(ansatz.rotations[0], angles[..., 0])
    for index, name in enumerate(ansatz.rotations[1:], start=1):
        after = rotation(name, angles[..., index])
        dtype = torch.promote_types(after.dtype, matrix.dtype)
        matrix = after.to(dtype) @ matrix.to(dtype)
    # `matrix` is (..., depth, qubits, 2, 2).
    if ansatz.cnots:
        matrix = _with_cnots(ansatz, matrix)
    indices = 4 if ansatz.cnots else 2
    return list(matrix.flatten(-indices - 2, -indices - 1).unbind(-indices - 1))


def _with_cnots(ansatz: Ansatz, rotations: Tensor) -> Tensor:
    """CNOTs with the rotations they absorb: ``(..., depth, cnots, 2, 2, 2, 2)``."""
    identity = torch.eye(2, dtype=rotations.dtype, device=rotations.device)
    identity = identity.expand_as(rotations[..., 0, :, :])
    absorbed: set[int] = set()
    pairs: tuple[list[Tensor], list[Tensor]] = ([], [])
    for cnot in ansatz.cnots:
        for qubit, side in zip(cnot, pairs, strict=True):
            side.append(identity if qubit in absorbed else rotations[..., qubit, :, :])
            absorbed.add(qubit)
    control, target = (torch.stack(side, dim=-3) for side in pairs)
    both = torch.einsum("...ab,...cd->...acbd", control, target)
    # If the control is 1, the target is flipped.
    return torch.cat((both[..., :1, :, :, :], both[..., 1:, :, :, :].flip(-3)), dim=-4)
