"""Theorem 6.3: products of circuits leave the set that a fixed structure can reach.

Two certificates. On two gates in a row, the axis that the second gate does not touch hears of the
rest by the one axis that both gates share. So the tensor of the circuit, unfolded into (what the
first axis gives and what the first gate takes) by (the others), has at most the rank of that
axis's size. The product of two cyclic shifts of three axes breaks it, in whole numbers.

For the paper's own circuit, a gate on every pair, dimensions are counted: the rank of the Jacobian
of the gates at a random point is the dimension of what they reach, and that of products is larger.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.quanta.circuit import Circuit
from baselines.quanta.gate import Gate
from baselines.theory.tangent import tangents
from quanta_bench.verification import Conditions, Finding, Outcome, Verification

AXIS = 2
STAIRS = Circuit((AXIS, AXIS, AXIS), [Gate((0, 1)), Gate((1, 2))])


class Composition(Verification):
    """A stated witness, the paper's structure by counting, and LoRA's products beside them."""

    name = "composition"
    title = "Products of circuits are no circuit of the same structure; LoRA's keep their rank"
    source = "QuanTA paper, Theorem 6.3"
    place = 40

    def run(self, conditions: Conditions) -> Outcome:
        """Compute the certificates, and ranks of products of low-rank matrices."""
        generator = torch.Generator().manual_seed(conditions.seed)
        shift = STAIRS.matrix([_swap(), _swap()])
        members = conditions.choose(200, quick=20)
        beyond = max(unfolded_rank(_random(STAIRS, generator)) - AXIS for _ in range(members))
        of_product = unfolded_rank(shift @ shift)
        structures = conditions.choose(((2, 2, 2), (4, 2, 2), (2, 2, 2, 2)), quick=((2, 2, 2),))
        spans = {dims: _dimensions(Circuit.all_pairs(dims), generator) for dims in structures}
        lora = [_lora_excess(generator, width=32, rank=rank) for rank in (1, 2, 4, 8)]
        return Outcome(
            [
                Finding(
                    "rank of a two-gate circuit, unfolded, above its shared axis",
                    members + 1,
                    max(0, beyond, unfolded_rank(shift) - AXIS),
                    0,
                ),
                Finding(
                    "the same of the witness, short of 8 (a circuit has 2)",
                    1,
                    abs(8 - of_product),
                    0,
                ),
                Finding(
                    "structures whose products span no more than they do",
                    len(spans),
                    sum(product <= own for own, product in spans.values()),
                    0,
                ),
                Finding("rank of LoRA's products above r", len(lora), max(lora), 0),
            ],
            [
                "Witness: axes 2-2-2, gates on (0, 1) and (1, 2), both exchanging their axes. The "
                "matrix shifts the three axes by one; its square shifts them by two.",
                "Dimensions reached by one circuit with a gate on every pair, and by products of "
                "two: "
                + ", ".join(
                    f"{'-'.join(map(str, dims))} {own} and {product}"
                    for dims, (own, product) in spans.items()
                )
                + ".",
            ],
        )


def unfolded_rank(matrix: Tensor) -> int:
    """The rank of (out_0, in_0, in_1) by (in_2, out_1, out_2), of a matrix on three axes."""
    tensor = matrix.reshape(*STAIRS.sizes, *STAIRS.sizes)
    unfolded = tensor.permute(0, 3, 4, 5, 1, 2).reshape(AXIS**3, AXIS**3)
    return int(torch.linalg.matrix_rank(unfolded, rtol=1e-9))


def _swap() -> Tensor:
    return torch.eye(AXIS**2, dtype=torch.float64).reshape((AXIS,) * 4).transpose(0, 1)


def _gates(circuit: Circuit, generator: torch.Generator) -> list[Tensor]:
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in circuit.gate_shapes
    ]


def _random(circuit: Circuit, generator: torch.Generator) -> Tensor:
    return circuit.matrix(_gates(circuit, generator))


def _dimensions(circuit: Circuit, generator: torch.Generator) -> tuple[int, int]:
    """The dimension of what the circuit reaches, and of the products of two of them."""
    one, two = _gates(circuit, generator), _gates(circuit, generator)
    first, second = circuit.matrix(one), circuit.matrix(two)
    tangent, other = tangents(circuit, one), tangents(circuit, two)
    # d(A B) = dA B + A dB.
    product = torch.cat(
        [torch.einsum("pij,jk->pik", tangent, second), torch.einsum("ij,pjk->pik", first, other)]
    )
    return _rank(tangent), _rank(product)


def _rank(tangents: Tensor) -> int:
    return int(torch.linalg.matrix_rank(tangents.flatten(1), rtol=1e-9))


def _lora_excess(generator: torch.Generator, width: int, rank: int) -> int:
    def update() -> Tensor:
        shape = (width, rank)
        b, a = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in "ba")
        return b @ a.mT

    return int(torch.linalg.matrix_rank(update() @ update(), rtol=1e-9)) - rank
