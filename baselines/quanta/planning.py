"""How a circuit is computed: which gates as one matrix, and in which order the axes stand.

A gate is cheap in multiply-adds and dear in memory traffic: gates that act one after the other move
every vector about as often as there are gates. A plan takes gates together where one larger matrix
costs less than another pass over memory, and has the axes stand so that several blocks in a row act
on axes that are neighbours, which moves nothing.

Vectors stand first or last. First, as they come: with axes ``(a, b, c)`` and ``t`` vectors the
tensor ``(t, a, b, c)`` is a matrix ``(t a, b c)``, so a block on the last axes is one product that
moves nothing, and other blocks need their axes brought there, which moves short runs of numbers.
Last: ``(a, b, c, t)`` is a batch of ``a`` matrices ``(b c, t)``, so a block on any neighbouring
axes is one batched product and moves are of long runs; but all vectors have to be turned over
before, and back again at the end.

The search is a shortest path from "nothing has acted, the axes stand in their own order, vectors
first" to "everything has acted, and they stand so again". Gates on axes that have none in common
change places freely, so what has acted is a set of gates and not how many.
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
"""Circuits of more axes have too many axis orders to look through."""

Order: TypeAlias = tuple[int, ...]


def inverse(order: Order | None) -> Order | None:
    """The order that takes another one back."""
    return None if order is None else tuple(sorted(range(len(order)), key=order.__getitem__))


class Rates(NamedTuple):
    """What is dear beside arithmetic, in multiply-adds.

    Attributes:
        gather: to bring the axes into another order with the vectors first, for each number; with
            `run` for each run of numbers that stay together.
        run: see `gather`.
        copy: to bring them into another order with the vectors last, for each number.
        turn: to turn all vectors over, from first to last or back, for each number.
        product: to read and write a number in a product, beside its arithmetic.
        call: to start an operation at all.
    """

    gather: float
    run: float
    copy: float
    turn: float
    product: float
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
        last: whether the vectors stand last.
        swapped: a single gate whose axes stand the other way round.
        contractions: how the matrix of several gates is made: an einsum of what is there and the
            next gate, for each gate but the first, with the circuits in front.
        batch: product of the sizes in front of its axes.
        rows: length of the vectors that its matrix gives.
        columns: length of those it takes.
        rest: product of the sizes behind its axes.
        reads_in_place: whether, as the first block, it reads the vectors as they come.
        unmove: the order that takes a move back.
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
        moved = "" if self.move is None else f", after the axes are moved by {self.move}"
        return (
            f"gate{'s' * (len(self.gates) > 1)} {gates} as one {self.rows} x {self.columns} matrix "
            f"on axes {axes}, vectors {'last' if self.last else 'first'}: "
            f"{self.multiply_adds:,} multiply-adds{moved}"
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
        forth: takes `back` back.
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
        """Multiply-adds for one vector, without the making of the matrices."""
        return sum(block.multiply_adds for block in self.blocks)

    @property
    def copies(self) -> int:
        """How often all numbers are moved: for another order of the axes, or to turn them over."""
        layouts = [False, *(block.last for block in self.blocks), False]
        turns = sum(one != other for one, other in itertools.pairwise(layouts))
        moves = sum(block.move is not None for block in self.blocks) + (self.back is not None)
        return moves + turns

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


class _State(NamedTuple):
    done: int  # bit by bit, the gates that have acted
    order: Order  # how the axes stand
    last: bool  # whether the vectors do
    moving: bool = False  # last alone: the axes are being moved, all orders cost the same


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
    start, goal = _State(0, own, False), _State((1 << len(acts)) - 1, own, False)
    best: dict[_State, float] = {start: 0.0}
    came: dict[_State, tuple[_State, tuple[int, ...]]] = {}
    tie = itertools.count()
    heap = [(0.0, next(tie), start)]
    choices: dict[int, list[_Choice]] = {}

    def reach(state: _State, before: _State, cost: float, gates: tuple[int, ...] = ()) -> None:
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
    return _trace(sizes, acts, came, goal, tokens, best[goal])


def _run(order: Order, new: Order, sizes: tuple[int, ...]) -> int:
    """How many numbers stay together: those of the last axes, if neighbours before and after."""
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
    stood = own
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
                move=None if order == stood else tuple(stood.index(axis) for axis in order),
                sizes=tuple(now[axis] for axis in order),
                after=tuple(after[axis] for axis in order),
                first=first,
                last=state.last,
                swapped=len(gates) == 1 and axes != acts[gates[0]].axes,
                contractions=_contractions(axes, [acts[gate].axes for gate in gates]),
            )
        )
        stood, done = order, state.done
    final = _sizes(sizes, acts, done)
    back = None if stood == own else tuple(stood.index(axis) for axis in own)
    return Plan(tuple(blocks), tuple(final[axis] for axis in stood), back, tokens, cost)


def _contractions(axes: Order, gates: Sequence[Order]) -> tuple[str, ...]:
    """The einsums that make one matrix of gates, its outputs in front, both over ``axes``."""
    symbols = iter(string.ascii_letters[1:])  # the first one counts the circuits
    inputs: dict[int, str] = {}  # of the matrix, by axis
    now: dict[int, str] = {}  # its outputs
    made = ""
    found = []
    for number, gate in enumerate(gates):
        taken = "".join(now.get(axis) or next(symbols) for axis in gate)
        given = "".join(next(symbols) for _ in gate)
        for axis, old, new in zip(gate, taken, given, strict=True):
            inputs.setdefault(axis, old)
            now[axis] = new
        order = [axis for axis in axes if axis in now]
        whole = "".join(now[axis] for axis in order) + "".join(inputs[axis] for axis in order)
        if number:
            found.append(f"a{made},a{given}{taken}->a{whole}")
            made = whole
        else:
            made = given + taken
    return tuple(found)


def gate_by_gate(sizes: tuple[int, ...], acts: tuple[Act, ...]) -> Plan:
    """The plan that applies each gate by itself, vectors last, its axes brought to the front."""
    own: Order = tuple(range(len(sizes)))
    stood: Order = own
    blocks = []
    for index, act in enumerate(acts):
        before = _sizes(sizes, acts, (1 << index) - 1)
        after = _sizes(sizes, acts, (2 << index) - 1)
        order = stood
        if set(stood[: len(act.axes)]) != set(act.axes):
            order = (*act.axes, *(axis for axis in own if axis not in act.axes))
        blocks.append(
            Block(
                gates=(index,),
                axes=order[: len(act.axes)],
                move=None if order == stood else tuple(stood.index(axis) for axis in order),
                sizes=tuple(before[axis] for axis in order),
                after=tuple(after[axis] for axis in order),
                first=0,
                last=True,
                swapped=order[: len(act.axes)] != act.axes,
            )
        )
        stood = order
    final = _sizes(sizes, acts, (1 << len(acts)) - 1)
    back = None if stood == own else tuple(stood.index(axis) for axis in own)
    return Plan(tuple(blocks), tuple(final[axis] for axis in stood), back)
