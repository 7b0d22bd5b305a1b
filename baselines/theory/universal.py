"""A given matrix as a circuit of two-axis gates: Theorem 6.1 of the QuanTA paper, constructively.

The paper argues by singular values: W = U S V^T, both orthogonal factors are circuits, and so is
the diagonal one. Here the cosine-sine decomposition (`scipy.linalg.cossin`) splits U and V
into rotations of one qubit that the other qubits select (Moettoenen et al. 2004,
arXiv:quant-ph/0404089), and S by the logarithms of its entries. A selected rotation of which all
selecting qubits lie on the gate's two axes is one gate; each selecting qubit beyond them doubles
it, with two controlled negations. All gates are real.

With three or more axes of even size, the limits of the construction are those of all circuits:

- A gate acts on d / (d_m d_n) copies, so a singular gate lowers the rank by at least that much
  (Theorem 6.2). A singular matrix of a higher rank is only a limit of circuits; its zero singular
  values are replaced by `FLOOR` times the largest.
- By the same count, which is even, the determinant of a real circuit is not negative. A matrix of
  negative determinant needs a complex gate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cossin
from torch import Tensor

from baselines.quanta.circuit import Circuit
from baselines.quanta.gate import Gate

Array: TypeAlias = NDArray[Any]

FLOOR = 1e-12
"""Bound to which smaller singular values are raised, relative to the largest."""

NEGATION = np.array([[0.0, 1.0], [1.0, 0.0]])


@dataclass(frozen=True)
class Decomposition:
    """A circuit and its gates.

    Attributes:
        circuit: on the axes asked for; every gate acts on two of them.
        gates: a tensor for each gate, float64 or complex128.
        real: whether all of them are real.
        exact: whether the circuit is the matrix but for rounding, or its singular values were
            raised to `FLOOR`.
    """

    circuit: Circuit
    gates: tuple[Tensor, ...]
    real: bool
    exact: bool


def decompose(matrix: Array, dims: Sequence[int]) -> Decomposition:
    """Write a square real matrix as a circuit of two-axis gates.

    Args:
        matrix: Shape ``(d, d)``, real and finite.
        dims: Sizes of the axes, two or more, powers of 2 (at least 2) whose product is d.

    Raises:
        ValueError: A matrix or sizes that are not such.
    """
    dims = tuple(dims)
    if len(dims) < 2 or any(size < 2 or size & (size - 1) for size in dims):
        raise ValueError(f"decompose: dims={dims}; give two or more powers of 2, each at least 2")
    width = math.prod(dims)
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (width, width) or not np.isfinite(matrix).all():
        raise ValueError(
            f"decompose: a matrix of shape {matrix.shape} with dims={dims}; it has to be finite "
            f"and {width} x {width}"
        )
    if len(dims) == 2 or not matrix.any():
        return _packed(dims, [((0, 1), matrix[: dims[0] * dims[1], : dims[0] * dims[1]])], True)
    left, values, right = np.linalg.svd(matrix)
    exact = bool(values[-1] >= FLOOR * values[0])
    values = np.maximum(values, FLOOR * values[0])
    before, after = _rotations(right.T), _rotations(left)
    middle = after.signs * values * before.signs
    if not exact and np.signbit(middle).sum() % 2:
        middle[-1] = -middle[-1]  # next to nothing, and a real circuit then does
    builder = _Builder(dims)
    for rotation in reversed(before.rotations):
        builder.select(_rotation, -rotation.angles, rotation.target)
    for rotation in _sign_flips(np.signbit(middle)):
        builder.select(_rotation, rotation.angles, rotation.target)
    logarithms = np.log(np.abs(middle)).astype(complex)
    if np.signbit(middle).sum() % 2:
        logarithms[_gray(len(middle))[-1]] += 1j * math.pi
    builder.scale(logarithms if logarithms.imag.any() else logarithms.real)
    for rotation in after.rotations:
        builder.select(_rotation, rotation.angles, rotation.target)
    return _packed(dims, builder.gates, exact)


def _packed(
    dims: tuple[int, ...], gates: Sequence[tuple[tuple[int, int], Array]], exact: bool
) -> Decomposition:
    tensors = []
    for (m, n), matrix in gates:
        sizes = (dims[m], dims[n])
        tensors.append(torch.from_numpy(np.ascontiguousarray(matrix)).reshape(*sizes, *sizes))
    circuit = Circuit(dims, [Gate(axes) for axes, _ in gates])
    return Decomposition(circuit, tuple(tensors), not any(map(torch.is_complex, tensors)), exact)


@dataclass(frozen=True)
class _Selected:
    """A rotation of one qubit by an angle that all other qubits select.

    Attributes:
        target: the qubit, the first one of the index's highest bit.
        angles: shape ``(2,) * (qubits - 1)``, by the other qubits in order.
    """

    target: int
    angles: Array


@dataclass(frozen=True)
class _Factors:
    """An orthogonal matrix: signs first, then rotations in the order in which they act."""

    rotations: list[_Selected]
    signs: Array


def _rotations(orthogonal: Array) -> _Factors:
    """An orthogonal matrix of size 2^M as 2^M - 1 selected rotations after a diagonal of signs."""
    qubits = len(orthogonal).bit_length() - 1
    sequence, signs = _halved([orthogonal], qubits)
    return _Factors(sequence, signs)


def _halved(blocks: list[Array], qubits: int) -> tuple[list[_Selected], Array]:
    """A block-diagonal orthogonal matrix, by a cosine-sine decomposition of every block."""
    if len(blocks[0]) == 1:
        return [], np.array([block[0, 0] for block in blocks])
    half = len(blocks[0]) // 2
    lefts: list[Array] = []
    rights: list[Array] = []
    angles = []
    for block in blocks:
        (u1, u2), theta, (v1, v2) = cossin(block, p=half, q=half, separate=True)
        lefts += [u1, u2]
        rights += [v1, v2]
        angles.append(theta)
    target = len(blocks).bit_length() - 1
    rotation = _Selected(target, np.reshape(angles, (2,) * (qubits - 1)))
    left, signs = _halved(lefts, qubits)
    right, right_signs = _halved(rights, qubits)
    # The left factor's signs act between the rotations; they are moved to the front.
    moved = []
    for one in (*right, rotation):
        halves = np.moveaxis(signs.reshape((2,) * qubits), one.target, 0)
        moved.append(_Selected(one.target, one.angles * halves[0] * halves[1]))
        # Passing a rotation, the signs stay; the rotation turns the other way where they differ.
    return moved + left, signs * right_signs


def _sign_flips(negative: Array) -> Iterator[_Selected]:
    """Rotations by pi that make an even number of negative signs; of an odd one, all but the last.

    A rotation by pi negates two neighbours, which differ in one bit. Along the Gray code each
    negative sign is passed on until it meets another one.
    """
    qubits = len(negative).bit_length() - 1
    flips = np.zeros((qubits, *(2,) * (qubits - 1)))
    carried = False
    order = _gray(len(negative))
    for place, following in itertools.pairwise(order):
        carried ^= bool(negative[place])
        if carried:
            target = qubits - (place ^ following).bit_length()
            bits = [(place >> (qubits - 1 - qubit)) & 1 for qubit in range(qubits)]
            del bits[target]
            flips[(target, *bits)] = math.pi
    return (_Selected(target, angles) for target, angles in enumerate(flips) if angles.any())


def _gray(count: int) -> list[int]:
    return [number ^ (number >> 1) for number in range(count)]


def _rotation(angles: Array) -> Array:
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.moveaxis(np.array([[cosine, -sine], [sine, cosine]]), (0, 1), (-2, -1))


def _scaling(logarithms: Array) -> Array:
    zero = np.zeros_like(logarithms)
    scales = np.array([[np.exp(logarithms), zero], [zero, np.exp(-logarithms)]])
    return np.moveaxis(scales, (0, 1), (-2, -1))


@dataclass
class _Builder:
    """Gates on pairs of axes, in the order in which they act; neighbours on one pair are merged."""

    dims: tuple[int, ...]
    gates: list[tuple[tuple[int, int], Array]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.axis_of = [
            axis for axis, size in enumerate(self.dims) for _ in range(size.bit_length() - 1)
        ]

    def select(
        self, made: Callable[[Array], Array], angles: Array, target: int, factor: Any = 1.0
    ) -> None:
        """Add a map of one qubit by a parameter that all other qubits select.

        Args:
            made: from parameters to maps (..., 2, 2) that multiply where parameters add up, and
                whose inverse is what a negation on either side makes of them.
            angles: shape ``(2,) * (qubits - 1)``.
            target: the qubit.
            factor: of the whole.
        """
        own = self.axis_of[target]
        partner = max((axis for axis in range(len(self.dims)) if axis != own), key=self._size)
        others = [qubit for qubit in range(len(self.axis_of)) if qubit != target]
        self._select(made, angles, target, others, (own, partner), factor)

    def _select(
        self,
        made: Callable[[Array], Array],
        angles: Array,
        target: int,
        others: list[int],
        pair: tuple[int, int],
        factor: Any,
    ) -> None:
        beyond = [place for place, other in enumerate(others) if self.axis_of[other] not in pair]
        if not beyond:
            self._add(made(angles) * factor, target, others)
            return
        at = beyond[0]
        rest = others[:at] + others[at + 1 :]
        first, second = np.moveaxis(angles, at, 0)
        difference = (first - second) / 2
        if difference.any():
            self._negate(others[at], target)
            self._select(made, difference, target, rest, pair, 1.0)
            self._negate(others[at], target)
        self._select(made, (first + second) / 2, target, rest, pair, factor)

    def scale(self, logarithms: Array) -> None:
        """Add the diagonal matrix of these logarithms, one for each basis vector."""
        qubits = len(self.axis_of)
        rest = logarithms.reshape((2,) * qubits)
        for target in range(qubits):
            first, second = rest
            # The earlier qubits select nothing any more.
            angles = np.broadcast_to((first - second) / 2, (2,) * (qubits - 1))
            rest = (first + second) / 2
            self.select(_scaling, angles, target, np.exp(rest) if target == qubits - 1 else 1.0)

    def _negate(self, control: int, target: int) -> None:
        maps = np.stack([np.eye(2), NEGATION])
        pair = {self.axis_of[control], self.axis_of[target]}
        others = [q for q, axis in enumerate(self.axis_of) if axis in pair and q != target]
        shape = [2 if other == control else 1 for other in others]
        maps = np.broadcast_to(maps.reshape(*shape, 2, 2), (*(2,) * len(others), 2, 2))
        self._add(maps, target, others)

    def _add(self, maps: Array, target: int, others: list[int]) -> None:
        """Add maps (..., 2, 2) of a qubit, selected by all the other qubits of the two axes."""
        axes = sorted({self.axis_of[target], *(self.axis_of[other] for other in others)})
        m, n = axes
        size = self.dims[m] * self.dims[n]
        place = sum(other < target for other in others)
        matrix = np.zeros((*(2,) * len(others), 2, *(2,) * len(others), 2), dtype=maps.dtype)
        for selected in np.ndindex(*(2,) * len(others)):
            matrix[(*selected, slice(None), *selected, slice(None))] = maps[selected]
        count = len(others) + 1
        matrix = np.moveaxis(matrix, (count - 1, -1), (place, count + place)).reshape(size, size)
        if self.gates and self.gates[-1][0] == (m, n):
            matrix = matrix @ self.gates.pop()[1]
        self.gates.append(((m, n), matrix))

    def _size(self, axis: int) -> int:
        return self.dims[axis]


def product_of_gates(decomposition: Decomposition) -> Array:
    """The circuit's matrix as a product of tensor products, without the circuit engine."""
    dims = decomposition.circuit.sizes
    width = math.prod(dims)
    state: Array = np.eye(width).reshape(*dims, width)
    for gate, tensor in zip(decomposition.circuit.gates, decomposition.gates, strict=True):
        state = np.tensordot(tensor.numpy(), state, ((2, 3), gate.axes))
        state = np.moveaxis(state, (0, 1), gate.axes)
    return state.reshape(width, width)
