"""The update as a matrix, for passes without gradients.

Gates do not change while a model is scored or generates, so the matrix T - S can be kept from one
call to the next; for few vectors, as in generation, one product with it is cheaper than the chain
of small ones. It is made in float32 and rounded once to the dtype of the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.quanta.planning import product_cost
from baselines.quanta.rates import rates_of
from baselines.quanta.rectangular import WeightCircuit

MOST_BYTES = 1 << 23
"""Size of the largest matrix that is kept."""


class KeptMatrices:
    """The matrices of a layer's adapters, each made when it is first wanted."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[tuple[Any, ...], Tensor]] = {}

    def get(
        self, name: str, gates: Sequence[Tensor], dtype: torch.dtype, make: Callable[[], Tensor]
    ) -> Tensor:
        """The matrix of an adapter in a dtype; made again when a gate has changed."""
        key = (dtype, *((gate.data_ptr(), gate._version, gate.device) for gate in gates))
        found = self._found.get(name)
        if found is None or found[0] != key:
            found = (key, make().to(dtype))
            self._found[name] = found
        return found[1]

    def clear(self) -> None:
        """Forget them all."""
        self._found.clear()


def as_matrix(circuit: WeightCircuit, x: Tensor, gates: Sequence[Tensor], circuits: int) -> bool:
    """Whether a pass over ``x`` is to be computed by the matrix.

    That is: no gradients, a matrix of at most `MOST_BYTES`, and fewer vectors than the circuit
    repays, by the planner's own reckoning.

    Args:
        circuit: the circuit.
        x: Shape ``(..., in_features)``.
        gates: all gates that the matrix is made of.
        circuits: how many circuits the pass would run, 1 or 2.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if any(gate.is_meta or gate.is_inference() for gate in gates):
        return False  # these do not say when they change
    size = circuit.in_features * circuit.out_features
    vectors = x.numel() // x.shape[-1]
    if size * x.element_size() > MOST_BYTES or not vectors:
        return False
    plan = circuit.circuit.plan(vectors, device=x.device)
    chain = circuits * plan.cost * vectors / plan.tokens
    shape = circuit.out_features, circuit.in_features
    return product_cost(vectors, *shape, rates_of(x.device.type)) < chain
