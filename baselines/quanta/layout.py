"""The layout of a circuit for `triton_kernels`: padded axes, packed gates, tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from baselines.quanta.circuit import Circuit

TILE = 8192
"""Elements of a 16-bit tile; half as many in float32. Two programs of four warps then share a
multiprocessor, the fastest of seven combinations of tile and warps on an H200."""

USUAL_GATE = 128
"""Maximum rows or columns of gates for which that holds. With larger gates, tiles are twice as
large and programs have eight warps."""

LARGEST_GATE = {torch.bfloat16: 256, torch.float16: 256, torch.float32: 64}
"""Maximum rows or columns of a gate that the kernels support, by dtype."""

MOST_VECTORS = 4096
"""Number of vectors up to which the kernels take less wall time than the planner's path for
circuits with a gate above `USUAL_GATE`: the planner's larger products take less of the device's
time, its calls more of the host's."""

SMALL_GATE = 16384
"""Gate entries whose gradients one program accumulates in registers."""

LEAST_AXIS = 4
"""Minimum padded axis size, so that a gate has the 16 columns that tensor cores need."""

Numbers: TypeAlias = "tuple[Any, ...]"


@dataclass(frozen=True, eq=False)
class Layout:
    """What the kernels need to know about a circuit, as tuples of integers.

    Attributes:
        gates: for each gate, the tuple that `triton_kernels` documents as ``GATES``.
        shapes: shapes of the gates.
        templates: meta tensors of these shapes.
        entries: total number of gate entries.
        in_features: length of the input vectors.
        out_features: length of the output vectors.
        in_axes: number of axes in `in_sizes`; 0 if no input axis is padded.
        in_sizes: for each input axis its padded size, its true size, and its stride in both.
        in_padded: length of a padded input vector.
        out_axes: as `in_axes`, for the output.
        out_sizes: as `in_sizes`.
        out_padded: as `in_padded`.
        widest: length of the longest padded vector between gates.
        largest: rows or columns of the largest padded gate.
        narrowest: the smallest number of rows per vector that a gate is applied to.
        groups: 0, then the end of each group of gates whose gradients one program computes.
    """

    gates: Numbers
    shapes: list[torch.Size]
    templates: list[torch.Tensor]
    entries: int
    in_features: int
    out_features: int
    in_axes: int
    in_sizes: Numbers
    in_padded: int
    out_axes: int
    out_sizes: Numbers
    out_padded: int
    widest: int
    largest: int
    narrowest: int
    groups: tuple[int, ...]

    @property
    def warps(self) -> int:
        """Warps per program."""
        return 4 if self.largest <= USUAL_GATE else 8

    def block(self, dtype: torch.dtype) -> int:
        """Vectors per tile; 0 if none fits."""
        if self.largest > LARGEST_GATE.get(dtype, 0):
            return 0
        numbers = TILE * self.warps // 4 * 2 // dtype.itemsize
        block = min(64, numbers // self.widest)
        return block if block * self.narrowest >= 16 else 0

    def takes(self, vectors: int) -> bool:
        """Whether the kernels are faster than the planner for this many vectors."""
        return vectors <= MOST_VECTORS or self.largest <= USUAL_GATE


def layout_of(circuit: Circuit) -> Layout | None:
    """The layout of a circuit of trained gates, each on two axes in ascending order.

    Returns:
        The layout, or `None` for any other circuit.
    """
    if not circuit.steps or not all(gate.trained for gate in circuit.gates):
        return None
    if any(len(step.axes) != 2 or step.axes[0] > step.axes[1] for step in circuit.steps):
        return None
    sizes = list(circuit.sizes)
    gates, lengths, rows, widths = [], [math.prod(map(_padded, sizes))], [], []
    offset = 0
    for step in circuit.steps:
        (m, n), padded = step.axes, [_padded(size) for size in sizes]
        outer = math.prod(padded[:m]), math.prod(padded[m + 1 : n]), math.prod(padded[n + 1 :])
        before, after = step.in_sizes, step.out_sizes
        wide, narrow = [padded[m], padded[n]], [_padded(size) for size in after]
        exact = int(wide == list(before) and narrow == list(after))
        small = int(math.prod(wide) * math.prod(narrow) <= SMALL_GATE)
        padding = outer[0], wide[0], outer[1], wide[1], outer[2], *narrow
        gates.append((*padding, *before, *after, offset, exact, small))
        offset += math.prod(step.shape)
        sizes[m], sizes[n] = after
        lengths.append(math.prod(map(_padded, sizes)))
        rows.append(math.prod(outer))
        widths += [math.prod(wide), math.prod(narrow)]
    in_axes, in_sizes = _strides(circuit.sizes)
    out_axes, out_sizes = _strides(circuit.out_sizes)
    return Layout(
        gates=tuple(gates),
        shapes=[torch.Size(step.shape) for step in circuit.steps],
        templates=[torch.empty(step.shape, device="meta") for step in circuit.steps],
        entries=offset,
        in_features=circuit.in_features,
        out_features=circuit.out_features,
        in_axes=in_axes,
        in_sizes=in_sizes,
        in_padded=lengths[0],
        out_axes=out_axes,
        out_sizes=out_sizes,
        out_padded=lengths[-1],
        widest=max(lengths),
        largest=max(widths),
        narrowest=min(rows),
        groups=_groups([gate[1] * gate[3] * gate[5] * gate[6] for gate in gates]),
    )


def _groups(entries: Sequence[int]) -> tuple[int, ...]:
    """Group consecutive gates, from the last, whose gradients fit into registers together."""
    ends, total = [len(entries)], 0
    for index in range(len(entries) - 1, -1, -1):
        if total and total + entries[index] > SMALL_GATE:
            ends.append(index + 1)
            total = 0
        total += entries[index]
    return (0, *reversed(ends))


def _padded(size: int) -> int:
    """The padded size of an axis, a power of two."""
    return max(LEAST_AXIS, 1 << (size - 1).bit_length())


def _strides(sizes: Sequence[int]) -> tuple[int, Numbers]:
    padded = [_padded(size) for size in sizes]
    if padded == list(sizes):
        return 0, (0,)
    numbers: list[int] = []
    for axis, size in enumerate(sizes):
        strides = math.prod(padded[axis + 1 :]), math.prod(sizes[axis + 1 :])
        numbers += [padded[axis], size, *strides]
    return len(sizes), tuple(numbers)
