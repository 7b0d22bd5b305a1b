"""How a circuit is computed: which gates as one matrix, and in which order the axes stand.

A gate is cheap in multiply-adds and dear in memory traffic: gates that act one after the other move
every vector about as often as there are gates. A plan takes gates together where one larger matrix
costs less than another pass over memory, and has the axes stand so that several blocks in a row act
on axes that are neighbours, which moves nothing.

Vectors stand last. With axes ``(a, b, c)`` and ``t`` vectors, the tensor ``(a, b, c, t)`` is a
batch of ``a`` matrices ``(b c, t)``, so a block on ``b`` and ``c`` is one batched product. A block
on ``a`` and ``c`` needs ``b`` out of the way first, and that is a copy.

The search is a shortest path from "nothing has acted, the axes stand in their own order" to
"everything has acted, they stand so again". Gates on axes that have none in common change places
freely, so what has acted is a set of gates and not how many.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, TypeAlias

MOST_AXES = 5
"""Circuits of more axes have too many axis orders to look through."""

Order: TypeAlias = tuple[int, ...]


class Rates(NamedTuple):
    """What is dear beside arithmetic, in multiply-adds.

    Attributes:
        copy: to bring the axes into another order, for each number.
        product: to read and write a number in a product, beside its arithmetic.
        transpose: to put the vectors last, for each number; a first block whose axes stand last
            reads the vectors where they are, and spares it.
        call: to start an operation at all.
    """

    copy: float
    product: float
    transpose: float
    call: float


class Act(NamedTuple):
    """What a plan knows of a gate: its axes, and their sizes before and after."""

    axes: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Gates that are applied as one matrix.

    Attributes:
        gates: their places in the circuit, in the order in which they act.
        axes: the axes they act on, as these stand in memory.
        move: the order of all axes to bring about first, by their places before; ``None`` where
            nothing moves.
        sizes: sizes of all axes before the block acts, as they stand after the move.
        after: the same after it has acted.
        first: how many axes stand in front of its own.
        swapped: a single gate whose axes stand the other way round.
        inner: how its matrix is made, from the vectors of the identity; ``None`` for a single gate.
        batch: product of the sizes in front of its axes.
        rows: length of the vectors that its matrix gives.
        columns: length of those it takes.
        rest: product of the sizes behind its axes.
        reads_in_place: whether, as the first block, it can read the vectors as they are: its axes
            stand last.
    """

    gates: tuple[int, ...]
    axes: Order
    move: Order | None
    sizes: tuple[int, ...]
    after: tuple[int, ...]
    first: int
    swapped: bool = False
    inner: Plan | None = None
    batch: int = field(init=False)
    rows: int = field(init=False)
    columns: int = field(init=False)
    rest: int = field(init=False)
    reads_in_place: bool = field(init=False)

    def __post_init__(self) -> None:
        last = self.first + len(self.axes)
        for name, sizes in (
            ("batch", self.sizes[: self.first]),
            ("rows", self.after[self.first : last]),
            ("columns", self.sizes[self.first : last]),
            ("rest", self.sizes[last:]),
        ):
            object.__setattr__(self, name, math.prod(sizes))
        object.__setattr__(self, "reads_in_place", self.move is None and self.rest == 1)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one vector."""
        return self.batch * self.rows * self.columns * self.rest

    def __str__(self) -> str:
        gates = ", ".join(map(str, self.gates))
        axes = ", ".join(map(str, self.axes))
        moved = "" if self.move is None else f", after the axes are moved by {self.move}"
        return (
            f"gate{'s' * (len(self.gates) > 1)} {gates} as one {self.rows} x {self.columns} matrix "
            f"on axes {axes}: {self.multiply_adds:,} multiply-adds{moved}"
        )


@dataclass(frozen=True)
class Plan:
    """The blocks of a circuit. ``print(plan)`` says its steps and its cost.

    Attributes:
        blocks: in the order in which they act.
        out_sizes: sizes of all axes after the last block, as they stand then.
        back: brings the axes back into their own order; ``None`` if they stand in it.
        tokens: number of vectors that it was made for.
        cost: what the search takes it to cost for these, in multiply-adds; copies, calls and the
            making of the matrices included. 0 without a search.
    """

    blocks: tuple[Block, ...]
    out_sizes: tuple[int, ...]
    back: Order | None
    tokens: int = field(default=1, compare=False)
    cost: float = field(default=0.0, compare=False)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one vector, without the making of the matrices."""
        return sum(block.multiply_adds for block in self.blocks)

    @property
    def copies(self) -> int:
        """How often all vectors are moved to bring their axes into another order."""
        return sum(block.move is not None for block in self.blocks) + (self.back is not None)

    @property
    def kept(self) -> int:
        """Numbers a vector that a backward pass needs beside the vector itself."""
        first, *others = self.blocks
        in_place = first.reads_in_place
        return sum(math.prod(block.sizes) for block in (others if in_place else self.blocks))

    def __str__(self) -> str:
        lines = [
            f"{self.multiply_adds:,} multiply-adds a vector, {len(self.blocks)} matrices, "
            f"{self.copies} copies; {self.cost:.3g} with all that is dear, for {self.tokens}"
        ]
        lines += [f"  {number}. {block}" for number, block in enumerate(self.blocks, 1)]
        if self.back is not None:
            lines.append(f"  The axes are moved back by {self.back}.")
        return "\n".join(lines)


VECTORS_FIRST: Order = ()
"""How the axes stand before anything has been done."""


class _State(NamedTuple):
    done: int  # bit by bit, the gates that have acted
    order: Order | None  # how the axes stand; None while they are being moved


class _Choice(NamedTuple):
    """Gates that can act next as one matrix."""

    gates: tuple[int, ...]
    axes: tuple[int, ...]
    done: int
    cost: float


def planned_tokens(tokens: int) -> int:
    """The number of vectors that is planned for: the power of two at or below it.

    Batches differ in length from step to step, and costs do not turn that fast.
    """
    return 1 << max(0, tokens.bit_length() - 1)


@lru_cache(maxsize=1024)
def make_plan(sizes: tuple[int, ...], acts: tuple[Act, ...], rates: Rates, tokens: int) -> Plan:
    """The cheapest plan of a circuit.

    Args:
        sizes: sizes of the axes of the input, at most `MOST_AXES`.
        acts: the gates, in the order in which they act.
        rates: the cost of memory traffic and of calls.
        tokens: number of vectors.

    Raises:
        ValueError: more than `MOST_AXES` axes.
    """
    if len(sizes) > MOST_AXES:
        raise ValueError(f"a circuit of {len(sizes)} axes is applied gate by gate, not planned")
    own = tuple(range(len(sizes)))
    orders = list(itertools.permutations(own))
    start, goal = _State(0, VECTORS_FIRST), _State((1 << len(acts)) - 1, own)
    best: dict[_State, float] = {start: 0.0}
    came: dict[_State, tuple[_State, tuple[int, ...]]] = {}
    tie = itertools.count()
    heap = [(0.0, next(tie), start)]
    choices: dict[int, list[_Choice]] = {}

    def reach(state: _State, before: _State, cost: float, gates: tuple[int, ...]) -> None:
        if cost < best.get(state, math.inf):
            best[state] = cost
            came[state] = before, gates
            heapq.heappush(heap, (cost, next(tie), state))

    while heap:
        cost, _, state = heapq.heappop(heap)
        if state == goal:
            break
        if cost > best[state]:
            continue
        done, order = state
        if order is None:
            for new in orders:
                reach(_State(done, new), state, cost, ())
            continue
        if done not in choices:
            choices[done] = list(_choices(sizes, acts, done, rates, tokens))
        numbers = math.prod(_sizes(sizes, acts, done)) * tokens
        if order == VECTORS_FIRST:
            reach(_State(done, own), state, cost + rates.transpose * numbers + rates.call, ())
            for choice in choices[done]:
                if choice.axes == own[-len(choice.axes) :]:
                    reach(_State(choice.done, own), state, cost + choice.cost, choice.gates)
            continue
        reach(_State(done, None), state, cost + rates.copy * numbers + rates.call, ())
        for choice in choices[done]:
            places = [order.index(axis) for axis in choice.axes]
            if max(places) - min(places) == len(places) - 1:
                reach(_State(choice.done, order), state, cost + choice.cost, choice.gates)
    return _trace(sizes, acts, came, goal, tokens, best[goal])


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
    """What can act next as one matrix, without what is plainly dearer than its gates alone."""
    seen: set[tuple[int, ...]] = set()
    for width in range(1, len(sizes) + 1):
        for subset in itertools.combinations(range(len(sizes)), width):
            inside = _inside(acts, done, set(subset))
            # The first gate alone too: of several on the same axes, all are inside.
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
    """Gates as one matrix, and what they cost one by one, each on vectors moved for it."""
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
        if len(gates) > 1:  # its matrix takes the same, on the vectors of the identity
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
    """The gates that can act next on these axes: nothing is left before them on their own."""
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
    came: dict[_State, tuple[_State, tuple[int, ...]]],
    goal: _State,
    tokens: int,
    cost: float,
) -> Plan:
    path: list[tuple[_State, tuple[int, ...]]] = []
    state = goal
    while state in came:
        before, gates = came[state]
        path.append((state, gates))
        state = before
    own: Order = tuple(range(len(sizes)))
    stood = order = own
    done = 0
    blocks = []
    for state, gates in reversed(path):
        if state.order is None:
            continue
        order = state.order
        if not gates:
            continue
        now, after = _sizes(sizes, acts, done), _sizes(sizes, acts, state.done)
        inside = {axis for gate in gates for axis in acts[gate].axes}
        first = min(order.index(axis) for axis in inside)
        axes = order[first : first + len(inside)]
        blocks.append(
            Block(
                gates=gates,
                axes=axes,
                move=None if order == stood else tuple(stood.index(axis) for axis in order),
                sizes=tuple(now[axis] for axis in order),
                after=tuple(after[axis] for axis in order),
                first=first,
                swapped=len(gates) == 1 and axes != acts[gates[0]].axes,
                inner=gate_by_gate(
                    tuple(now[axis] for axis in axes),
                    tuple(
                        acts[gate]._replace(axes=tuple(map(axes.index, acts[gate].axes)))
                        for gate in gates
                    ),
                )
                if len(gates) > 1
                else None,
            )
        )
        stood, done = order, state.done
    final = _sizes(sizes, acts, done)
    back = None if stood == own else tuple(stood.index(axis) for axis in own)
    return Plan(tuple(blocks), tuple(final[axis] for axis in stood), back, tokens, cost)


def gate_by_gate(sizes: tuple[int, ...], acts: tuple[Act, ...]) -> Plan:
    """The plan that applies each gate by itself, its axes brought to the front."""
    own: Order = tuple(range(len(sizes)))
    stood: Order = own
    blocks = []
    for index, act in enumerate(acts):
        before = _sizes(sizes, acts, (1 << index) - 1)
        after = _sizes(sizes, acts, (2 << index) - 1)
        order = stood
        if set(stood[: len(act.axes)]) != set(act.axes):
            order = (*act.axes, *(axis for axis in own if axis not in act.axes))
        move = None if order == stood else tuple(stood.index(axis) for axis in order)
        blocks.append(
            Block(
                (index,),
                order[: len(act.axes)],
                move,
                tuple(before[axis] for axis in order),
                tuple(after[axis] for axis in order),
                0,
                order[: len(act.axes)] != act.axes,
            )
        )
        stood = order
    final = _sizes(sizes, acts, (1 << len(acts)) - 1)
    back = None if stood == own else tuple(stood.index(axis) for axis in own)
    return Plan(tuple(blocks), tuple(final[axis] for axis in stood), back)
