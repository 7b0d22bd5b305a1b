"""What a user sees while runs are computed: the grid, the present run, time left, the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn

TRAINING_SHARE = 0.75
"""Share of a trained run's work that is training; the rest is scoring."""


class Reporter(Protocol):
    """Who is told of a run's progress."""

    def training(self, done: int, total: int) -> None:
        """Optimiser steps done of all."""

    def scoring(self, total: int) -> None:
        """Scoring starts, with this number of items."""

    def scored(self, count: int) -> None:
        """This many more items are scored."""


class Silent:
    """Tells nobody."""

    def training(self, done: int, total: int) -> None:
        """Nothing."""

    def scoring(self, total: int) -> None:
        """Nothing."""

    def scored(self, count: int) -> None:
        """Nothing."""


class Screen:
    """Progress of a grid of runs: redrawn in place on a terminal, line by line elsewhere.

    Args:
        console: where to write.
        weights: relative work of each run that is still to be computed, in order.
        table: draws the table as it stands; called after each run.
    """

    def __init__(
        self,
        console: Console,
        weights: Sequence[float],
        table: Callable[[], RenderableType] | None = None,
    ) -> None:
        self._console = console
        self._weights = list(weights)
        self._done = 0
        self._fraction = 0.0
        self._trained = False
        # Work that was done before this start: a training that goes on from a checkpoint.
        self._found = 0.0
        self._items = 0
        self._all_items = 0
        self._table = table
        self._drawn: RenderableType = table() if table else ""
        self._start = monotonic()
        self._label = ""
        self._said = 0.0
        # No markup: labels are users' words, and may hold brackets.
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}", markup=False),
            TextColumn("{task.fields[times]}", markup=False),
            console=console,
            auto_refresh=False,
        )
        self._grid: TaskID = self._progress.add_task(
            "runs", total=len(self._weights), count=self._count(), times=""
        )
        self._run: TaskID = self._fresh_bar("")
        self._live = Live(
            console=console, refresh_per_second=4, transient=True, get_renderable=self._draw
        )

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begin(self, label: str) -> None:
        """The next run starts."""
        self._label = label
        self._fraction = 0.0
        self._trained = False
        # A total cannot be taken back from a bar.
        self._progress.remove_task(self._run)
        self._run = self._fresh_bar(f"{label}: loading")
        self._say(f"{label}: loading")

    def finish(self) -> None:
        """The run that began last is done."""
        self._end("done")

    def fail(self) -> None:
        """The run that began last failed; no more of it will be done."""
        self._end("failed")

    def training(self, done: int, total: int) -> None:
        """Optimiser steps done of all."""
        if not self._trained:
            self._trained = True
            before = TRAINING_SHARE * max(done - 1, 0) / max(total, 1)
            self._found += before * self._weight()
        self._fraction = TRAINING_SHARE * done / max(total, 1)
        self._show(f"{self._label}: training, step", done, total)

    def scoring(self, total: int) -> None:
        """Scoring starts."""
        self._items = 0
        self._all_items = total
        self._fraction = TRAINING_SHARE if self._trained else 0.0
        self._show(f"{self._label}: scoring, item", 0, total, always=True)

    def scored(self, count: int) -> None:
        """Some items are scored."""
        self._items += count
        start = TRAINING_SHARE if self._trained else 0.0
        self._fraction = start + (1 - start) * self._items / max(self._all_items, 1)
        self._show(f"{self._label}: scoring, item", self._items, self._all_items)

    def times(self) -> str:
        """Time since the start and, once there is something to tell it from, time left."""
        elapsed = monotonic() - self._start
        said = f"{elapsed / 60:.0f} min" if elapsed >= 60 else f"{elapsed:.0f} s"
        total = sum(self._weights)
        done = sum(self._weights[: self._done]) + self._weight() * min(self._fraction, 1.0)
        here = done - self._found
        # Sooner than this, loading the model is most of what was measured.
        if elapsed < 20 or here < 0.03 * total or here <= 0 or self._done >= len(self._weights):
            return said
        minutes = elapsed * (total - done) / here / 60
        left = f"about {minutes:.0f} min left" if minutes >= 1 else "under a minute left"
        return f"{said}, {left}"

    def _weight(self) -> float:
        """Work of the present run."""
        return self._weights[self._done] if self._done < len(self._weights) else 0.0

    def _count(self) -> str:
        return f"{self._done} of {len(self._weights)}"

    def _fresh_bar(self, text: str) -> TaskID:
        return self._progress.add_task(text, total=None, count="", times="")

    def _draw(self) -> RenderableType:
        self._progress.update(self._grid, times=self.times())
        return Group(self._drawn, self._progress)

    def _end(self, how: str) -> None:
        self._done += 1
        self._fraction = 0.0
        self._progress.update(self._grid, completed=self._done, count=self._count())
        if self._table:
            self._drawn = self._table()
        self._say(f"{self._label}: {how}; {self._count()} runs; {self.times()}")

    def _show(self, text: str, done: int, total: int, *, always: bool = False) -> None:
        count = f"{done} of {total}"
        self._progress.update(self._run, description=text, completed=done, total=total, count=count)
        # A log file gets a line now and then, not one a step.
        if always or monotonic() - self._said > 30:
            self._say(f"{text} {count}; {self.times()}")

    def _say(self, line: str) -> None:
        """A line where nothing can be redrawn."""
        if not self._console.is_terminal:
            self._said = monotonic()
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
