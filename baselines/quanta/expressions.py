"""Einsum expressions of a circuit, for any number of axes (QuanTA paper, App. G).

Axis ``i`` of ``N`` has symbol ``i`` at the input, and each gate on it advances the symbol by ``N``.
For the all-pairs circuit this gives exactly the expression of the paper's first listing; its second
listing, of the whole matrix, is misprinted (no input indices) and follows Eq. 7 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from opt_einsum import get_symbol


class Operand(NamedTuple):
    """A gate as an operand of einsum.

    Attributes:
        axes: the axes that it acts on.
        batched: whether it may have batch dimensions.
    """

    axes: tuple[int, ...]
    batched: bool


def apply_expression(count: int, operands: Sequence[Operand]) -> str:
    """``...abc,efbc,diaf,ghde->...ghi`` for all pairs of three axes (the einsum of Eq. 6).

    Args:
        count: number of axes.
        operands: the gates in order.
    """
    terms, current = _terms(count, operands)
    start = "..." + _symbols(range(count))
    return ",".join([start, *terms]) + "->..." + _symbols(current)


def operator_expression(count: int, operands: Sequence[Operand]) -> str:
    """``efbc,diaf,ghde->ghiabc`` for all pairs of three axes (the einsum of Eq. 7).

    Args:
        count: number of axes.
        operands: the gates in order.

    Raises:
        ValueError: An axis that no gate acts on.
    """
    terms, current = _terms(count, operands)
    for axis, symbol in enumerate(current):
        if symbol == axis:
            raise ValueError(
                f"operator_expression: no gate acts on axis {axis}, and einsum can't write the "
                "identity there; use matrix(), or add an identity gate"
            )
    dots = "..." if any(operand.batched for operand in operands) else ""
    return ",".join(terms) + "->" + dots + _symbols([*current, *range(count)])


def _terms(count: int, operands: Sequence[Operand]) -> tuple[list[str], list[int]]:
    """The gates' terms, and the symbol of each axis after the last gate."""
    current = list(range(count))
    terms = []
    for axes, batched in operands:
        before = [current[axis] for axis in axes]
        for axis in axes:
            current[axis] += count
        after = [current[axis] for axis in axes]
        terms.append(("..." if batched else "") + _symbols(after + before))
    return terms, current


def _symbols(indices: Sequence[int]) -> str:
    return "".join(get_symbol(index) for index in indices)
