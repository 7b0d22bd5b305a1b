"""Theorem 6.1 by fitting: how near circuits of growing depth come, beside LoRA and KronA.

The fit is nonlinear least squares with exact derivatives. LoRA and KronA need none: their best
matrices are known in closed form, by singular values (Eckart and Young 1936) of the matrix and of
its rearrangement (Van Loan and Pitsianis 1993).
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from baselines.quanta.circuit import Circuit
from baselines.theory.tangent import tangents
from quanta_bench.verification import Conditions, Finding, Outcome, Verification

CASES = (((2, 2, 2), 3), ((4, 2, 2), 3))
STEPS = 100
ALLOWED = 1e-6


class Fit(NamedTuple):
    """One depth: parameters, relative error left, and the same of LoRA and KronA."""

    parameters: int
    error: float
    lora: float
    krona: float


class Fitting(Verification):
    """A random matrix, circuits of one gate a pair repeated, and the others at equal size."""

    name = "fitting"
    title = "Deeper circuits come as near to a matrix as one likes"
    source = "QuanTA paper, Theorem 6.1"
    place = 25

    def run(self, conditions: Conditions) -> Outcome:
        """Fit each depth and report the errors; the deepest has to be exact."""
        generator = np.random.default_rng(conditions.seed)
        findings, notes = [], []
        for dims, depths in conditions.choose(CASES, quick=CASES[:1]):
            target = _reachable(math.prod(dims), generator)
            fits = [fit(target, dims, depth, generator) for depth in range(1, depths + 1)]
            split = "-".join(map(str, dims))
            rises = max(after.error - before.error for before, after in itertools.pairwise(fits))
            findings += [
                Finding(
                    f"relative error left at the largest depth, {split}", 1, fits[-1].error, ALLOWED
                ),
                Finding(
                    f"relative error, rise from a depth to the next, {split}",
                    depths - 1,
                    max(0.0, rises),
                    0.02,
                ),
            ]
            notes.append(
                f"{split}, relative error left (LoRA, KronA of at most as many parameters): "
                + "; ".join(
                    f"{one.parameters} parameters {one.error:.2g} ({one.lora:.2g}, {one.krona:.2g})"
                    for one in fits
                )
                + "."
            )
        return Outcome(findings, notes)


def fit(
    target: NDArray[Any], dims: tuple[int, ...], depth: int, generator: Generator, starts: int = 3
) -> Fit:
    """Fit a circuit of ``depth`` times one gate on every pair, the best of a few starts."""
    once = Circuit.all_pairs(dims)
    circuit = Circuit(dims, once.gates * depth)
    sizes = [math.prod(shape) for shape in circuit.gate_shapes]
    norm = float(np.linalg.norm(target))

    def gates_of(vector: NDArray[Any]) -> list[Tensor]:
        parts = torch.split(torch.from_numpy(vector), sizes)
        return [part.reshape(s) for part, s in zip(parts, circuit.gate_shapes, strict=True)]

    def residuals(vector: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = circuit.matrix(gates_of(vector)).numpy()
        difference: NDArray[Any] = (found - target) / norm
        return difference.ravel()

    def derivatives(vector: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = tangents(circuit, gates_of(vector)).flatten(1).mT.numpy()
        return found / norm

    error = math.inf
    for _ in range(starts):
        start = [
            np.eye(math.prod(s[:2])).ravel() + 0.3 * generator.standard_normal(math.prod(s))
            for s in circuit.gate_shapes
        ]
        found = least_squares(
            residuals, np.concatenate(start), derivatives, max_nfev=STEPS, xtol=1e-9, ftol=1e-9
        )
        error = min(error, math.sqrt(2 * found.cost))
        if error < ALLOWED / 10:
            break
    parameters = circuit.parameter_count()
    return Fit(parameters, error, best_low_rank(target, parameters), best_krona(target, parameters))


def best_low_rank(target: NDArray[Any], parameters: int) -> float:
    """Relative error of the best B A with at most so many parameters."""
    rank = parameters // sum(target.shape)
    values = np.linalg.svd(target, compute_uv=False)
    return float(np.linalg.norm(values[rank:]) / np.linalg.norm(values))


def best_krona(target: NDArray[Any], parameters: int) -> float:
    """Relative error of the best A kron B, both square, with at most so many parameters."""
    width, error = len(target), 1.0
    for side in (side for side in range(1, width + 1) if width % side == 0):
        other = width // side
        if side**2 + other**2 > parameters:
            continue
        rearranged = target.reshape(side, other, side, other).transpose(0, 2, 1, 3)
        values = np.linalg.svd(rearranged.reshape(side**2, other**2), compute_uv=False)
        error = min(error, float(np.linalg.norm(values[1:]) / np.linalg.norm(values)))
    return error


def _reachable(width: int, generator: Generator) -> NDArray[Any]:
    """A random matrix of positive determinant: real circuits reach no other."""
    matrix = generator.standard_normal((width, width))
    if np.linalg.slogdet(matrix).sign < 0:
        matrix[0] = -matrix[0]
    return matrix
