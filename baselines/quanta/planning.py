"""How a circuit is computed: which gates are merged into one matrix, and the memory order of axes.

A gate is cheap in multiply-adds but expensive in memory traffic: applied one by one, gates move
every vector about once per gate. A plan merges gates if one larger matrix costs less than another
pass over memory, and orders the axes such that consecutive blocks act on adjacent axes, which needs
no data movement.

The vector dimension is first or last. First, as in the input: with axes ``(a, b, c)`` and ``t``
vectors the tensor ``(t, a, b, c)`` is a matrix ``(t a, b c)``, so a block on the last axes is one
product without data movement; other blocks need their axes moved there, in short contiguous runs.
Last: ``(a, b, c, t)`` is a batch of ``a`` matrices ``(b c, t)``, so a block on any adjacent axes is
one batched product and moves use long runs; but all vectors have to be transposed before, and again
at the end.

The search is a shortest path from "no gate applied, axes in their own order, vectors first" to "all
gates applied, same layout". Gates without common axes commute, so the state has the set of applied
gates rather than their number.
"""

from __future__ import annotations

import heapq
import itertools
import math
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, TypeAlias

MOST_AXES = 5
"""Circuits with more axes have too many axis orders to search."""

Order: TypeAlias = tuple[int, ...]


def inverse(order: Order | None) -> Order | None:
    """The inverse permutation."""
    return None if order is None else tuple(sorted(range(len(order)), key=order.__getitem__))


class Rates(NamedTuple):
    """Costs other than arithmetic, in multiply-adds.

    Attributes:
        gather: permuting the axes with the vectors first, per element; plus `run` per contiguous
            run of elements.
        run: see `gather`.
        copy: permuting the axes with the vectors last, per element.
        turn: transposing all vectors, from first to last or back, per element.
        product: reading and writing an element in a matrix product, in addition to arithmetic.
        call: launching an operation.
    """

    gather: float
    run: float
    copy: float
    turn: float
    product: float
    call: float


class Act(NamedTuple):
    """A gate as the planner sees it: its axes, and their sizes before and after."""

    axes: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Gates applied as one matrix.

    Attributes:
        gates: indices of the gates in the circuit, in order of application.
        axes: the axes they act on, in memory order.
        move: the permutation of all axes to apply first, by current position; ``None`` if the
            axes stay in place.
        sizes: sizes of all axes after the move, before the block.
        after: the same after the block.
        first: number of axes in front of the block's axes.
        last: whether the vectors are last.
        swapped: whether it is a single gate whose axes are in reverse order.
        contractions: how to build the matrix of several gates: for each gate but the first, an
            einsum of the partial matrix and the gate, with the circuits in front.
        batch: product of the sizes in front of its axes.
        rows: number of rows of its matrix.
        columns: number of columns of its matrix.
        rest: product of the sizes behind its axes.
        reads_in_place: whether, as the first block, it reads the vectors without a copy.
        unmove: the inverse of `move`.
        before: sizes of all axes before the move.
    """

    gates: tuple[int, ...]
    axes: Order
    move: Order | None
    sizes: tuple[int, ...]
    after: tuple[int, ...]
    first: int
    last: bool
    swapped: bool = False
    contractions: tuple[str, ...] = ()
    batch: int = field(init=False)
    rows: int = field(init=False)
    columns: int = field(init=False)
    rest: int = field(init=False)
    reads_in_place: bool = field(init=False)
    unmove: Order | None = field(init=False)
    before: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        last = self.first + len(self.axes)
        for name, sizes in (
            ("batch", self.sizes[: self.first]),
            ("rows", self.after[self.first : last]),
            ("columns", self.sizes[self.first : last]),
            ("rest", self.sizes[last:]),
        ):
            object.__setattr__(self, name, math.prod(sizes))
        object.__setattr__(self, "reads_in_place", self.move is None and not self.last)
        unmove = inverse(self.move)
        before = self.sizes if unmove is None else tuple(self.sizes[place] for place in unmove)
        object.__setattr__(self, "unmove", unmove)
        object.__setattr__(self, "before", before)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one vector."""
        return self.batch * self.rows * self.columns * self.rest

    def __str__(self) -> str:
        gates = ", ".join(map(str, self.gates))
        axes = ", ".join(map(str, self.axes))
        moved = "" if self.move is None else f", after permuting the axes by {self.move}"
        return (
            f"gate{'s' * (len(self.gates) > 1)} {gates} as one {self.rows} x {self.columns} matrix "
            f"on axes {axes}, vectors {'last' if self.last else 'first'}: "
            f"{self.multiply_adds:,} multiply-adds{moved}"
        )


@dataclass(frozen=True)
class Plan:
    """The blocks of a circuit. ``print(plan)`` shows its steps and its cost.

    Attributes:
        blocks: the blocks in order of application.
        out_sizes: sizes of all axes after the last block, in memory order.
        back: the permutation that restores the axes' own order; ``None`` if none is needed.
        tokens: number of vectors that it was planned for.
        cost: estimated cost for these, in multiply-adds, including copies, calls and building the
            matrices. 0 without a search.
        forth: the inverse of `back`.
        own_sizes: sizes of all axes after the last block, in their own order.
    """

    blocks: tuple[Block, ...]
    out_sizes: tuple[int, ...]
    back: Order | None
    tokens: int = field(default=1, compare=False)
    cost: float = field(default=0.0, compare=False)
    forth: Order | None = field(init=False)
    own_sizes: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        own = self.out_sizes if self.back is None else (self.out_sizes[at] for at in self.back)
        object.__setattr__(self, "forth", inverse(self.back))
        object.__setattr__(self, "own_sizes", tuple(own))

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one vector, without building the matrices."""
        return sum(block.multiply_adds for block in self.blocks)

    @property
    def copies(self) -> int:
        """How often all data are moved: to permute the axes or to transpose the vectors."""
        layouts = [False, *(block.last for block in self.blocks), False]
        turns = sum(a != b for a, b in itertools.pairwise(layouts))
        moves = sum(block.move is not None for block in self.blocks) + (self.back is not None)
        return moves + turns

    @property
    def kept(self) -> int:
        """Elements per vector that a backward pass keeps in addition to the vector."""
        first, *others = self.blocks
        in_place = first.reads_in_place
        return sum(math.prod(block.sizes) for block in (others if in_place else self.blocks))

    def __str__(self) -> str:
        lines = [
            f"{self.multiply_adds:,} multiply-adds per vector, {len(self.blocks)} matrices, "
            f"{self.copies} copies; estimated cost {self.cost:.3g} for {self.tokens} vectors"
        ]
        lines += [f"  {number}. {block}" for number, block in enumerate(self.blocks, 1)]
        if self.back is not None:
            lines.append(f"  The axes are permuted back by {self.back}.")
        return "\n".join(lines)


class _State(NamedTuple):
    done: int  # bit set of the applied gates
    order: Order  # memory order of the axes
    last: bool  # whether the vectors are last
    moving: bool = False  # only with vectors last: the axes are being permuted, at a fixed cost


class _Choice(NamedTuple):
    """Gates that can be applied next as one matrix."""

    gates: tuple[int, ...]
    axes: tuple[int, ...]
    done: int
    cost: float


def planned_tokens(tokens: int) -> int:
    """The number of vectors to plan for: rounded down to a power of two.

    Batch lengths vary from step to step, and costs change only slowly with them.
    """
    return 1 << max(0, tokens.bit_length() - 1)


@lru_cache(maxsize=1024)
def make_plan(sizes: tuple[int, ...], acts: tuple[Act, ...], rates: Rates, tokens: int) -> Plan:
    """The cheapest plan of a circuit.

    Args:
        sizes: sizes of the axes of the input, at most `MOST_AXES`.
        acts: the gates, in order of application.
        rates: the cost of memory traffic and of calls.
        tokens: number of vectors.

    Raises:
        ValueError: more than `MOST_AXES` axes.
    """
    if len(sizes) > MOST_AXES:
        raise ValueError(f"a circuit of {len(sizes)} axes is applied gate by gate, not planned")
    own = tuple(range(len(sizes)))
    orders = list(itertools.permutations(own))
    start, goal = _State(0, own, False), _State((1 << len(acts)) - 1, own, False)
    best: dict[_State, float] = {start: 0.0}
    parents: dict[_State, tuple[_State, tuple[int, ...]]] = {}
    tie = itertools.count()
    heap = [(0.0, next(tie), start)]
    choices: dict[int, list[_Choice]] = {}

    def reach(state: _State, before: _State, cost: float, gates: tuple[int, ...] = ()) -> None:
        if cost < best.get(state, math.inf):
            best[state] = cost
            parents[state] = before, gates
            heapq.heappush(heap, (cost, next(tie), state))

    while heap:
        cost, _, state = heapq.heappop(heap)
        if state == goal:
            break
        if cost > best[state]:
            continue
        done, order, last, moving = state
        if moving:
            for new in orders:
                reach(_State(done, new, True), state, cost)
            continue
        now = _sizes(sizes, acts, done)
        numbers = math.prod(now) * tokens
        reach(_State(done, order, not last), state, cost + rates.turn * numbers + rates.call)
        if last:
            reach(_State(done, own, True, True), state, cost + rates.copy * numbers + rates.call)
        else:
            for new in orders:
                gather = rates.gather + rates.run / _run(order, new, now)
                reach(_State(done, new, False), state, cost + gather * numbers + rates.call)
        if done not in choices:
            choices[done] = list(_choices(sizes, acts, done, rates, tokens))
        for choice in choices[done]:
            places = sorted(order.index(axis) for axis in choice.axes)
            together = places[-1] - places[0] == len(places) - 1
            if together and (last or places[-1] == len(order) - 1):
                reach(_State(choice.done, order, last), state, cost + choice.cost, choice.gates)
    return _trace(sizes, acts, parents, goal, tokens, best[goal])


def _run(order: Order, new: Order, sizes: tuple[int, ...]) -> int:
    """Length of contiguous runs: of the last axes that are adjacent both before and after."""
    run, place = sizes[new[-1]], order.index(new[-1])
    for axis in new[-2::-1]:
        if place == 0 or order[place - 1] != axis:
            break
        run, place = run * sizes[axis], place - 1
    return run


def _sizes(sizes: tuple[int, ...], acts: tuple[Act, ...], done: int) -> tuple[int, ...]:
    now = list(sizes)
    for index, act in enumerate(acts):
        if done >> index & 1:
            for axis, size in zip(act.axes, act.after, strict=True):
                now[axis] = size
    return tuple(now)


def _choices(
    sizes: tuple[int, ...], acts: tuple[Act, ...], done: int, rates: Rates, tokens: int
) -> Iterator[_Choice]:
    """Gates that can be merged next, without merges more expensive than the single gates."""
    seen: set[tuple[int, ...]] = set()
    for width in range(1, len(sizes) + 1):
        for subset in itertools.combinations(range(len(sizes)), width):
            inside = _inside(acts, done, set(subset))
            # Also the first gate alone: if several act on the same axes, all are inside.
            for gates in {inside, inside[:1]} - seen - {()}:
                seen.add(gates)
                choice, alone = _choice(sizes, acts, done, gates, rates, tokens)
                if len(gates) == 1 or choice.cost <= alone:
                    yield choice


def _choice(
    sizes: tuple[int, ...],
    acts: tuple[Act, ...],
    done: int,
    gates: tuple[int, ...],
    rates: Rates,
    tokens: int,
) -> tuple[_Choice, float]:
    """Gates merged into one matrix, and their cost one by one, each on vectors moved for it."""
    now = _sizes(sizes, acts, done)
    total = math.prod(now)
    axes = tuple(sorted({axis for gate in gates for axis in acts[gate].axes}))
    later = done | sum(1 << gate for gate in gates)
    after = _sizes(sizes, acts, later)
    columns = math.prod(now[axis] for axis in axes)
    rows = math.prod(after[axis] for axis in axes)
    cost = product_cost(total // columns * tokens, rows, columns, rates)
    alone = 0.0
    vectors, at = tokens * total, done
    for gate in gates:
        fan_in, fan_out = math.prod(acts[gate].before), math.prod(acts[gate].after)
        alone += product_cost(vectors // fan_in, fan_out, fan_in, rates)
        alone += rates.copy * vectors + rates.call
        if len(gates) > 1:  # building the matrix costs the same, on the rows of the identity
            entries = columns * math.prod(_sizes(sizes, acts, at)[axis] for axis in axes)
            cost += product_cost(entries // fan_in, fan_out, fan_in, rates)
            cost += rates.copy * entries + rates.call
        vectors = vectors // fan_in * fan_out
        at |= 1 << gate
    return _Choice(gates, axes, later, cost), alone


def product_cost(count: int, rows: int, columns: int, rates: Rates) -> float:
    """The cost of ``(rows, columns)`` times ``(columns, count)``."""
    return count * (rows * columns + rates.product * (rows + columns) / 2) + rates.call


def _inside(acts: tuple[Act, ...], done: int, subset: set[int]) -> tuple[int, ...]:
    """The gates that can be applied next on these axes: no earlier gate on their axes is left."""
    blocked: set[int] = set()
    gates: list[int] = []
    for index, act in enumerate(acts):
        if done >> index & 1:
            continue
        if subset.issuperset(act.axes) and not blocked.intersection(act.axes):
            gates.append(index)
        else:
            blocked.update(act.axes)
    return tuple(gates)


def _trace(
    sizes: tuple[int, ...],
    acts: tuple[Act, ...],
    parents: dict[_State, tuple[_State, tuple[int, ...]]],
    goal: _State,
    tokens: int,
    cost: float,
) -> Plan:
    path: list[tuple[_State, tuple[int, ...]]] = []
    state = goal
    while state in parents:
        before, gates = parents[state]
        path.append((state, gates))
        state = before
    own: Order = tuple(range(len(sizes)))
    current = own
    done = 0
    blocks = []
    for state, gates in reversed(path):
        if not gates:
            continue
        order = state.order
        now, after = _sizes(sizes, acts, done), _sizes(sizes, acts, state.done)
        inside = {axis for gate in gates for axis in acts[gate].axes}
        first = min(order.index(axis) for axis in inside)
        axes = order[first : first + len(inside)]
        blocks.append(
            Block(
                gates=gates,
                axes=axes,
                move=None if order == current else tuple(current.index(axis) for axis in order),
                sizes=tuple(now[axis] for axis in order),
                after=tuple(after[axis] for axis in order),
                first=first,
                last=state.last,
                swapped=len(gates) == 1 and axes != acts[gates[0]].axes,
                contractions=_contractions(axes, [acts[gate].axes for gate in gates]),
            )
        )
        current, done = order, state.done
    final = _sizes(sizes, acts, done)
    back = None if current == own else tuple(current.index(axis) for axis in own)
    return Plan(tuple(blocks), tuple(final[axis] for axis in current), back, tokens, cost)


def _contractions(axes: Order, gates: Sequence[Order]) -> tuple[str, ...]:
    """The einsums that merge gates into one matrix, outputs first, both ordered by ``axes``."""
    symbols = iter(string.ascii_letters[1:])  # the first one counts the circuits
    inputs: dict[int, str] = {}  # input symbols of the matrix, by axis
    now: dict[int, str] = {}  # its output symbols
    matrix = ""
    equations = []
    for number, gate in enumerate(gates):
        gate_inputs = "".join(now.get(axis) or next(symbols) for axis in gate)
        gate_outputs = "".join(next(symbols) for _ in gate)
        for axis, old, new in zip(gate, gate_inputs, gate_outputs, strict=True):
            inputs.setdefault(axis, old)
            now[axis] = new
        order = [axis for axis in axes if axis in now]
        merged = "".join(now[axis] for axis in order) + "".join(inputs[axis] for axis in order)
        if number:
            equations.append(f"a{matrix},a{gate_outputs}{gate_inputs}->a{merged}")
            matrix = merged
        else:
            matrix = gate_outputs + gate_inputs
    return tuple(equations)


def gate_by_gate(sizes: tuple[int, ...], acts: tuple[Act, ...]) -> Plan:
    """The plan that applies each gate separately, vectors last, axes moved to the front."""
    own: Order = tuple(range(len(sizes)))
    current: Order = own
    blocks = []
    for index, act in enumerate(acts):
        before = _sizes(sizes, acts, (1 << index) - 1)
        after = _sizes(sizes, acts, (2 << index) - 1)
        order = current
        if set(current[: len(act.axes)]) != set(act.axes):
            order = (*act.axes, *(axis for axis in own if axis not in act.axes))
        blocks.append(
            Block(
                gates=(index,),
                axes=order[: len(act.axes)],
                move=None if order == current else tuple(current.index(axis) for axis in order),
                sizes=tuple(before[axis] for axis in order),
                after=tuple(after[axis] for axis in order),
                first=0,
                last=True,
                swapped=order[: len(act.axes)] != act.axes,
            )
        )
        current = order
    final = _sizes(sizes, acts, (1 << len(acts)) - 1)
    back = None if current == own else tuple(current.index(axis) for axis in own)
    return Plan(tuple(blocks), tuple(final[axis] for axis in current), back)
