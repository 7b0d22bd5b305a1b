"""Execution of a plan: the blocks' matrices, and the forward and backward pass through them.

The trained T and its frozen copy S run in one pass: their matrices are stacked, the first block
reads the vectors once for both, and its backward pass sums the gradients of both.

Nothing here synchronises with the device, so a GPU's queue never runs empty: a plan is a few
batched products and copies of known shapes, three to six of each for typical circuits. The loop
over blocks is unrolled by ``torch.compile`` or recorded by a CUDA graph. Devices differ only in the
plan: if launching an operation and passing over memory are more expensive relative to arithmetic
(`rates`), more gates are merged into one larger matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from baselines.quanta.planning import Block, Order, Plan
from baselines.quanta.rates import CACHED

MOST_KEPT = 1 << 26
"""Bytes of activations that a call keeps; beyond that, the backward pass recomputes them."""

Stacks: TypeAlias = Sequence[Sequence[Tensor]]
"""The gates of one circuit, or of two."""


def run(
    plan: Plan,
    x: Tensor,
    stacks: Stacks,
    *,
    recompute: bool | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Apply a circuit, or the difference of two that share a plan, to vectors.

    Args:
        plan: the plan.
        x: Shape ``(t, in_features)``, real.
        stacks: The gate tensors of the circuit, ``(out_m, out_n, in_m, in_n)``, and optionally of a
            circuit to subtract, which get no gradients. They are cast to the dtype of ``x``.
        recompute: Keep only ``x`` for the backward pass and recompute the blocks' inputs. `None`
            does so if they take more than `MOST_KEPT`.
        weight: A frozen matrix ``(out_features, in_features)`` in the dtype of ``x``, whose product
            with the vectors is added.
        bias: A frozen vector ``(out_features,)`` in the dtype of ``x``, added with it.

    Returns:
        Shape ``(t, out_features)``, in the dtype of ``x``. Equal circuits differ by exactly zero.
    """
    matrices = _matrices(plan, stacks, x.dtype)
    if torch.compiler.is_compiling():
        # The compiler derives the backward pass and decides what to keep.
        (last,) = _forward(plan, x, matrices, keep=False)
        return _finish(plan, last, None if weight is None else linear(x, weight, bias), len(x))
    if recompute is None:
        recompute = plan.kept * x.shape[0] * x.element_size() > MOST_KEPT
    keep = torch.is_grad_enabled() and not recompute
    result: Tensor = _Blocks.apply(  # type: ignore[no-untyped-call]
        plan, keep, weight, bias, x, *matrices
    )
    return result


def _matrices(plan: Plan, stacks: Stacks, dtype: torch.dtype) -> list[Tensor]:
    """Each block's matrices, ``(circuits, rows, columns)``, over its axes in memory order."""
    matrices = []
    for block in plan.blocks:
        parts = []
        for gate in block.gates:
            own = [stack[gate] for stack in stacks]
            parts.append((own[0][None] if len(own) == 1 else torch.stack(own)).to(dtype))
        first, *others = parts
        if block.swapped:
            first = first.permute(0, 2, 1, 4, 3)
        for equation, part in zip(block.contractions, others, strict=True):
            first = torch.einsum(equation, first, part)
        matrices.append(first.reshape(len(stacks), block.rows, block.columns))
    return matrices


class _Blocks(torch.autograd.Function):
    """All blocks, each as one matrix product."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        keep: bool,
        weight: Tensor | None,
        bias: Tensor | None,
        x: Tensor,
        *matrices: Tensor,
    ) -> Tensor:
        *inputs, last = _forward(plan, x, matrices, keep=keep)
        ctx.plan, ctx.kept, ctx.folded = plan, keep, weight is not None
        kept = inputs if keep else (x,)
        ctx.save_for_backward(*matrices, *(() if weight is None else (weight,)), *kept)
        return _finish(plan, last, None if weight is None else linear(x, weight, bias), len(x))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, grad: Tensor) -> Any:
        plan: Plan = ctx.plan
        saved, blocks = ctx.saved_tensors, len(plan.blocks)
        matrices, inputs = saved[:blocks], saved[blocks:]
        needs_dx, *needs_grad = ctx.needs_input_grad[4:]
        dx = None
        if ctx.folded:
            weight, *inputs = inputs
            dx = grad @ weight if needs_dx else None
        if not ctx.kept:
            inputs = _forward(plan, inputs[0], matrices, keep=True)[:-1]
        last_grad = _last_block_grad(plan, grad)
        g, matrix_grads = _backward(plan, inputs, matrices, last_grad, needs_grad=needs_grad)
        if needs_dx:
            dx = _input_grad(plan.blocks[0], matrices[0], g, dx, len(grad))
        return (None, None, None, None, dx, *map(_pad_frozen, matrix_grads, matrices))


def _pad_frozen(gradient: Tensor | None, matrices: Tensor) -> Tensor | None:
    """Extend the first circuit's gradient to the stacked matrices, with zeros for the other."""
    if gradient is None or len(matrices) == 1:
        return gradient if gradient is None else gradient[None]
    return torch.cat((gradient[None], torch.zeros_like(matrices[1:])))


def _finish(plan: Plan, x: Tensor, base: Tensor | None, count: int) -> Tensor:
    """The last block's output as vectors in their own axis order, added to ``base`` in place."""
    x = x[0] if x.shape[0] == 1 else x[0] - x[1]
    last = plan.blocks[-1].last
    x = _rearrange(x[None], plan.out_sizes, plan.back, count, (last, False)).reshape(count, -1)
    if base is None:
        return x
    return base + x if torch.is_grad_enabled() else base.add_(x)


def _last_block_grad(plan: Plan, grad: Tensor) -> Tensor:
    """The gradient with respect to the last block's output, in that output's layout."""
    layouts = (False, plan.blocks[-1].last)
    return _rearrange(grad[None], plan.own_sizes, plan.forth, len(grad), layouts)


def _forward(plan: Plan, x: Tensor, matrices: Sequence[Tensor], *, keep: bool) -> list[Tensor]:
    """The first circuit's input to each block, then the last block's output, circuits in front.

    The inputs are returned only with ``keep``.
    """
    circuits, count = matrices[0].shape[0], x.shape[0]
    first = plan.blocks[0]
    x = _operand(first, x)
    states = [x] if keep else []
    if first.last:
        # The matrices of both circuits are concatenated by rows.
        x = _matmul(matrices[0].reshape(1, circuits * first.rows, first.columns), x[None])
        if circuits > 1:
            x = x.reshape(first.batch, circuits, -1).transpose(0, 1)
    else:
        x = _after_vectors(x.expand(circuits, -1, -1), matrices[0])
    before = first
    for block, matrix in zip(plan.blocks[1:], matrices[1:], strict=True):
        x = _rearrange(x, before.after, block.move, count, (before.last, block.last))
        x = x.reshape(circuits, *_shape(block, count))
        if keep:
            # The second circuit is frozen, so cloning lets its part of the memory be freed.
            states.append(x[0] if circuits == 1 else x[0].clone())
        x = _matmul(matrix, x) if block.last else _after_vectors(x, matrix)
        before = block
    return [*states, x]


def _backward(
    plan: Plan,
    inputs: Sequence[Tensor],
    matrices: Sequence[Tensor],
    g: Tensor,
    *,
    needs_grad: Sequence[bool],
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradients of the first block's output and of the first circuit's matrices.

    Args:
        plan: the plan.
        inputs: each block's input, from `_forward`.
        matrices: the blocks' matrices.
        g: the gradient of the last block's output, for one circuit.
        needs_grad: whether each matrix needs a gradient.
    """
    circuits = matrices[0].shape[0]
    if circuits == 2:
        g = torch.cat((g, -g))
    gradients: list[Tensor | None] = [None] * len(plan.blocks)
    for index in range(len(plan.blocks) - 1, -1, -1):
        block, matrix, x = plan.blocks[index], matrices[index], inputs[index]
        if block.last:
            count = x.shape[-1] // block.rest
            g = g.reshape(circuits, block.batch, block.rows, -1)
            gradients[index] = _outer(g[0], x) if needs_grad[index] else None
        else:
            count = x.shape[0] // block.batch
            g = g.reshape(circuits, -1, block.rows)
            gradients[index] = torch.mm(g[0].mT, x) if needs_grad[index] else None
        if index:
            g = _matmul(matrix.mT, g) if block.last else _after_vectors(g, matrix.mT)
            before = plan.blocks[index - 1].last
            g = _rearrange(g, block.sizes, block.unmove, count, (block.last, before))
    return g, gradients


def _input_grad(block: Block, matrix: Tensor, g: Tensor, dx: Tensor | None, count: int) -> Tensor:
    """The gradient of the vectors, ``(t, in_features)``, added to ``dx`` in place.

    Args:
        block: the first block.
        matrix: its matrices, ``(circuits, rows, columns)``.
        g: the gradient of its output, circuits in front.
        dx: another gradient of the vectors to add to, or ``None``.
        count: number of vectors.
    """
    if block.last:
        g = g.transpose(0, 1).reshape(block.batch, -1, g.shape[-1])
        g = _matmul(matrix.reshape(1, -1, block.columns).mT, g[None])
    else:
        in_place = dx is not None and block.reads_in_place
        total = dx.view(-1, block.columns) if dx is not None and in_place else None
        for part, own in zip(g, matrix, strict=True):
            total = torch.mm(part, own) if total is None else total.addmm_(part, own)
        if in_place:
            return cast(Tensor, dx)
        g = cast(Tensor, total)[None]
    g = _rearrange(g, block.sizes, block.unmove, count, (block.last, False)).reshape(count, -1)
    return g if dx is None else dx.add_(g)


def _operand(block: Block, x: Tensor) -> Tensor:
    """Vectors ``(t, in_features)`` in the layout of the first block."""
    count = x.shape[0]
    x = _rearrange(x[None], block.before, block.move, count, (False, block.last))
    return x.reshape(_shape(block, count))


def _shape(block: Block, count: int) -> tuple[int, ...]:
    """The shape of a block's input, for one circuit."""
    if block.last:
        return (block.batch, block.columns, block.rest * count)
    return (count * block.batch, block.columns)


def _after_vectors(x: Tensor, matrix: Tensor) -> Tensor:
    """``(circuits, n, c)`` times ``(circuits, r, c)`` transposed."""
    if len(x) == 1:
        return torch.mm(x[0], matrix[0].mT)[None]
    return torch.bmm(x, matrix.mT)


def _matmul(matrix: Tensor, x: Tensor) -> Tensor:
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


def _rearrange(
    x: Tensor,
    sizes: Sequence[int],
    order: Order | None,
    count: int,
    last: tuple[bool, bool],
) -> Tensor:
    """Permute the axes, and move the vectors from first to last or back.

    Args:
        x: the data, circuits in front.
        sizes: sizes of the axes in their current order.
        order: the new order, by current position; ``None`` if unchanged.
        count: number of vectors.
        last: whether the vectors are last, before and after.
    """
    before, after = last
    if after and not before:
        x = _transpose(x.reshape(len(x), count, -1))
    if order is not None:
        places = (0, *(1 + axis for axis in order))
        if before or after:
            shape: tuple[int, ...] = (len(x), *sizes, count)
            places += (1 + len(order),)
        else:
            shape = (len(x) * count, *sizes)
        circuits = len(x)
        x = x.reshape(shape).permute(places).contiguous()
        x = x.reshape(circuits, -1)
    if before and not after:
        x = _transpose(x.reshape(len(x), -1, count))
    return x


def _transpose(x: Tensor) -> Tensor:
    """``(circuits, m, n)`` as a contiguous ``(circuits, n, m)``."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x[0].numel() > CACHED:
        return x.mT.contiguous()
    # torch transposes a matrix on one thread; with an extra axis it uses all threads, which is
    # faster as long as the matrix fits into the cache.
    parts = 2 if x.shape[2] % 2 == 0 else 1
    transposed = x.reshape(*x.shape[:2], parts, -1).permute(0, 2, 3, 1)
    return transposed.reshape(len(x), x.shape[2], x.shape[1])
