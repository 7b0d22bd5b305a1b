"""The circuit engine against dense products, the paper's einsums, and a quantum circuit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import opt_einsum
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.quanta import Circuit, Gate

few = settings(max_examples=25, deadline=None)


def random_gates(circuit: Circuit, seed: int = 0, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in circuit.gate_shapes]


def dense(circuit: Circuit, gates: list[Tensor]) -> np.ndarray:
    """The product of the gates, each embedded as a Kronecker product and permutations."""
    sizes = list(circuit.sizes)
    total = np.eye(math.prod(sizes))
    tensors = iter(gates)
    for gate in circuit.gates:
        tensor = gate.tensor() if gate.fixed else next(tensors)
        axes = [axis % len(sizes) for axis in gate.axes]
        after = list(sizes)
        for position, axis in enumerate(axes):
            after[axis] = tensor.shape[position]
        order = axes + [axis for axis in range(len(sizes)) if axis not in axes]
        fan_out = math.prod(tensor.shape[: len(axes)])
        matrix = tensor.reshape(fan_out, -1).numpy()
        rest = math.prod(sizes[axis] for axis in order[len(axes) :])
        embedded = np.kron(matrix, np.eye(rest))
        total = permutation(after, order).T @ embedded @ permutation(sizes, order) @ total
        sizes = after
    return total


def permutation(sizes: list[int], order: list[int]) -> np.ndarray:
    """The matrix that takes a vector over ``sizes`` to one with its axes in ``order``."""
    index = np.arange(math.prod(sizes)).reshape(sizes).transpose(order).reshape(-1)
    return np.eye(len(index))[index]


@st.composite
def circuits(draw: st.DrawFn) -> Circuit:
    count = draw(st.integers(2, 5))
    largest = {2: 5, 3: 4, 4: 3, 5: 3}[count]
    sizes = draw(st.lists(st.integers(1, largest), min_size=count, max_size=count))
    gates = []
    for _ in range(draw(st.integers(0, 6))):
        axes = draw(
            st.lists(st.integers(-count, count - 1), min_size=1, max_size=2).filter(
                lambda axes: len({axis % count for axis in axes}) == len(axes)
            )
        )
        out = draw(st.none() | st.tuples(*(st.integers(1, 4) for _ in axes)))
        gates.append(Gate(axes, out))
    return Circuit(sizes, gates)


@few
@given(circuits(), st.integers(0, 1000))
def test_random_circuit_is_the_product_of_its_embedded_gates(circuit: Circuit, seed: int):
    gates = random_gates(circuit, seed)
    expected = dense(circuit, gates)
    matrix = circuit.matrix(gates)
    assert matrix.shape == (circuit.out_features, circuit.in_features) == expected.shape
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(matrix.numpy(), expected, atol=1e-12 * scale)
    x = torch.randn(2, 3, circuit.in_features, dtype=torch.float64)
    result = circuit.apply(x, gates)
    assert result.shape == (2, 3, circuit.out_features)
    np.testing.assert_allclose(result.numpy(), x.numpy() @ expected.T, atol=1e-11 * scale)


@few
@given(st.lists(st.integers(2, 3), min_size=2, max_size=5), st.integers(0, 1000))
def test_all_pairs_circuit_is_the_product_of_its_embedded_gates(dims: list[int], seed: int):
    circuit = Circuit.all_pairs(dims)
    gates = random_gates(circuit, seed)
    expected = dense(circuit, gates)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(circuit.matrix(gates).numpy(), expected, atol=1e-12 * scale)


@few
@given(circuits(), st.integers(0, 1000))
def test_einsum_expression_computes_what_apply_does(circuit: Circuit, seed: int):
    gates = random_gates(circuit, seed)
    x = torch.randn(3, circuit.in_features, dtype=torch.float64)
    result = opt_einsum.contract(circuit.einsum_expression(), x.reshape(3, *circuit.sizes), *gates)
    expected = circuit.apply(x, gates)
    assert torch.allclose(result.reshape(3, -1), expected, rtol=1e-9, atol=1e-9)


@few
@given(circuits())
def test_repr_is_the_constructor_call(circuit: Circuit):
    assert eval(repr(circuit)) == circuit
    assert hash(eval(repr(circuit))) == hash(circuit)


def test_paper_equations_6_and_7():
    circuit = Circuit.all_pairs((4, 3, 2))
    t3, t2, t1 = gates = random_gates(circuit)  # applied first to last
    x = torch.randn(5, 24, dtype=torch.float64)
    einsum = torch.einsum("...abc,efbc,diaf,ghde->...ghi", x.reshape(5, 4, 3, 2), t3, t2, t1)
    assert torch.allclose(circuit.apply(x, gates), einsum.reshape(5, 24))
    full = torch.einsum("efbc,diaf,ghde->ghiabc", t3, t2, t1)
    assert torch.allclose(circuit.matrix(gates), full.reshape(24, 24))
    assert circuit.einsum_expression() == "...abc,efbc,diaf,ghde->...ghi"
    assert circuit.operator_expression() == "efbc,diaf,ghde->ghiabc"


def test_equation_6_summed_by_hand():
    """Eq. 6 with its sums written out, so that the order of indices is not taken from einsum."""
    circuit = Circuit.all_pairs((2, 2, 2))
    t3, t2, t1 = gates = random_gates(circuit)
    x = torch.randn(2, 2, 2, dtype=torch.float64)
    expected = torch.zeros(2, 2, 2, dtype=torch.float64)
    for i1, i2, i3, j1, j2, j3, k1, k2, k3 in itertools.product(range(2), repeat=9):
        expected[i1, i2, i3] += (
            t1[i1, i2, k1, k2] * t2[k1, i3, j1, k3] * t3[k2, k3, j2, j3] * x[j1, j2, j3]
        )
    assert torch.allclose(circuit.apply(x.reshape(8), gates), expected.reshape(8))


def appendix_g(axes: int) -> str:
    """The expression of App. G, written from its description: each gate renames two axes."""
    current = list(range(axes))
    terms = ["..." + "".join(map(opt_einsum.get_symbol, current))]
    for last, first in itertools.combinations(range(-1, -axes - 1, -1), 2):
        old = [current[first], current[last]]
        current[first] += axes
        current[last] += axes
        new = [current[first], current[last]]
        terms.append("".join(map(opt_einsum.get_symbol, new + old)))
    return ",".join(terms) + "->..." + "".join(map(opt_einsum.get_symbol, current))


@pytest.mark.parametrize("axes", [3, 4, 5, 8])
def test_appendix_g_expression(axes: int):
    circuit = Circuit.all_pairs((2,) * axes)
    assert circuit.einsum_expression() == appendix_g(axes)
    gates = random_gates(circuit)
    x = torch.randn(3, *circuit.sizes, dtype=torch.float64)
    expected = circuit.apply(x.reshape(3, -1), gates)
    # From 8 axes on torch.einsum runs out of letters, opt_einsum does not.
    contract = torch.einsum if axes < 8 else opt_einsum.contract
    assert torch.allclose(contract(appendix_g(axes), x, *gates).reshape(3, -1), expected)
    full = opt_einsum.contract(circuit.operator_expression(), *gates)
    assert torch.allclose(full.reshape(2**axes, -1), circuit.matrix(gates))


def test_two_axes_are_a_full_matrix():
    circuit = Circuit.all_pairs((4, 6))
    matrix = torch.randn(24, 24, dtype=torch.float64)
    assert torch.equal(circuit.matrix([matrix.reshape(4, 6, 4, 6)]), matrix)
    assert circuit.parameter_count() == 24 * 24


@pytest.mark.parametrize(
    ("dims", "count"),
    [
        ((16, 8, 8, 4), 43_008),
        ((16, 16, 16), 196_608),
        ((16, 16, 4, 4), 82_176),
        ((16, 16, 5, 4), 86_928),
        ((8, 6, 4, 4), 138_240 // 24),
    ],
)
def test_parameter_counts_of_the_paper(dims: tuple[int, ...], count: int):
    circuit = Circuit.all_pairs(dims)
    assert circuit.parameter_count() == count
    assert count == sum(math.prod(shape) for shape in circuit.gate_shapes)
    pairs = [m * n for m, n in itertools.combinations(dims, 2)]
    assert circuit.multiply_adds() == math.prod(dims) * sum(pairs)


def test_only_trained_gates_count_as_parameters():
    gates = [Gate((0,)), Gate((1,), given=True), Gate((0, 1), value=np.eye(4).reshape(2, 2, 2, 2))]
    circuit = Circuit((2, 2), gates)
    assert circuit.parameter_count() == 4
    assert circuit.gate_shapes == ((2, 2), (2, 2))


@few
@given(circuits(), st.integers(0, 1000), st.data())
def test_theorem_6_2_bounds_hold(circuit: Circuit, seed: int, data: st.DataObject):
    generator = torch.Generator().manual_seed(seed)
    ranks, gates = [], []
    for step in circuit.steps:
        rank = data.draw(st.integers(0, min(step.fan_in, step.fan_out)))
        left = torch.randn(step.fan_out, rank, dtype=torch.float64, generator=generator)
        right = torch.randn(rank, step.fan_in, dtype=torch.float64, generator=generator)
        ranks.append(rank)
        gates.append((left @ right).reshape(step.shape))
    lower, upper = circuit.rank_bounds(ranks)
    rank = int(torch.linalg.matrix_rank(circuit.matrix(gates), rtol=1e-8))
    assert lower <= rank <= upper


def test_theorem_6_2_is_equation_10_for_square_gates():
    circuit = Circuit.all_pairs((4, 3, 2))
    assert circuit.rank_bounds() == (24, 24)  # full-rank gates: the circuit has full rank
    ranks = (6, 7, 11)
    parts = [24 * rank // full for rank, full in zip(ranks, (6, 8, 12), strict=True)]
    assert circuit.rank_bounds(ranks) == (sum(parts) - 24 * 2, min(parts))
    with pytest.raises(ValueError, match="gate 0 has rank 7; it is 0 to 6"):
        circuit.rank_bounds((7, 7, 11))


def test_gradients():
    circuit = Circuit.all_pairs((3, 2, 2), first_out=1)
    gates = [gate.requires_grad_() for gate in random_gates(circuit)]
    x = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *gates: circuit.apply(x, gates), (x, *gates))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_dtypes(dtype: torch.dtype):
    circuit = Circuit.all_pairs((4, 3, 2))
    gates = random_gates(circuit, dtype=dtype)
    x = torch.randn(5, 24, dtype=dtype)
    result = circuit.apply(x, gates)
    assert result.dtype == dtype
    wide = torch.complex128 if dtype.is_complex else torch.float64
    exact = circuit.apply(x.to(wide), [gate.to(wide) for gate in gates])
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-5
    assert (result.to(wide) - exact).abs().max() < tolerance * exact.abs().max()


def test_mixed_dtypes_promote():
    circuit = Circuit.all_pairs((4, 3, 2))
    gates = random_gates(circuit, dtype=torch.float32)
    assert circuit.apply(torch.randn(24, dtype=torch.bfloat16), gates).dtype == torch.float32
    assert circuit.apply(torch.randn(24, dtype=torch.complex64), gates).dtype == torch.complex64
    with torch.autocast("cpu", torch.bfloat16):
        assert circuit.apply(torch.randn(24), gates).dtype == torch.bfloat16
        double = torch.randn(24, dtype=torch.float64)
        assert circuit.apply(double, gates).dtype == torch.float64


def test_empty_batch():
    circuit = Circuit.all_pairs((4, 3, 2))
    assert circuit.apply(torch.empty(0, 24), random_gates(circuit)).shape == (0, 24)


# Qubits: the same engine on axes of size 2.

CNOT = np.eye(4)[[0, 1, 3, 2]].reshape(2, 2, 2, 2)


def ry(angle: Tensor) -> Tensor:
    half = angle / 2
    rows = torch.stack([half.cos(), -half.sin()], -1), torch.stack([half.sin(), half.cos()], -1)
    return torch.stack(rows, -2)


def ry_then_cnots(qubits: int) -> Circuit:
    turns = [Gate((qubit,), given=True) for qubit in range(qubits)]
    chain = [Gate((qubit, qubit + 1), value=CNOT) for qubit in range(qubits - 1)]
    return Circuit((2,) * qubits, [*turns, *chain] * 2)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_quantum_circuit_with_angles_given_at_the_call(batch: tuple[int, ...]):
    qubits = 3
    circuit = ry_then_cnots(qubits)
    angles = torch.randn(*batch, 2 * qubits, dtype=torch.float64)
    start = torch.zeros(2**qubits, dtype=torch.float64)
    start[0] = 1
    gates = [ry(angles[..., index]) for index in range(2 * qubits)]
    probabilities = circuit.apply(start, gates) ** 2
    assert probabilities.shape == (*batch, 2**qubits)
    assert torch.allclose(probabilities.sum(-1), torch.ones(batch, dtype=torch.float64))

    chain = np.kron(np.eye(2), CNOT.reshape(4, 4)) @ np.kron(CNOT.reshape(4, 4), np.eye(2))
    for index in np.ndindex(*batch):
        state = start.numpy()
        for block in range(2):
            turns = [ry(angles[index][block * qubits + qubit]).numpy() for qubit in range(qubits)]
            state = chain @ np.kron(np.kron(turns[0], turns[1]), turns[2]) @ state
        np.testing.assert_allclose(probabilities[index].numpy(), state**2, atol=1e-12)

    matrices = circuit.matrix(gates)
    assert matrices.shape == (*batch, 8, 8)
    assert torch.allclose(matrices[..., 0] ** 2, probabilities)
    unit = torch.eye(8, dtype=torch.float64).expand(*batch, 8, 8)
    assert torch.allclose(matrices @ matrices.mT, unit)  # rotations and CNOTs are orthogonal


def test_complex_fixed_gate_makes_the_state_complex():
    phase = Gate((0,), value=[[1, 0], [0, 1j]])
    circuit = Circuit((2,), [phase, Gate((0,), given=True)])
    result = circuit.apply(torch.tensor([0.0, 1.0]), [torch.eye(2)])
    assert result.dtype == torch.complex64
    assert torch.equal(result, torch.tensor([0, 1j], dtype=torch.complex64))
    assert eval(repr(circuit)) == circuit


def test_batched_vectors_meet_batched_gates():
    circuit = Circuit((2, 2), [Gate((0, 1)), Gate((1,), given=True)])
    first = torch.randn(2, 2, 2, 2, dtype=torch.float64)
    second = torch.randn(3, 2, 2, dtype=torch.float64)
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    result = circuit.apply(x, [first, second])
    for index in range(3):
        alone = circuit.apply(x[:, index], [first, second[index]])
        assert torch.allclose(result[:, index], alone)


# Errors, and what they say.


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Circuit((), []), "sizes is empty"),
        (lambda: Circuit((4, 0), []), r"sizes \(4, 0\) has 0"),
        (lambda: Circuit((4, 4), [Gate((0, 2))]), r"gate 0, Gate\(\(0, 2\)\): axis 2 does not"),
        (lambda: Circuit((4, 4), [Gate((0, -2))]), "both axes are axis 0"),
        (lambda: Gate((0, 1, 2)), "one axis or on two different ones"),
        (lambda: Gate((1, 1)), "one axis or on two different ones"),
        (lambda: Gate((0, 1), (4,)), "one size for each"),
        (lambda: Gate((0,), (0,)), "size below 1"),
        (lambda: Gate((0,), given=True, value=[[1.0]]), "not both"),
        (lambda: Gate((0,), value="x"), "made of numbers, got 'x'"),
        (lambda: Circuit((2,), [Gate((0,), value=np.eye(3))]), r"value has shape \(3, 3\)"),
        (lambda: Circuit.all_pairs((4,)), r"all_pairs\(\(4,\)\): a gate needs a pair"),
        (lambda: Circuit((2, 2), [Gate((0,))]).operator_expression(), "acts on axis 1"),
        (lambda: Gate((0,)).tensor(), "no value of its own"),
    ],
)
def test_construction_errors(build, message: str):
    with pytest.raises(ValueError, match=message):
        build()


def test_call_errors():
    circuit = Circuit.all_pairs((4, 3, 2))
    gates = random_gates(circuit)
    with pytest.raises(ValueError, match=r"x has shape \(2, 23\); the last size must be 24"):
        circuit.apply(torch.randn(2, 23), gates)
    with pytest.raises(ValueError, match="2 gate tensors for a circuit with 3 gates"):
        circuit.apply(torch.randn(24), gates[:2])
    with pytest.raises(ValueError, match=r"gate 1, Gate\(\(0, 2\)\): tensor of shape"):
        circuit.apply(torch.randn(24), [gates[0], gates[2], gates[1]])
    batched = [gates[0].expand(7, -1, -1, -1, -1), *gates[1:]]
    with pytest.raises(ValueError, match="gate 0"):  # only given gates have batch dimensions
        circuit.apply(torch.randn(24, dtype=torch.float64), batched)
