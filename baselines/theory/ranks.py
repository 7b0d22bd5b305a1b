"""Theorem 6.2: the ranks of the gates bound the rank of the circuit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from baselines.quanta.circuit import Circuit
from baselines.quanta.gate import Gate
from quanta_bench.verification import Conditions, Finding, Outcome, Verification

SIZES = (2, 3, 4)
MOST_WIDE = 64
MOST_GATES = 6

TOLERANCE = 1e-9
"""Singular values below this share of the largest count as zero; those of the gates are 0 or lie
between 1/2 and 2, so that those of a circuit are far from it on either side."""


class RankBounds(Verification):
    """Random circuits of random gates, of which each has a chosen rank."""

    name = "ranks"
    title = "The ranks of its gates bound a circuit's rank from below and above"
    source = "QuanTA paper, Theorem 6.2"
    place = 10

    def run(self, conditions: Conditions) -> Outcome:
        """Count ranks by singular values and compare them with Eq. 10."""
        generator = np.random.default_rng(conditions.seed)
        count = conditions.choose(600, quick=100)
        outside = deficient = between = apart = 0
        singular = 0
        for case in range(count):
            circuit = random_circuit(generator)
            # Half of the circuits are of full-rank gates but for one, so that the bounds are near.
            ranks = random_ranks(circuit, generator, every=case % 2 == 0)
            found = rank_of(circuit, [gate_of_rank(s, r, generator) for s, r in ranks])
            low, high = equation_10(circuit, [rank for _, rank in ranks])
            outside = max(outside, low - found, found - high)
            given = circuit.rank_bounds([rank for _, rank in ranks])
            apart = max(apart, abs(given[0] - max(0, low)), abs(given[1] - high))
            width = circuit.in_features
            if found < width:
                singular += 1
                largest = width - min(step.rest for step in circuit.steps)
                between = max(between, found - largest)
            full = [gate_of_rank(s, math.prod(s[:2]), generator) for s in circuit.gate_shapes]
            deficient = max(deficient, width - rank_of(circuit, full))
        return Outcome(
            [
                Finding("rank outside the bounds of Eq. 10, by", count, outside, 0),
                Finding("rank missing where all gates have full rank", count, deficient, 0),
                Finding(
                    "rank of a singular circuit above d - d / max(d_m d_n)", singular, between, 0
                ),
                Finding("bounds that the suite reports, against Eq. 10", count, apart, 0),
            ],
            [
                "The third line follows from the upper bound: one singular gate takes "
                "d / (d_m d_n) at the least off the rank. So with three or more axes there are "
                "singular matrices that no circuit equals, which Theorem 6.1 leaves out."
            ],
        )


def random_circuit(generator: Generator) -> Circuit:
    """Two to four axes, and gates on random pairs of them."""
    while True:
        dims = tuple(int(size) for size in generator.choice(SIZES, generator.integers(2, 5)))
        if math.prod(dims) <= MOST_WIDE:
            break
    pairs = list(itertools.permutations(range(len(dims)), 2))
    chosen = generator.integers(len(pairs), size=generator.integers(1, MOST_GATES + 1))
    return Circuit(dims, [Gate(pairs[int(number)]) for number in chosen])


def random_ranks(
    circuit: Circuit, generator: Generator, *, every: bool
) -> list[tuple[tuple[int, ...], int]]:
    """A shape and a rank for each gate: all of them drawn, or only that of one gate."""
    one = int(generator.integers(len(circuit.gate_shapes)))
    ranks = []
    for index, shape in enumerate(circuit.gate_shapes):
        full = math.prod(shape[:2])
        drawn = int(generator.integers(full - full // 4 if every else full // 2, full + 1))
        ranks.append((shape, drawn if every or index == one else full))
    return ranks


def gate_of_rank(shape: tuple[int, ...], rank: int, generator: Generator) -> Tensor:
    """A random gate of this rank; its other singular values lie between 1/2 and 2."""
    size = math.prod(shape[:2])
    left, _ = np.linalg.qr(generator.standard_normal((size, size)))
    right, _ = np.linalg.qr(generator.standard_normal((size, size)))
    values = np.where(np.arange(size) < rank, 2 ** generator.uniform(-1, 1, size), 0)
    return torch.from_numpy((left * values) @ right).reshape(shape)


def rank_of(circuit: Circuit, gates: list[Tensor]) -> int:
    """The numerical rank of a circuit's matrix."""
    return int(torch.linalg.matrix_rank(circuit.matrix(gates), rtol=TOLERANCE))


def equation_10(circuit: Circuit, ranks: list[int]) -> tuple[int, int]:
    """The paper's bounds as they are printed, with d the width and d_m d_n that of a gate."""
    width = circuit.in_features
    sizes = [math.prod(circuit.sizes[axis] for axis in gate.axes) for gate in circuit.gates]
    embedded = [width * rank // size for rank, size in zip(ranks, sizes, strict=True)]
    return sum(embedded) - width * (len(ranks) - 1), min(embedded)
