"""Derivatives of a circuit's matrix by the entries of its gates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from baselines.quanta.circuit import Circuit
from baselines.quanta.gate import Gate


def tangents(circuit: Circuit, gates: Sequence[Tensor]) -> Tensor:
    """Derivatives by every entry of every gate, in order, shape ``(entries, out, in)``.

    The circuit is linear in each gate, so a derivative is the circuit with a unit in its place.

    Args:
        circuit: with gates on axes of fixed sizes.
        gates: a tensor for each.
    """
    batched = Circuit(circuit.sizes, [Gate(one.axes, one.out, given=True) for one in circuit.gates])
    found = []
    for place, gate in enumerate(gates):
        units = torch.eye(gate.numel(), dtype=gate.dtype).reshape(-1, *gate.shape)
        found.append(batched.matrix([*gates[:place], units, *gates[place + 1 :]]))
    return torch.cat(found)
