"""A plan at work: the blocks' matrices, and vectors sent through them, forwards and backwards.

The trained T and its frozen copy S run in one pass: their matrices are stacked, the first block
reads the vectors once for both, and its backward pass adds up what comes back from either.

Nothing here asks the device for a value, so a GPU's queue never runs empty for it: a plan is a few
batched products and copies whose shapes are known beforehand, three to six of each for the usual
circuits. The loop over blocks is unrolled by ``torch.compile`` or recorded by a CUDA graph. What
differs between devices is the plan: where starting an operation and passing over memory cost more
arithmetic (`rates`), more gates become one larger matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from baselines.quanta.planning import Block, Order, Plan

SMALL = 1 << 20
"""Entries of a matrix that lies in a processor's cache."""

MOST_KEPT = 1 << 26
"""Bytes that a call keeps between the gates before it computes them again in the backward pass."""

Stacks: TypeAlias = Sequence[Sequence[Tensor]]
"""The gates of one circuit, or those of two."""


def run(
    plan: Plan,
    x: Tensor,
    stacks: Stacks,
    *,
    recompute: bool | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Send vectors through a circuit, or through the difference of two that share a plan.

    Args:
        plan: the plan.
        x: Shape ``(t, in_features)``, real.
        stacks: The gate tensors of the circuit, ``(out_m, out_n, in_m, in_n)``, and of one that is
            subtracted, which get no gradients. They are brought to the dtype of ``x``.
        recompute: Keep ``x`` alone for the backward pass and compute the blocks' inputs again.
            `None` does where they take more than `MOST_KEPT`.
        weight: A frozen matrix ``(out_features, in_features)`` in the dtype of ``x``, whose product
            with the vectors is added.
        bias: A frozen vector ``(out_features,)`` in the dtype of ``x``, added with it.

    Returns:
        Shape ``(t, out_features)``, in the dtype of ``x``. Equal circuits differ by exactly zero.
    """
    if torch.compiler.is_compiling():
        # The compiler derives the backward pass itself, and decides itself what to keep.
        last = _forward(plan, x, _matrices(plan, stacks, x.dtype))[-1]
        return _turned(_difference(last)) + (0 if weight is None else linear(x, weight, bias))
    if recompute is None:
        recompute = plan.kept * x.shape[0] * x.element_size() > MOST_KEPT
    gates = [gate for stack in stacks for gate in stack]
    result: Tensor = _Blocks.apply(  # type: ignore[no-untyped-call]
        plan, not recompute, len(stacks), weight, bias, x, *gates
    )
    return result


class _Blocks(torch.autograd.Function):
    """Each block as one product, with the vectors last."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        keep: bool,
        circuits: int,
        weight: Tensor | None,
        bias: Tensor | None,
        x: Tensor,
        *gates: Tensor,
    ) -> Tensor:
        each = len(gates) // circuits
        stacks = [gates[start : start + each] for start in range(0, len(gates), each)]
        matrices = _matrices(plan, stacks, x.dtype)
        *inputs, last = _forward(plan, x, matrices)
        ctx.plan, ctx.kept, ctx.gates, ctx.folded = plan, keep, len(gates), weight is not None
        kept = inputs if keep else (x,)
        ctx.save_for_backward(*gates, *matrices, *(() if weight is None else (weight,)), *kept)
        result = _turned(_difference(last))
        return result if weight is None else linear(x, weight, bias).add_(result)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, grad: Tensor) -> Any:
        plan: Plan = ctx.plan
        saved, blocks = ctx.saved_tensors, len(plan.blocks)
        gates, saved = saved[: ctx.gates], saved[ctx.gates :]
        matrices, inputs = saved[:blocks], saved[blocks:]
        wants_vectors, *wanted = ctx.needs_input_grad[5:]
        dx = None
        if ctx.folded:
            weight, *inputs = inputs
            dx = grad @ weight if wants_vectors else None
        if not ctx.kept:
            inputs = _forward(plan, inputs[0], matrices)[:-1]
        g = _turned(grad)[None]
        if matrices[0].shape[0] == 2:
            g = torch.cat((g, -g))
        g, of_matrices = _backward(plan, inputs, matrices, g, gates=wanted)
        if wants_vectors:
            dx = _to_vectors(plan.blocks[0], matrices[0], g, dx)
        return (None, None, None, None, None, dx, *_of_gates(plan, gates, of_matrices))


def _difference(last: Tensor) -> Tensor:
    """``(out_features, t)`` from ``(circuits, out_features, t)``."""
    return last[0] if last.shape[0] == 1 else last[0] - last[1]


def _matrices(plan: Plan, stacks: Stacks, dtype: torch.dtype) -> list[Tensor]:
    """Each block's matrix, ``(circuits, rows, columns)``, over its axes as these stand."""
    matrices = []
    for block in plan.blocks:
        parts = [[stack[gate] for gate in block.gates] for stack in stacks]
        if block.inner is None:
            own = [_as_matrix(block, gate.to(dtype)) for (gate,) in parts]
            matrices.append(own[0][None] if len(own) == 1 else torch.stack(own))
        else:
            identity = torch.eye(block.columns, dtype=dtype, device=parts[0][0].device)
            inner = _matrices(block.inner, parts, dtype)
            matrices.append(_forward(block.inner, identity, inner)[-1])
    return matrices


def _of_gates(
    plan: Plan, gates: Sequence[Tensor], of_matrices: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients of gates from those of the first circuit's matrices, ``(rows, columns)``."""
    found: list[Tensor | None] = [None] * len(gates)
    for block, of_matrix in zip(plan.blocks, of_matrices, strict=True):
        if of_matrix is None:
            continue
        if block.inner is None:
            gate = gates[block.gates[0]]
            found[block.gates[0]] = _as_gate(block, of_matrix, gate).to(gate.dtype)
            continue
        own = [gates[index] for index in block.gates]
        inner = _matrices(block.inner, [own], of_matrix.dtype)
        identity = torch.eye(block.columns, dtype=of_matrix.dtype, device=of_matrix.device)
        inputs = _forward(block.inner, identity, inner)[:-1]
        _, of_inner = _backward(
            block.inner, inputs, inner, of_matrix[None], gates=[True] * len(own)
        )
        for index, value in zip(block.gates, _of_gates(block.inner, own, of_inner), strict=True):
            found[index] = value
    return found


def _as_matrix(block: Block, gate: Tensor) -> Tensor:
    if block.swapped:
        gate = gate.permute(1, 0, 3, 2)
    return gate.reshape(block.rows, block.columns)


def _as_gate(block: Block, matrix: Tensor, like: Tensor) -> Tensor:
    if not block.swapped:
        return matrix.reshape(like.shape)
    out_m, out_n, in_m, in_n = like.shape
    return matrix.reshape(out_n, out_m, in_n, in_m).permute(1, 0, 3, 2)


def _forward(plan: Plan, x: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
    """The first circuit's input of each block, ``(batch, columns, rest t)``, and the result.

    The result is ``(circuits, out_features, t)``.
    """
    circuits, vectors = matrices[0].shape[0], x.shape[0]
    first = plan.blocks[0]
    x = _operand(first, x)
    states = [x]
    # The matrices of both circuits lie one under the other.
    x = _times(matrices[0].reshape(1, circuits * first.rows, first.columns), x[None])
    if circuits > 1:
        x = x.reshape(first.batch, circuits, -1).transpose(0, 1)
    sizes = first.after
    for block, matrix in zip(plan.blocks[1:], matrices[1:], strict=True):
        x = _moved(x, circuits, sizes, block.move, vectors)
        x = x.reshape(circuits, block.batch, block.columns, block.rest * vectors)
        # Of two circuits the second is frozen, and its own part of memory is not held back.
        states.append(x[0] if circuits == 1 else x[0].clone())
        x = _times(matrix, x)
        sizes = block.after
    x = _moved(x, circuits, sizes, plan.back, vectors)
    return [*states, x.reshape(circuits, -1, vectors)]


def _backward(
    plan: Plan,
    inputs: Sequence[Tensor],
    matrices: Sequence[Tensor],
    g: Tensor,
    *,
    gates: Sequence[bool],
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradients of what the first block gives, and of the first circuit's matrices.

    Args:
        plan: the plan.
        inputs: what `_forward` gives of each block.
        matrices: the blocks' matrices.
        g: Shape ``(circuits, out_features, t)``.
        gates: of which gates the gradient is wanted.
    """
    circuits, count = g.shape[0], g.shape[-1]
    if plan.back is not None:
        own = [plan.out_sizes[place] for place in plan.back]
        g = _moved(g, circuits, own, _inverse(plan.back), count)
    found: list[Tensor | None] = [None] * len(plan.blocks)
    for index in range(len(plan.blocks) - 1, -1, -1):
        block, matrix, x = plan.blocks[index], matrices[index], inputs[index]
        g = g.reshape(circuits, block.batch, block.rows, block.rest * count)
        if any(gates[gate] for gate in block.gates):
            found[index] = _outer(g[0], x)
        if index:
            g = _times(matrix.mT, g)
            if block.move is not None:
                g = _moved(g, circuits, block.sizes, _inverse(block.move), count)
    return g, found


def _to_vectors(block: Block, matrix: Tensor, g: Tensor, dx: Tensor | None) -> Tensor:
    """The gradient of the vectors, ``(t, in_features)``, added to ``dx`` in place.

    Args:
        block: the first block.
        matrix: its matrices, ``(circuits, rows, columns)``.
        g: the gradient of what it gives, ``(circuits, batch, rows, rest t)``.
        dx: what else comes to the vectors, or ``None``.
    """
    g = g.transpose(0, 1).reshape(block.batch, -1, g.shape[-1])
    matrix = matrix.reshape(1, -1, block.columns)
    if block.reads_in_place:
        # The product itself puts the vectors first.
        wide = matrix.expand(block.batch, -1, -1)
        if dx is None:
            return torch.bmm(g.mT, wide).transpose(0, 1).reshape(g.shape[-1], -1)
        dx.view(len(dx), block.batch, -1).transpose(0, 1).baddbmm_(g.mT, wide)
        return dx
    g = _times(matrix.mT, g[None])
    count = g.shape[-1] // block.rest
    if block.move is not None:
        g = _moved(g, 1, block.sizes, _inverse(block.move), count)
    g = _turned(g.reshape(-1, count))
    return g if dx is None else dx.add_(g)


def _operand(block: Block, x: Tensor) -> Tensor:
    """Vectors ``(t, in_features)`` as the first block takes them: ``(batch, columns, rest t)``."""
    vectors = x.shape[0]
    if block.reads_in_place:
        return x.reshape(vectors, block.batch, block.columns).permute(1, 2, 0)
    x = _turned(x)
    if block.move is not None:
        sizes = [block.sizes[place] for place in _inverse(block.move)]
        x = _moved(x, 1, sizes, block.move, vectors)
    return x.reshape(block.batch, block.columns, -1)


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """``(circuits, r, c)`` times ``(circuits, batch, c, n)``."""
    circuits, batch, columns, count = x.shape
    if circuits == batch == 1:
        return torch.mm(matrix[0], x[0, 0])[None, None]
    wide = matrix[:, None].expand(circuits, batch, -1, -1).reshape(circuits * batch, -1, columns)
    return torch.bmm(wide, x.reshape(circuits * batch, columns, count)).reshape(
        circuits, batch, -1, count
    )


def _outer(g: Tensor, x: Tensor) -> Tensor:
    """The sum over the batch of ``(batch, r, n)`` times ``(batch, c, n)`` transposed."""
    if g.shape[0] > 1:
        return torch.bmm(g, x.mT).sum(0)
    return torch.mm(g[0], x[0].mT)


def _turned(x: Tensor) -> Tensor:
    """``(m, n)`` as a contiguous ``(n, m)``."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.numel() > SMALL:
        return x.mT.contiguous()
    # torch turns a matrix over on one thread; as three axes it takes all of them, which pays as
    # long as the matrix lies in the cache.
    parts = 2 if x.shape[1] % 2 == 0 else 1
    return x.reshape(len(x), parts, -1).permute(1, 2, 0).reshape(-1, len(x))


def _moved(
    x: Tensor, circuits: int, sizes: Sequence[int], order: Order | None, vectors: int
) -> Tensor:
    """Bring axes of ``sizes`` into another order, the circuits in front and the vectors last."""
    if order is None:
        return x
    if circuits == 1:
        return x.reshape(*sizes, vectors).permute(*order, len(order)).contiguous()
    places = (0, *(1 + axis for axis in order), 1 + len(order))
    return x.reshape(circuits, *sizes, vectors).permute(places).contiguous()


def _inverse(order: Order) -> Order:
    return tuple(sorted(range(len(order)), key=order.__getitem__))
