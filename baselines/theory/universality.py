"""Theorem 6.1: matrices of width 2^M as circuits of two-axis gates, built and not fitted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from baselines.theory.universal import Decomposition, decompose, product_of_gates
from quanta_bench.verification import Conditions, Finding, Outcome, Verification

SPLITS = (
    (2, 2),
    (2, 2, 2),
    (4, 2),
    (2, 2, 2, 2),
    (4, 2, 2),
    (2, 4, 2),
    (4, 2, 4),
    (4, 4, 2),
    (2, 2, 2, 2, 2),
    (4, 8),
)
QUICK = ((2, 2), (2, 2, 2), (4, 2, 2), (4, 4, 2))

ALLOWED = 1e-8


class Universality(Verification):
    """Random matrices, hard and easy, as products of gates."""

    name = "universality"
    title = "Every matrix of width 2^M is a circuit of two-axis gates, or the limit of some"
    source = "QuanTA paper, Theorem 6.1"
    place = 20

    def run(self, conditions: Conditions) -> Outcome:
        """Decompose, multiply the gates out in two ways, and compare with the matrix."""
        generator = np.random.default_rng(conditions.seed)
        splits = conditions.choose(SPLITS, quick=QUICK)
        rounds = conditions.choose(3, quick=1)
        errors: dict[str, list[float]] = {"positive": [], "negative": [], "singular": []}
        unreal = []
        apart = []
        most: dict[tuple[int, ...], int] = {}
        for dims in splits:
            for _ in range(rounds):
                for kind, matrix in _matrices(math.prod(dims), generator):
                    made = decompose(matrix, dims)
                    product = product_of_gates(made)
                    errors[kind].append(_relative(product, matrix))
                    apart.append(_relative(_by_engine(made), product))
                    unreal.append(not made.real and kind != "negative")
                    most[dims] = max(most.get(dims, 0), len(made.gates))
        determinants = [
            float(np.linalg.det(_random_real(dims, generator)))
            for dims in splits
            if len(dims) > 2
            for _ in range(conditions.choose(20, quick=5))
        ]
        gates = ", ".join(f"{'-'.join(map(str, dims))} {count}" for dims, count in most.items())
        return Outcome(
            [
                Finding(
                    "relative error, determinant > 0, real gates",
                    len(errors["positive"]),
                    max(errors["positive"]),
                    ALLOWED,
                ),
                Finding(
                    "relative error, determinant < 0, one complex diagonal",
                    len(errors["negative"]),
                    max(errors["negative"]),
                    ALLOWED,
                ),
                Finding(
                    "relative error, singular, as a limit, real gates",
                    len(errors["singular"]),
                    max(errors["singular"]),
                    ALLOWED,
                ),
                Finding("complex gates where real ones do", len(unreal), sum(unreal), 0),
                Finding("gates multiplied out, against the engine", len(apart), max(apart), 1e-12),
                Finding(
                    "determinant of real circuits on three or more axes below 0, by",
                    len(determinants),
                    max(0.0, -min(determinants)),
                    0,
                ),
            ],
            [
                f"Gates, the most by axes: {gates}.",
                "With three or more axes of even size the determinant of a real circuit is a "
                "product of even powers. So a real matrix of negative determinant needs complex "
                "gates, as in the paper's proof; trained gates are real.",
            ],
        )


def _matrices(width: int, generator: Generator) -> list[tuple[str, NDArray[Any]]]:
    """A random matrix and one of bad condition of each sign, and two singular ones."""
    plain = generator.standard_normal((width, width))
    uneven = generator.standard_normal((width, width)) * 10.0 ** generator.uniform(-6, 0, width)
    thin = np.outer(*generator.standard_normal((2, width)))
    almost = plain.copy()
    almost[:, 0] = almost[:, -1]
    found = [("singular", thin), ("singular", almost)]
    for matrix in (plain, uneven):
        mirrored = matrix.copy()
        mirrored[0] = -mirrored[0]
        pair = (matrix, mirrored)
        positive = bool(np.linalg.slogdet(matrix).sign > 0)
        found += [("positive", pair[not positive]), ("negative", pair[positive])]
    return found


def _by_engine(made: Decomposition) -> NDArray[Any]:
    # Complex gates go one by one; a plan of hundreds of real ones takes seconds to make.
    gates = [gate.to(torch.complex128) for gate in made.gates]
    product: NDArray[Any] = made.circuit.matrix(gates).numpy()
    return product


def _random_real(dims: tuple[int, ...], generator: Generator) -> NDArray[Any]:
    from baselines.quanta.circuit import Circuit

    circuit = Circuit.all_pairs(dims)
    gates = [torch.from_numpy(generator.standard_normal(s)) for s in circuit.gate_shapes]
    matrix: NDArray[Any] = circuit.matrix(gates).numpy()
    return matrix


def _relative(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
