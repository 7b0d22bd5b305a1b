"""Every check passes, and fails when what it checks is broken."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from baselines.krona import KronaAdapter
from baselines.quanta.circuit import Circuit
from baselines.quanta.gate import Gate
from baselines.theory import composition, fitting, ranks, universality
from baselines.theory.composition import Composition
from baselines.theory.dense import DenseMatrix
from baselines.theory.fitting import Fitting, best_krona, best_low_rank
from baselines.theory.kronecker import KronaIsQuanta
from baselines.theory.ranks import RankBounds
from baselines.theory.tangent import tangents
from baselines.theory.universality import Universality
from quanta_bench.verification import Conditions, Outcome, Verification

QUICK = Conditions(quick=True, seed=3)
CHECKS: list[type[Verification]] = [
    Composition,
    DenseMatrix,
    Fitting,
    KronaIsQuanta,
    RankBounds,
    Universality,
]


def failing(outcome: Outcome) -> set[str]:
    return {finding.title for finding in outcome.findings if not finding.passed}


@pytest.mark.parametrize("check", CHECKS)
def test_it_passes(check: type[Verification]) -> None:
    outcome = check().run(QUICK)
    assert outcome.passed
    assert not failing(outcome)
    assert all(finding.cases > 0 for finding in outcome.findings)


def test_ranks_notices_bounds_that_the_suite_reports_wrongly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Circuit, "rank_bounds", lambda self, given=None: (0, self.in_features))
    assert failing(RankBounds().run(QUICK)) == {"bounds that the suite reports, against Eq. 10"}


def test_ranks_notices_gates_of_another_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ranks.gate_of_rank
    monkeypatch.setattr(ranks, "gate_of_rank", lambda s, r, g: right(s, max(1, r - 1), g))
    found = failing(RankBounds().run(QUICK))
    assert "rank missing where all gates have full rank" in found
    assert "rank outside the bounds of Eq. 10, by" in found


def test_ranks_notices_a_circuit_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_column_gone(self: Circuit, gates: Any) -> torch.Tensor:
        width = self.in_features
        return torch.eye(width, dtype=torch.float64) - torch.outer(*torch.eye(width)[[0, 0]])

    monkeypatch.setattr(Circuit, "matrix", one_column_gone)
    assert "rank of a singular circuit above d - d / max(d_m d_n)" in failing(
        RankBounds().run(QUICK)
    )


def test_universality_notices_a_gate_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    right = universality.decompose

    def off(matrix: Any, dims: Any) -> Any:
        made = right(matrix, dims)
        return dataclasses.replace(made, gates=(made.gates[0] * (1 + 1e-6), *made.gates[1:]))

    monkeypatch.setattr(universality, "decompose", off)
    assert len(failing(Universality().run(QUICK))) == 3


def test_universality_notices_an_engine_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Circuit.matrix
    monkeypatch.setattr(Circuit, "matrix", lambda self, gates: right(self, gates).mT)
    assert "gates multiplied out, against the engine" in failing(Universality().run(QUICK))


def test_krona_notices_another_order_of_its_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        KronaAdapter, "matrix", lambda self: self.scale * torch.kron(self.b, self.a)
    )
    assert len(failing(KronaIsQuanta().run(QUICK))) == 2


def test_composition_needs_its_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = torch.eye(4, dtype=torch.float64).reshape(2, 2, 2, 2)
    monkeypatch.setattr(composition, "_swap", lambda: identity)
    assert failing(Composition().run(QUICK)) == {
        "the same of the witness, short of 8 (a circuit has 2)"
    }


def test_composition_notices_a_structure_that_reaches_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One gate on both of two axes is any matrix, so products are nothing new.
    monkeypatch.setattr(Circuit, "all_pairs", lambda dims: Circuit((4, 2), [Gate((0, 1))]))
    assert "structures whose products span no more than they do" in failing(
        Composition().run(QUICK)
    )


def test_dense_notices_a_matrix_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Circuit.matrix
    monkeypatch.setattr(Circuit, "matrix", lambda self, gates: right(self, gates) + 1e-6)
    assert {"relative difference, square", "relative difference, rectangular"} <= failing(
        DenseMatrix().run(QUICK)
    )


def test_fitting_notices_a_fit_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "STEPS", 1)
    assert "relative error left at the largest depth, 2-2-2" in failing(Fitting().run(QUICK))


def test_the_best_of_lora_and_krona_are_found_where_they_are_exact() -> None:
    generator = np.random.default_rng(0)
    low = generator.standard_normal((8, 2)) @ generator.standard_normal((2, 8))
    assert best_low_rank(low, 2 * 16) < 1e-12
    assert best_low_rank(low, 2 * 16 - 1) > 0.01
    product = np.kron(generator.standard_normal((2, 2)), generator.standard_normal((4, 4)))
    assert best_krona(product, 4 + 16) < 1e-12
    assert best_krona(product, 4 + 16 - 1) == 1.0


def test_tangents_are_finite_differences() -> None:
    circuit = Circuit.all_pairs((2, 3, 2))
    generator = torch.Generator().manual_seed(0)
    gates = [torch.randn(s, dtype=torch.float64, generator=generator) for s in circuit.gate_shapes]
    found = tangents(circuit, gates)
    assert len(found) == circuit.parameter_count()
    start = 0
    for place, gate in enumerate(gates):
        for entry in (0, gate.numel() - 1):
            moved = gate.clone()
            moved.view(-1)[entry] += 1
            # The matrix is linear in each gate, so a step of any length is exact.
            step = circuit.matrix([*gates[:place], moved, *gates[place + 1 :]])
            torch.testing.assert_close(found[start + entry], step - circuit.matrix(gates))
        start += gate.numel()
