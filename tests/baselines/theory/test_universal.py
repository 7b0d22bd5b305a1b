"""Matrices written as circuits of two-axis gates, against the matrices themselves."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from baselines.theory.universal import decompose, product_of_gates

SPLITS = [(2, 2), (2, 2, 2), (4, 2, 2), (2, 2, 4), (2, 2, 2, 2)]


def matrix(width: int, seed: int, sign: int) -> NDArray[Any]:
    found = np.random.default_rng(seed).standard_normal((width, width))
    if np.linalg.slogdet(found).sign != sign:
        found[0] = -found[0]
    return found


def distance(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("dims", SPLITS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_gates_multiply_to_the_matrix(dims: tuple[int, ...], sign: int) -> None:
    wanted = matrix(int(np.prod(dims)), 3, sign)
    made = decompose(wanted, dims)
    assert distance(product_of_gates(made), wanted) < 1e-12
    gates = [gate.to(torch.complex128) for gate in made.gates]
    assert distance(made.circuit.matrix(gates).numpy(), wanted) < 1e-12
    assert all(len(gate.axes) == 2 for gate in made.circuit.gates)
    assert made.exact
    # On two axes one gate is the matrix; beyond, real gates have a positive determinant.
    assert made.real == (sign == 1 or len(dims) == 2)


@pytest.mark.parametrize("order", list(itertools.permutations(range(8)))[::5000])
def test_permutations_and_diagonals_are_exact(order: tuple[int, ...]) -> None:
    wanted = np.eye(8)[list(order)] * np.array([1, -1, 3, 1e-3, 5, -2, 1, 1e3])
    assert distance(product_of_gates(decompose(wanted, (2, 2, 2))), wanted) < 1e-12


@pytest.mark.parametrize("rank", [1, 5, 7])
def test_a_singular_matrix_is_a_limit_of_real_circuits(rank: int) -> None:
    generator = np.random.default_rng(rank)
    wanted = generator.standard_normal((8, rank)) @ generator.standard_normal((rank, 8))
    made = decompose(wanted, (2, 2, 2))
    assert not made.exact
    assert made.real
    assert distance(product_of_gates(made), wanted) < 1e-8


def test_the_zero_matrix_is_a_gate_of_zeros() -> None:
    assert not product_of_gates(decompose(np.zeros((8, 8)), (2, 2, 2))).any()


@pytest.mark.parametrize(
    ("shape", "dims", "said"),
    [
        ((8, 8), (8,), "two or more powers of 2"),
        ((6, 6), (3, 2), "two or more powers of 2"),
        ((8, 8), (8, 1), "two or more powers of 2"),
        ((8, 4), (4, 2), "8 x 8"),
    ],
)
def test_what_is_refused_is_named(shape: tuple[int, int], dims: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decompose(np.ones(shape), dims)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        decompose(np.full((4, 4), np.nan), (2, 2))
