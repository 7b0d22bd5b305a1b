"""Tables simulated with noises that are known: crossed rows, seeds and items in groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from quanta_bench.statistics.comparison import compare
from quanta_bench.statistics.noise import noise
from quanta_bench.statistics.pooling import row_noises
from quanta_bench.statistics.scores import Scores


@dataclass(frozen=True)
class World:
    """Standard deviations of what a score is made of, and the size of a table.

    Attributes:
        rows: number of rows.
        seeds: number of seeds.
        groups: groups of items.
        in_group: items in each.
        row_seed: between seeds of one row; a sequence gives each row its own.
        seed: between seeds, of all rows alike, as from a shared order of training items.
        group: between groups, of all rows alike.
        item: between items, of all rows alike.
        row_group: of a group, in one row alone.
        rest: of a single answer.
        right: if not 0, answers are right or wrong: right where the score exceeds its quantile, so
            that about this share is.
    """

    rows: int = 8
    seeds: int = 3
    groups: int = 50
    in_group: int = 4
    row_seed: float | Sequence[float] = 0.04
    seed: float = 0.02
    group: float = 0.2
    item: float = 0.3
    row_group: float = 0.05
    rest: float = 0.2
    right: float = 0.0

    def draw(self, random: np.random.Generator, gains: Sequence[float] = ()) -> dict[str, Scores]:
        """A table's rows, each with its gain on top of zero."""
        values = self.values(random, gains)
        names = tuple(f"g{number:04d}" for number in range(self.groups))
        sums = values.reshape(self.rows, self.seeds, self.groups, -1).mean(3) / self.groups
        means = values.mean(2)
        # As of_items has it for groups of one size, which a test holds it to.
        parts = (sums - means[:, :, None] / self.groups) * math.sqrt(
            self.groups / (self.groups - 1)
        )
        strata = np.zeros(self.groups, dtype=np.int64)
        return {
            f"row{r}": Scores(means[r], parts[r], sums[r], names, strata) for r in range(self.rows)
        }

    def draw_apart(self, random: np.random.Generator) -> dict[str, Scores]:
        """A table each of whose seeds is scored on items of its own."""
        by_seed = [replace(self, seeds=1).draw(random) for _ in range(self.seeds)]
        count = self.seeds * self.groups
        names = tuple(f"g{number:05d}" for number in range(count))
        strata = np.zeros(count, dtype=np.int64)
        rows = {}
        for row in by_seed[0]:
            parts, totals = np.zeros((2, self.seeds, count))
            for seed, drawn in enumerate(by_seed):
                own = slice(seed * self.groups, (seed + 1) * self.groups)
                parts[seed, own], totals[seed, own] = drawn[row].parts[0], drawn[row].totals[0]
            means = np.array([drawn[row].means[0] for drawn in by_seed])
            rows[row] = Scores(means, parts, totals, names, strata)
        return rows

    def values(self, random: np.random.Generator, gains: Sequence[float] = ()) -> np.ndarray:
        """Scores of shape (rows, seeds, items)."""
        rows, seeds, groups, each = self.rows, self.seeds, self.groups, self.in_group
        spread = np.broadcast_to(self.row_seed, rows)[:, None, None, None]
        made = (
            np.array(gains or [0.0] * rows)[:, None, None, None]
            + spread * random.normal(size=(rows, seeds, 1, 1))
            + self.seed * random.normal(size=(1, seeds, 1, 1))
            + self.group * random.normal(size=(1, 1, groups, 1))
            + self.item * random.normal(size=(1, 1, groups, each))
            + self.row_group * random.normal(size=(rows, 1, groups, 1))
            + self.rest * random.normal(size=(rows, seeds, groups, each))
        )
        if self.right:
            made = (made > -self.right).astype(float)
        return made.reshape(rows, seeds, groups * each)

    @property
    def error_of_difference(self) -> float:
        """True standard error of a difference of two rows with the same spread over seeds."""
        count = self.groups * self.in_group
        spread = float(np.max(self.row_seed))
        return math.sqrt(
            2 * spread**2 / self.seeds
            + 2 * self.row_group**2 / self.groups
            + 2 * self.rest**2 / (self.seeds * count)
        )


def false_alarms(world: World, tables: int, seed: int = 0) -> tuple[float, float]:
    """How often rows without any difference are said to differ from the first one.

    Returns:
        The share of tables with such a row after Holm, and of single comparisons with p < 0.05.
    """
    random, tables_with, single = np.random.default_rng(seed), 0, 0
    for _ in range(tables):
        rows = world.draw(random)
        first, *others = rows
        found = compare(rows, [(other, first) for other in others])
        tables_with += any(one.shown for one in found)
        single += sum(one.p < 0.05 for one in found)
    return tables_with / tables, single / (tables * (world.rows - 1))


def power(world: World, gain: float, tables: int, seed: int = 0) -> float:
    """Share of tables in which the one row that is better is shown to be."""
    random, shown = np.random.default_rng(seed), 0
    for _ in range(tables):
        rows = world.draw(random, [0.0] * (world.rows - 1) + [gain])
        first, *others = rows
        shown += compare(rows, [(other, first) for other in others])[-1].p < 0.05
    return shown / tables


def coverage(world: World, draws: int, seed: int = 0) -> float:
    """Share of the 95 % intervals of a row's mean that hold the truth, which is 0 or 1/2."""
    random, held = np.random.default_rng(seed), 0
    for _ in range(draws):
        (scores,) = world.draw(random).values()
        error = noise(scores)
        held += error.p_value(float(scores.means.mean()) - truth(world)) >= 0.05
    return held / draws


def coverage_in_tables(world: World, tables: int, *, apart: bool, seed: int = 0) -> float:
    """The same for all rows of tables, whose rows lend each other their spread over seeds.

    Args:
        world: the table, its truth 0.
        tables: how many are drawn.
        apart: whether each seed is scored on items of its own.
        seed: of the draws.
    """
    random, held = np.random.default_rng(seed), 0
    for _ in range(tables):
        rows = world.draw_apart(random) if apart else world.draw(random)
        for row, error in row_noises(rows).items():
            held += error.p_value(float(rows[row].means.mean())) >= 0.05
    return held / (tables * world.rows)


def false_alarms_of_the_base(
    world: World, tables: int, *, apart: bool, seed: int = 0
) -> tuple[float, float]:
    """How often a base that does not train is said to differ from rows that are no better.

    Returns:
        As `false_alarms`.
    """
    random, tables_with, single = np.random.default_rng(seed), 0, 0
    still = replace(world, rows=world.rows + 1, row_seed=[0.0, *[world.row_seed] * world.rows])
    for _ in range(tables):
        rows = replace(still, seed=0.0)
        drawn = rows.draw_apart(random) if apart else rows.draw(random)
        alike = world.seed * random.normal(size=world.seeds)
        base, *others = drawn
        drawn = {
            name: one if name == base else replace(one, means=one.means + alike)
            for name, one in drawn.items()
        }
        found = compare(drawn, [(other, base) for other in others], [base])
        tables_with += any(one.shown for one in found)
        single += sum(one.p < 0.05 for one in found)
    return tables_with / tables, single / (tables * world.rows)


def truth(world: World) -> float:
    """The expectation of a row's mean."""
    if not world.right:
        return 0.0
    parts = (world.row_seed, world.seed, world.group, world.item, world.row_group, world.rest)
    return float(stats.norm.cdf(world.right / math.hypot(*map(float, parts))))
