"""What a user sees while runs are computed: the grid, the present runs, time left, the table."""

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
        weights: relative work of each run that is still to be computed.
        table: draws the table as it stands; called after each run.
    """

    def __init__(
        self,
        console: Console,
        weights: Sequence[float],
        table: Callable[[], RenderableType] | None = None,
    ) -> None:
        self._console = console
        self._runs = len(weights)
        self._work = sum(weights)
        self._ended = 0
        self._ended_work = 0.0
        # Work that was done before this start: a training that goes on from a checkpoint.
        self._found = 0.0
        self._running: list[RunLine] = []
        self._table = table
        self._drawn: RenderableType = table() if table else ""
        self._start = monotonic()
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
            "runs", total=self._runs, count=self._count(), times=""
        )
        self._live = Live(
            console=console, refresh_per_second=4, transient=True, get_renderable=self._draw
        )

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begin(self, label: str, weight: float = 1.0, doing: str = "loading") -> RunLine:
        """A run starts, beside those that have not ended; what comes back is told of it.

        Args:
            label: its name.
            weight: its work, one of those that the screen was made with.
            doing: what it does first.
        """
        text = f"{label}: {doing}"
        bar = self._progress.add_task(text, total=None, count="", times="")
        run = RunLine(self, label, weight, bar)
        self._running.append(run)
        self._say(text)
        return run

    def times(self) -> str:
        """Time since the start and, once there is something to tell it from, time left."""
        elapsed = monotonic() - self._start
        said = f"{elapsed / 60:.0f} min" if elapsed >= 60 else f"{elapsed:.0f} s"
        done = self._ended_work + sum(run.done for run in self._running)
        here = done - self._found
        # Sooner than this, loading the model is most of what was measured.
        little = elapsed < 20 or here < 0.03 * self._work or here <= 0
        if little or self._ended >= self._runs:
            return said
        minutes = elapsed * (self._work - done) / here / 60
        left = f"about {minutes:.0f} min left" if minutes >= 1 else "under a minute left"
        return f"{said}, {left}"

    def tell(self, text: str) -> None:
        """Something else to say, above what is redrawn."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _count(self) -> str:
        return f"{self._ended} of {self._runs}"

    def _draw(self) -> RenderableType:
        self._progress.update(self._grid, times=self.times())
        return Group(self._drawn, self._progress)

    def _end(self, run: RunLine, how: str) -> None:
        self._running.remove(run)
        self._progress.remove_task(run.bar)
        self._ended += 1
        self._ended_work += run.weight
        self._progress.update(self._grid, completed=self._ended, count=self._count())
        if self._table:
            self._drawn = self._table()
        self._say(f"{run.label}: {how}; {self._count()} runs; {self.times()}")

    def _postpone(self, run: RunLine) -> None:
        self._running.remove(run)
        self._progress.remove_task(run.bar)
        self._say(f"{run.label}: another process is computing it")

    def _show(self, run: RunLine, text: str, done: int, total: int, *, say: bool) -> None:
        count = f"{done} of {total}"
        self._progress.update(run.bar, description=text, completed=done, total=total, count=count)
        if say:
            self._say(f"{text} {count}; {self.times()}")

    def _say(self, line: str) -> None:
        """A line where nothing can be redrawn."""
        if not self._console.is_terminal:
            self.tell(line)


class RunLine:
    """One run on a :class:`Screen`: a :class:`Reporter` that also says how the run ended."""

    def __init__(self, screen: Screen, label: str, weight: float, bar: TaskID) -> None:
        self.label = label
        self.weight = weight
        self.bar = bar
        self._screen = screen
        self._fraction = 0.0
        self._trained = False
        self._items = 0
        self._all_items = 0
        self._said = monotonic()

    @property
    def done(self) -> float:
        """Work that is done of this run."""
        return self.weight * min(self._fraction, 1.0)

    def finish(self) -> None:
        """The run is done."""
        self._screen._end(self, "done")

    def fail(self) -> None:
        """The run failed; no more of it will be done."""
        self._screen._end(self, "failed")

    def postpone(self) -> None:
        """Another process is computing the run; it will begin again later."""
        self._screen._postpone(self)

    def training(self, done: int, total: int) -> None:
        """Optimiser steps done of all."""
        if not self._trained:
            self._trained = True
            before = TRAINING_SHARE * max(done - 1, 0) / max(total, 1)
            self._screen._found += before * self.weight
        self._fraction = TRAINING_SHARE * done / max(total, 1)
        self._show("training, step", done, total)

    def scoring(self, total: int) -> None:
        """Scoring starts."""
        self._items = 0
        self._all_items = total
        self._fraction = TRAINING_SHARE if self._trained else 0.0
        self._show("scoring, item", 0, total, always=True)

    def scored(self, count: int) -> None:
        """Some items are scored."""
        self._items += count
        start = TRAINING_SHARE if self._trained else 0.0
        self._fraction = start + (1 - start) * self._items / max(self._all_items, 1)
        self._show("scoring, item", self._items, self._all_items)

    def _show(self, what: str, done: int, total: int, *, always: bool = False) -> None:
        # A log file gets a line now and then, not one a step.
        say = always or monotonic() - self._said > 30
        if say:
            self._said = monotonic()
        self._screen._show(self, f"{self.label}: {what}", done, total, say=say)
