"""The engine and the `peft` layer against one einsum over all gates."""

from __future__ import annotations

from typing import cast

import torch
from opt_einsum import contract
from peft import get_peft_model
from torch import Tensor, nn

from baselines.quanta.circuit import Circuit
from baselines.quanta.config import QuantaConfig
from baselines.quanta.layer import QuantaLinear
from quanta_bench.verification import Conditions, Finding, Outcome, Verification

CIRCUITS = ((4, 4), (4, 3, 2), (2, 2, 2, 2), (6, 6, 4), (8, 4, 2), (2, 3, 2, 3, 2), (4, 4, 4))


class DenseMatrix(Verification):
    """A circuit's matrix by the engine, by `peft`, and by opt_einsum."""

    name = "dense"
    title = "A circuit's matrix, the layer that peft trains and einsum agree"
    source = "QuanTA paper, Eq. 7 and 8, Appendix G"
    place = 50

    def run(self, conditions: Conditions) -> Outcome:
        """Compare them in float64, square and rectangular."""
        generator = torch.Generator().manual_seed(conditions.seed)
        rounds = conditions.choose(10, quick=2)
        square, rectangular, layers = [], [], []
        for _ in range(rounds):
            for dims in CIRCUITS:
                square.append(_against_einsum(Circuit.all_pairs(dims), generator))
                grown = Circuit.all_pairs(dims, first_out=2 * dims[0])
                rectangular.append(_against_einsum(grown, generator))
                layers.append(_layer(dims, generator))
        return Outcome(
            [
                Finding("relative difference, square", len(square), max(square), 1e-13),
                Finding(
                    "relative difference, rectangular", len(rectangular), max(rectangular), 1e-13
                ),
                Finding(
                    "relative difference of T x - S x by peft", len(layers), max(layers), 1e-12
                ),
            ]
        )


def _drawn(circuit: Circuit, generator: torch.Generator) -> list[Tensor]:
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in circuit.gate_shapes
    ]


def _einsum(circuit: Circuit, gates: list[Tensor]) -> Tensor:
    tensor = contract(circuit.operator_expression(), *gates)
    return cast(Tensor, tensor).reshape(circuit.out_features, circuit.in_features)


def _against_einsum(circuit: Circuit, generator: torch.Generator) -> float:
    gates = _drawn(circuit, generator)
    wanted = _einsum(circuit, gates)
    return float((circuit.matrix(gates) - wanted).norm() / wanted.norm())


def _layer(dims: tuple[int, ...], generator: torch.Generator) -> float:
    circuit = Circuit.all_pairs(dims)
    width = circuit.in_features
    base = nn.Sequential(nn.Linear(width, width, dtype=torch.float64))
    model = get_peft_model(base, QuantaConfig(dims=dims, target_modules=["0"]))
    (layer,) = (module for module in model.modules() if isinstance(module, QuantaLinear))
    start = [gate.detach().clone() for gate in layer.quanta_gates["default"].parameters()]
    gates = _drawn(circuit, generator)
    for parameter, gate in zip(layer.quanta_gates["default"].parameters(), gates, strict=True):
        parameter.data.copy_(gate)
    x = torch.randn(7, width, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        found = model(x) - layer.base_layer(x)
    wanted = x @ (_einsum(circuit, gates) - _einsum(circuit, start)).mT
    return float((found - wanted).norm() / wanted.norm())
