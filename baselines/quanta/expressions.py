"""Einsum expressions of a circuit, for any number of axes (QuanTA paper, App. G).

Axis ``i`` of ``N`` has symbol ``i`` at the input, and each gate on it moves it on by ``N``. For the
all-pairs circuit these are, letter by letter, the expressions of the paper's listing; its second
listing, of the whole matrix, is misprinted there (no input indices) and follows Eq. 7 here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opt_einsum import get_symbol

if TYPE_CHECKING:
    from baselines.quanta.circuit import Circuit


def _terms(circuit: Circuit) -> tuple[list[str], list[int]]:
    """The gates' terms, and the symbol of each axis after the last gate."""
    count = len(circuit.sizes)
    current = list(range(count))
    terms = []
    for gate, step in zip(circuit.gates, circuit.steps, strict=True):
        before = [current[axis] for axis in step.axes]
        for axis in step.axes:
            current[axis] += count
        after = [current[axis] for axis in step.axes]
        terms.append(("..." if gate.given else "") + _symbols(after + before))
    return terms, current


def _symbols(indices: list[int]) -> str:
    return "".join(get_symbol(index) for index in indices)


def apply_expression(circuit: Circuit) -> str:
    """``...abc,efbc,diaf,ghde->...ghi`` for all pairs of three axes (the einsum of Eq. 6)."""
    terms, current = _terms(circuit)
    start = "..." + _symbols(list(range(len(circuit.sizes))))
    return ",".join([start, *terms]) + "->..." + _symbols(current)


def operator_expression(circuit: Circuit) -> str:
    """``efbc,diaf,ghde->ghiabc`` for all pairs of three axes (the einsum of Eq. 7).

    Raises:
        ValueError: An axis that no gate acts on.
    """
    terms, current = _terms(circuit)
    for axis, symbol in enumerate(current):
        if symbol == axis:
            raise ValueError(
                f"operator_expression: no gate of {circuit!r} acts on axis {axis}, and einsum "
                "can't write the identity there; use matrix(), or add an identity gate"
            )
    dots = "..." if any(gate.given for gate in circuit.gates) else ""
    start = list(range(len(circuit.sizes)))
    return ",".join(terms) + "->" + dots + _symbols(current + start)
