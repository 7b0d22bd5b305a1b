"""A circuit on a GPU in few kernels: vectors stay on chip between the gates.

Needs Triton, which comes with PyTorch for CUDA; without it, and for unsupported circuits or dtypes,
the planner's path is used.
"""

from __future__ import annotations

import functools
import importlib.metadata
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from packaging.version import Version
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from baselines.quanta.layout import Layout

LEAST_TRITON = "3.6"
"""The oldest version that the kernels are tested with."""

SUM_BLOCK = 128
"""Gate entries whose partial sums one program reduces."""

ALIGNMENT = 16
"""Address alignment in bytes that the kernels expect, for 16-byte loads."""

Launch: TypeAlias = Callable[..., None]


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed in a version that accepts tuples of integers as constants."""
    try:
        return Version(importlib.metadata.version("triton")) >= Version(LEAST_TRITON)
    except importlib.metadata.PackageNotFoundError:
        return False


class _Switch(threading.local):
    """Whether the kernels are disabled in this thread."""

    off = False


_switch = _Switch()


@contextmanager
def disabled() -> Iterator[None]:
    """A block in which this thread's forward passes take the planner's path."""
    previous, _switch.off = _switch.off, True
    try:
        yield
    finally:
        _switch.off = previous


class Kernels:
    """The kernels of one circuit, compiled for one device.

    Args:
        layout: layout of the circuit.
        dtype: dtype of the computation.
        in_features: length of the input vectors.
        out_features: length of the output vectors.
        subtract: whether a second circuit is subtracted.
        add: whether the result is added to the output's current content.
        device: device of the kernels.

    Attributes:
        block: vectors per tile.
        groups: number of gate groups, each with its gradients computed by one program.
        processors: number of multiprocessors of the device.
        fit: whether a multiprocessor has enough shared memory.
    """

    def __init__(
        self,
        layout: Layout,
        dtype: torch.dtype,
        in_features: int,
        out_features: int,
        subtract: bool,
        add: bool,
        device: torch.device,
    ) -> None:
        from baselines.quanta import triton_kernels

        self.block, self.groups = layout.block(dtype), len(layout.groups) - 1
        constants = {
            "BLOCK": self.block,
            "GATES": layout.gates,
            "COUNT": len(layout.gates),
            "GROUPS": layout.groups,
            "GROUP_COUNT": self.groups,
            "IN_AXES": layout.in_axes,
            "IN_SIZES": layout.in_sizes,
            "IN_PADDED": layout.in_padded,
            "IN_LENGTH": in_features,
            "OUT_AXES": layout.out_axes,
            "OUT_SIZES": layout.out_sizes,
            "OUT_PADDED": layout.out_padded,
            "OUT_LENGTH": out_features,
            "SUBTRACT": subtract,
            "ADD": add,
            # Three TF32 products on tensor cores match the precision of one in float32.
            "PRECISION": "tf32x3" if dtype == torch.float32 else "ieee",
        }
        self.processors, limit = 3, None
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            self.processors = properties.multi_processor_count
            limit = getattr(properties, "shared_memory_per_block_optin", 48 << 10)
        self.fit = True

        def compiled(kernel: Any, *types: Any, **more: Any) -> Launch:
            launch, shared = _compiled(kernel, types, {**constants, **more}, layout.warps)
            self.fit &= limit is None or shared <= limit
            return launch

        single = torch.float32
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            self.forward = compiled(triton_kernels.forward_kernel, *4 * [dtype], 1)
            self.backward = compiled(triton_kernels.backward_kernel, *4 * [dtype], 1)
            self.gradients = compiled(triton_kernels.gradient_kernel, *3 * [dtype], single, 1, 1)
            self.sum = compiled(triton_kernels.sum_kernel, single, single, 1, 1, BLOCK=SUM_BLOCK)


def _compiled(
    kernel: Any, types: Sequence[Any], constants: Mapping[str, Any], warps: int
) -> tuple[Launch, int]:
    """A function ``launch(grid, *arguments)`` for a kernel, and its shared memory in bytes.

    Launching a compiled kernel directly avoids Triton's per-call overhead, which with tuples among
    the constants exceeds the run time of a small kernel.
    """
    from triton.runtime import JITFunction

    values = [constants[name] for name in kernel.arg_names if name in constants]
    if not isinstance(kernel, JITFunction):  # Triton's interpreter
        return lambda grid, *arguments: kernel[grid](*arguments, *values), 0
    program = kernel.warmup(*types, *values, grid=(1,), num_warps=warps, num_stages=1)
    return lambda grid, *arguments: program[grid](*arguments, *values), program.metadata.shared


kernels_of = functools.cache(Kernels)
"""The kernels for these arguments, compiled once."""


def fits(layout: Layout, x: Tensor, dtype: torch.dtype, out_features: int) -> bool:
    """Whether the kernels support these vectors; the first call compiles them to find out.

    Args:
        layout: layout of the circuit.
        x: the vectors.
        dtype: dtype of the computation.
        out_features: length of the output vectors.
    """
    if not x.is_cuda or not x.numel() or not layout.block(dtype) or not has_triton():
        return False
    if _switch.off:
        return False
    if not layout.takes(x.numel() // x.shape[-1]):
        return False
    return kernels_of(layout, dtype, x.shape[-1], out_features, True, True, x.device).fit


def run(
    layout: Layout,
    x: Tensor,
    gates: Sequence[Tensor],
    *,
    minus: Sequence[Tensor] | None,
    out_features: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Apply a circuit, or the difference of two, to vectors.

    Args:
        layout: layout of a circuit that `fits`.
        x: Shape ``(t, in_features)``, in the dtype of the computation. Vectors shorter than the
            circuit's are padded with zeros, longer ones truncated.
        gates: The gates, in any real dtype.
        minus: Frozen gates whose result is subtracted.
        out_features: Length of the output vectors, padded or truncated likewise.
        weight: A frozen matrix ``(out_features, in_features)`` in the dtype of ``x``, whose product
            with the vectors is added.
        bias: A frozen vector ``(out_features,)`` in the dtype of ``x``, added with it.

    Returns:
        Shape ``(t, out_features)``, in the dtype of ``x``. Equal circuits differ by exactly zero.
    """
    result: Tensor = _Fused.apply(  # type: ignore[no-untyped-call]
        layout, out_features, minus, weight, bias, x, *gates
    )
    return result


class _Fused(torch.autograd.Function):
    """The circuit and its frozen layer; keeps only the vectors for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        layout: Layout,
        out_features: int,
        minus: Sequence[Tensor] | None,
        weight: Tensor | None,
        bias: Tensor | None,
        x: Tensor,
        *gates: Tensor,
    ) -> Tensor:
        x = _aligned(x)
        # Packing all gates into one vector takes two launches.
        packed = torch._C._nn.flatten_dense_tensors([*gates, *(minus or ())]).to(x.dtype)
        if weight is not None:
            y = linear(x, weight, bias)
        elif out_features > layout.out_features:
            y = x.new_zeros(len(x), out_features)
        else:
            y = x.new_empty(len(x), out_features)
        kernels = kernels_of(
            layout,
            x.dtype,
            x.shape[1],
            out_features,
            minus is not None,
            weight is not None,
            x.device,
        )
        trained, frozen = _halves(packed, layout.entries)
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            grid = (-(-len(x) // kernels.block), 1, 1)
            kernels.forward(grid, x, trained, frozen, y, len(x))
        ctx.layout, ctx.kernels, ctx.dtype = layout, kernels, gates[0].dtype
        ctx.save_for_backward(x, packed, weight)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, packed, weight = ctx.saved_tensors
        layout: Layout = ctx.layout
        kernels: Kernels = ctx.kernels
        grad = _aligned(grad)
        trained, frozen = _halves(packed, layout.entries)
        tiles = -(-len(x) // kernels.block)
        dx: Tensor | None = None
        gradients: Sequence[Tensor | None] = [None] * len(layout.shapes)
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            if ctx.needs_input_grad[5]:
                if weight is not None:
                    dx = grad @ weight
                elif x.shape[1] > layout.in_features:
                    dx = torch.zeros_like(x)  # what the circuit truncates gets no gradient
                else:
                    dx = torch.empty_like(x)
                kernels.backward((tiles, 1, 1), grad, trained, frozen, dx, len(x))
            if any(ctx.needs_input_grad[6:]):
                programs, entries = min(tiles, kernels.processors), layout.entries
                parts = x.new_empty(programs, entries, dtype=torch.float32)
                total = x.new_empty(entries, dtype=torch.float32)
                grid = (programs, kernels.groups, 1)
                kernels.gradients(grid, x, trained, grad, parts, len(x), entries)
                kernels.sum((-(-entries // SUM_BLOCK), 1, 1), parts, total, programs, entries)
                total = total.to(ctx.dtype)
                gradients = torch._C._nn.unflatten_dense_tensors(total, layout.templates)
        return (None, None, None, None, None, dx, *gradients)


def _halves(packed: Tensor, entries: int) -> tuple[Tensor, Tensor]:
    """The gates of the circuit and of the subtracted one; the same twice if there is none."""
    return packed[:entries], _aligned(packed[len(packed) - entries :])


def _aligned(x: Tensor) -> Tensor:
    """A contiguous tensor with the alignment that the kernels expect."""
    x = x.contiguous()
    return x if x.data_ptr() % ALIGNMENT == 0 else x.clone()
