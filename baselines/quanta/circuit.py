"""The circuit engine: axes and gates, compiled into one sequence of steps.

A vector of length ``d`` is viewed in row-major order as a tensor with one axis per entry of
``sizes``. A gate is a linear map on one or two of those axes, the identity on the rest; a circuit
is a sequence of gates (QuanTA paper, Eq. 4 and 5; arXiv:2406.00132). Hidden axes of a language
model and qubits (axes of size 2) are treated alike.

`Circuit` validates everything when it is built and has no weights: gate tensors are passed at each
call, so that one plan serves trained gates, their frozen copies, and gates with batch dimensions.
"""

from __future__ import annotations

import ast
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from baselines.quanta import execution, expressions
from baselines.quanta.gate import Gate
from baselines.quanta.planning import MOST_AXES, Act, Plan, gate_by_gate, make_plan, planned_tokens
from baselines.quanta.rates import rates_of

COMPILED_TOKENS = 512
"""Number of vectors that compiled code is planned for."""


@dataclass(frozen=True)
class Step:
    """One gate, in the axis order left by the previous steps."""

    axes: tuple[int, ...]  # non-negative, as the gate names them
    in_sizes: tuple[int, ...]
    out_sizes: tuple[int, ...]
    rest: int  # product of the sizes of the axes not acted on
    permutation: tuple[int, ...] | None  # moves the gate's axes first; None if they are there
    swapped: bool  # they are in front, in reverse order
    sizes: tuple[int, ...]  # all sizes after the step, in the resulting order

    @property
    def fan_in(self) -> int:
        """Input length of the gate as a matrix."""
        return math.prod(self.in_sizes)

    @property
    def fan_out(self) -> int:
        """Output length of the gate as a matrix."""
        return math.prod(self.out_sizes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the gate's tensor, without batch dimensions."""
        return self.out_sizes + self.in_sizes


class Circuit:
    """Axes and gates, planned once.

    Args:
        sizes: Sizes of the axes of the input.
        gates: Gates in the order in which they act on the input.

    Raises:
        ValueError: An axis size is below 1, an axis does not exist, or a fixed value has the
            wrong shape. The message names the gate.

    Example:
        >>> circuit = Circuit.all_pairs((4, 3, 2))
        >>> circuit.einsum_expression()
        '...abc,efbc,diaf,ghde->...ghi'
    """

    def __init__(self, sizes: Iterable[int], gates: Iterable[Gate]) -> None:
        self.sizes = tuple(sizes)
        self.gates = tuple(gates)
        if not self.sizes:
            raise ValueError("Circuit: sizes is empty; a circuit needs at least one axis")
        for size in self.sizes:
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(
                    f"Circuit: sizes {self.sizes} has {size!r}; sizes are positive integers"
                )
        self._plan()

    @classmethod
    def all_pairs(
        cls, dims: Sequence[int], *, first_in: int | None = None, first_out: int | None = None
    ) -> Circuit:
        """The paper's circuit: one gate for each pair of axes, last pair first (App. G).

        Args:
            dims: Axis sizes ``d_1 .. d_N``, at least two.
            first_in: Size of the first axis of the input, if not ``d_1``: the first gate on that
                axis maps it to ``d_1`` (App. B).
            first_out: Size of the first axis of the output, if not ``d_1``: the last gate on that
                axis maps it to that size (App. B).

        Raises:
            ValueError: Fewer than two axes or a size below 1.
        """
        dims = tuple(dims)
        if len(dims) < 2:
            raise ValueError(f"Circuit.all_pairs({dims}): a gate needs a pair of axes; give two")
        count = len(dims)
        pairs = [
            (late % count, early % count)
            for early, late in itertools.combinations(range(-1, -count - 1, -1), 2)
        ]
        touching = [index for index, pair in enumerate(pairs) if 0 in pair]
        gates = []
        for index, (m, n) in enumerate(pairs):
            out_m = dims[m]
            if index == touching[-1] and first_out is not None:
                out_m = first_out
            in_m = dims[m]
            if index == touching[0] and first_in is not None:
                in_m = first_in
            # Set only where it differs, so that a square circuit prints as one.
            gates.append(Gate((m, n), None if out_m == in_m else (out_m, dims[n])))
        return cls((dims[0] if first_in is None else first_in, *dims[1:]), gates)

    def _plan(self) -> None:
        order = list(range(len(self.sizes)))
        sizes = list(self.sizes)
        steps = []
        for index, gate in enumerate(self.gates):
            where = f"Circuit(sizes={self.sizes}): gate {index}, {gate!r}"
            for axis in gate.axes:
                if not -len(sizes) <= axis < len(sizes):
                    raise ValueError(
                        f"{where}: axis {axis} does not exist; axes run from 0 to {len(sizes) - 1}"
                    )
            axes = tuple(axis % len(sizes) for axis in gate.axes)
            if len(set(axes)) != len(axes):
                raise ValueError(f"{where}: both axes are axis {axes[0]}")
            in_sizes = tuple(sizes[axis] for axis in axes)
            out_sizes = in_sizes if gate.out is None else gate.out
            head = tuple(order[: len(axes)])
            swapped = len(axes) == 2 and head == axes[::-1]
            permutation = None
            if not swapped and head != axes:
                after = [*axes, *(axis for axis in range(len(sizes)) if axis not in axes)]
                permutation = tuple(order.index(axis) for axis in after)
                order = after
            rest = math.prod(sizes) // math.prod(in_sizes)
            for axis, size in zip(axes, out_sizes, strict=True):
                sizes[axis] = size
            after_sizes = tuple(sizes[axis] for axis in order)
            step = Step(axes, in_sizes, out_sizes, rest, permutation, swapped, after_sizes)
            if gate.value is not None:
                shape = tuple(gate.tensor().shape)
                if shape != step.shape:
                    raise ValueError(f"{where}: value has shape {shape}, not {step.shape}")
            steps.append(step)
        self.steps = tuple(steps)
        acts = tuple((step.axes, step.in_sizes, step.out_sizes) for step in steps)
        self._key = repr((self.sizes, acts))
        self.out_sizes = tuple(sizes)
        back = tuple(order.index(axis) for axis in range(len(sizes)))
        self._back = None if back == tuple(range(len(sizes))) else back

    # Properties.

    @property
    def in_features(self) -> int:
        """Length of the input vectors."""
        return math.prod(self.sizes)

    @property
    def out_features(self) -> int:
        """Length of the output vectors."""
        return math.prod(self.out_sizes)

    @property
    def gate_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensors that `apply` takes: those of the gates that are not fixed."""
        return tuple(
            step.shape for gate, step in zip(self.gates, self.steps, strict=True) if not gate.fixed
        )

    def parameter_count(self) -> int:
        """Entries of the trained gates: the sum of ``(d_m d_n)^2`` for square ones (Sec. 6)."""
        return sum(
            step.fan_out * step.fan_in
            for gate, step in zip(self.gates, self.steps, strict=True)
            if gate.trained
        )

    def multiply_adds(self) -> int:
        """Multiply-adds for one vector: ``d`` times the sum of ``d_m d_n`` if square (Sec. 6)."""
        return sum(step.rest * step.fan_out * step.fan_in for step in self.steps)

    def rank_bounds(self, ranks: Sequence[int] | None = None) -> tuple[int, int]:
        """Bounds on the rank of the circuit's matrix from the ranks of its gates (Theorem 6.2).

        Eq. 10 is Sylvester's inequality along the chain of gates; here it uses the length of the
        vector between two consecutive gates, which is always ``d`` if all gates are square. It
        bounds the rank of T. For the update T - S it only implies ``rank <= R(T) + R(S)``.

        Args:
            ranks: Rank of each gate as a matrix (out_m out_n, in_m in_n); full rank by default.

        Returns:
            The lower bound, at least 0, and the upper bound.

        Raises:
            ValueError: The number of ranks is wrong, or a gate's shape does not allow its rank.
        """
        full = [min(step.fan_in, step.fan_out) for step in self.steps]
        ranks = full if ranks is None else list(ranks)
        if len(ranks) != len(full):
            raise ValueError(f"rank_bounds: {len(ranks)} ranks for {len(full)} gates")
        for index, (rank, most) in enumerate(zip(ranks, full, strict=True)):
            if not 0 <= rank <= most:
                raise ValueError(f"rank_bounds: gate {index} has rank {rank}; it is 0 to {most}")
        if not full:
            return self.in_features, self.in_features
        embedded = [step.rest * rank for step, rank in zip(self.steps, ranks, strict=True)]
        between = [step.rest * step.fan_out for step in self.steps[:-1]]
        return max(0, sum(embedded) - sum(between)), min(embedded)

    def einsum_expression(self) -> str:
        """The einsum expression of `apply` on axes: ``x, *gates`` in, axes out (App. G).

        Every gate is an operand, including fixed ones; given gates may have batch dimensions.
        Symbols are opt_einsum's: from the 53rd on (all pairs of 8 axes) they are no longer letters,
        and `opt_einsum.contract` accepts the expression but `torch.einsum` does not.
        """
        return expressions.apply_expression(len(self.sizes), self._operands())

    def operator_expression(self) -> str:
        """The einsum expression of the whole matrix, output axes first (Eq. 7, App. G).

        Raises:
            ValueError: No gate acts on an axis: einsum can't express the identity there.
        """
        return expressions.operator_expression(len(self.sizes), self._operands())

    def _operands(self) -> list[expressions.Operand]:
        pairs = zip(self.gates, self.steps, strict=True)
        return [expressions.Operand(step.axes, gate.given) for gate, step in pairs]

    # Execution.

    def plan(self, tokens: int, *, device: torch.device | str = "cpu") -> Plan:
        """How the circuit is applied to this many vectors: ``print(circuit.plan(tokens=512))``.

        Circuits of more than `MOST_AXES` axes are applied gate by gate.

        Args:
            tokens: Number of vectors, rounded down to a power of two for planning.
            device: Device of the vectors.

        Raises:
            ValueError: ``tokens`` is below 1.
        """
        if tokens < 1:
            raise ValueError(f"plan: tokens is {tokens}; it must be at least 1")
        if len(self.sizes) > MOST_AXES or not self.gates:
            return gate_by_gate(self.sizes, self._acts)
        tokens = planned_tokens(tokens)
        rates = rates_of(torch.device(device).type)
        return make_plan(self.sizes, self._acts, rates, tokens)

    def apply(
        self,
        x: Tensor,
        gates: Sequence[Tensor],
        *,
        minus: Sequence[Tensor] | None = None,
        recompute: bool | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Apply the circuit to vectors (Eq. 5).

        Args:
            x: Shape ``(..., in_features)``, any floating or complex dtype.
            gates: One tensor for each gate that is not fixed, in order. A given gate's leading
                batch dimensions broadcast against those of ``x``.
            minus: Gates of the same circuit whose result is subtracted, computed in the same pass
                (Eq. 8). They are frozen and get no gradient. Equal gates give exact zeros.
            recompute: Keep only ``x`` for the backward pass and recompute the rest; `None` does so
                if more than 64 MiB would be kept in addition to ``x``.
            weight: A frozen matrix ``(out_features, in_features)`` whose product with ``x`` is
                added.
            bias: A frozen vector ``(out_features,)``, added with it.

        Returns:
            Shape ``(..., out_features)``, in the dtype that ``x`` and the gates promote to, or
            autocast's if enabled.

        Raises:
            ValueError: The number of gates, a gate's shape, or the length of the vectors is wrong.
        """
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(
                f"apply: x has shape {tuple(x.shape)}; the last size must be {self.in_features}, "
                f"the product of {self.sizes}"
            )
        stacks = [self.tensors(x, gates)]
        if minus is not None:
            stacks.append(self.tensors(x, [gate.detach() for gate in minus]))
        tensors = [tensor for stack in stacks for tensor in stack]
        dtype = result_dtype(x, tensors)
        x = x.to(dtype)
        # Meta and empty tensors, used to count work and memory, go gate by gate.
        if x.numel() and not x.is_meta and self._planned(tensors, dtype):
            lead, rows = x.shape[:-1], x.reshape(-1, self.in_features)
            plan = _plan_for(self, rows)
            weight, bias = (part if part is None else part.to(dtype) for part in (weight, bias))
            result = execution.run(
                plan, rows, stacks, recompute=recompute, weight=weight, bias=bias
            )
            return result.reshape(*lead, self.out_features)
        result, *subtracted = (
            self._gate_by_gate(x, [tensor.to(dtype) for tensor in stack]) for stack in stacks
        )
        for other in subtracted:
            result = result - other
        if weight is not None:
            result = result + functional.linear(x, weight, bias)
        return result

    def _planned(self, tensors: Sequence[Tensor], dtype: torch.dtype) -> bool:
        """Whether a plan supports these: few axes, real dtype, gates without batch dimensions."""
        return (
            len(self.steps) > 0
            and len(self.sizes) <= MOST_AXES
            and dtype.is_floating_point
            # torch.func.vmap adds batch dimensions that cannot be seen; torch.compile cannot ask.
            and (
                torch.compiler.is_compiling()
                or not any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors))
            )
            and all(
                tensor.dim() == 2 * len(step.axes)
                for tensor, step in zip(tensors, itertools.cycle(self.steps), strict=False)
            )
        )

    def _gate_by_gate(self, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        batched = any(
            tensor.dim() > 2 * len(step.axes)
            for tensor, step in zip(tensors, self.steps, strict=True)
        )
        # The vector dimension is last while the gates act, so that a gate moves long contiguous
        # runs, many times faster than single elements. If a gate has batch dimensions of its own,
        # the leading dimensions stay in front instead.
        lead = x.shape[:-1]
        x = x.unsqueeze(-1) if batched else x.reshape(-1, self.in_features).mT.contiguous()
        x = x.reshape(*x.shape[:-2], *self.sizes, x.shape[-1])
        for tensor, step in zip(tensors, self.steps, strict=True):
            x = _apply_step(x, tensor, step, len(self.sizes))
        if self._back is not None:
            x = _permute(x, self._back)
        x = x.reshape(*x.shape[: x.dim() - len(self.sizes) - 1], self.out_features, x.shape[-1])
        return x.squeeze(-1) if batched else x.mT.contiguous().reshape(*lead, self.out_features)

    def matrix(self, gates: Sequence[Tensor]) -> Tensor:
        """The circuit as a matrix: ``apply(x, gates) == x @ matrix(gates).mT``.

        Args:
            gates: As for `apply`.

        Returns:
            Shape ``(..., out_features, in_features)``, leading dimensions those of the gates.
        """
        tensors = list(gates)
        dtype, device = torch.get_default_dtype(), torch.device("cpu")
        if tensors:
            dtype, device = tensors[0].dtype, tensors[0].device
        shapes = self.gate_shapes
        for index, (tensor, shape) in enumerate(zip(tensors, shapes, strict=False)):
            batch = tensor.dim() - len(shape)
            if batch > 0:  # the rows of the identity are one more batch dimension, the last
                tensors[index] = tensor.unsqueeze(batch)
        identity = torch.eye(self.in_features, dtype=dtype, device=device)
        return self.apply(identity, tensors).mT

    def tensors(self, x: Tensor, gates: Sequence[Tensor]) -> list[Tensor]:
        """One tensor for each gate, including fixed ones.

        Raises:
            ValueError: The number of gates or a gate's shape is wrong.
        """
        shapes = self.gate_shapes
        if len(gates) != len(shapes):
            raise ValueError(
                f"{len(gates)} gate tensors for a circuit with {len(shapes)} gates that take one"
            )
        remaining = iter(gates)
        tensors = []
        for index, (gate, step) in enumerate(zip(self.gates, self.steps, strict=True)):
            if gate.fixed:
                value = self._fixed[index]
                # Real values follow the input; a complex one makes it complex, not more precise.
                dtype = (
                    torch.promote_types(x.dtype, torch.complex32) if value.is_complex() else None
                )
                tensors.append(value.to(x.device, dtype or x.dtype))
                continue
            tensor = next(remaining)
            shape = tuple(tensor.shape)
            expected = step.shape
            if shape[len(shape) - len(expected) :] != expected or (
                gate.trained and shape != expected
            ):
                dots = "..., " if gate.given else ""
                raise ValueError(
                    f"gate {index}, {gate!r}: tensor of shape {shape}, expected "
                    f"({dots}{', '.join(map(str, expected))})"
                )
            tensors.append(tensor)
        return tensors

    @cached_property
    def _acts(self) -> tuple[Act, ...]:
        return tuple(Act(step.axes, step.in_sizes, step.out_sizes) for step in self.steps)

    @cached_property
    def _fixed(self) -> dict[int, Tensor]:
        return {index: gate.tensor() for index, gate in enumerate(self.gates) if gate.fixed}

    def __repr__(self) -> str:
        return f"Circuit({self.sizes}, {self.gates})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Circuit):
            return NotImplemented
        return (self.sizes, self.gates) == (other.sizes, other.gates)

    def __hash__(self) -> int:
        return hash((self.sizes, self.gates))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator,unused-ignore]
def _compiled_plan(key: str, device: str) -> Plan:
    # A compiled graph serves batches of any length, so its plan is for a typical one. The circuit
    # is passed as text: not every compiler version accepts an object as a constant, and integers
    # may become symbolic.
    sizes, acts = ast.literal_eval(key)
    return make_plan(sizes, tuple(Act(*act) for act in acts), rates_of(device), COMPILED_TOKENS)


def _plan_for(circuit: Circuit, rows: Tensor) -> Plan:
    if torch.compiler.is_compiling():
        plan: Plan = _compiled_plan(circuit._key, rows.device.type)
        return plan
    return circuit.plan(max(1, rows.shape[0]), device=rows.device)


def result_dtype(x: Tensor, tensors: Sequence[Tensor]) -> torch.dtype:
    """The dtype of the computation: autocast's, or what vectors and gates promote to."""
    if _autocasts(x, tensors):
        return torch.get_autocast_dtype(x.device.type)
    return functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), x.dtype)


def _autocasts(x: Tensor, tensors: Sequence[Tensor]) -> bool:
    """Whether autocast casts all operands to its own dtype; it skips double and complex."""
    # The meta device has no autocast.
    return (
        not x.is_meta
        and torch.is_autocast_enabled(x.device.type)
        and all(
            tensor.is_floating_point() and tensor.dtype != torch.float64 for tensor in (x, *tensors)
        )
    )


def _permute(x: Tensor, permutation: tuple[int, ...]) -> Tensor:
    """Permute the axes, which are between the leading dimensions and the last one."""
    lead = x.dim() - len(permutation) - 1
    return x.permute(*range(lead), *(lead + axis for axis in permutation), x.dim() - 1)


def _apply_step(x: Tensor, gate: Tensor, step: Step, axes: int) -> Tensor:
    """Apply one gate as one matrix product; ``x`` keeps the resulting axis order."""
    if step.permutation is not None:
        x = _permute(x, step.permutation)
    if step.swapped:  # transposing the gate is cheaper than transposing the vectors
        gate = gate.transpose(-1, -2).transpose(-3, -4)
    batch = gate.shape[: gate.dim() - 2 * len(step.axes)]
    lead, last = x.shape[: x.dim() - axes - 1], x.shape[-1]
    matrix = gate.reshape(*batch, step.fan_out, step.fan_in)
    x = torch.matmul(matrix, x.reshape(*lead, step.fan_in, step.rest * last))
    return x.reshape(*x.shape[:-2], *step.sizes, last)
