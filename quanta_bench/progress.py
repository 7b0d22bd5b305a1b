"""What a user sees while runs are computed: the grid, the present run, time left, the table."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn


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
        total: number of runs that are still to be computed.
        table: draws the table as it stands; called after each run.
    """

    def __init__(
        self, console: Console, total: int, table: Callable[[], RenderableType] | None = None
    ) -> None:
        self._console = console
        self._total = total
        self._done = 0
        self._table = table
        self._drawn: RenderableType = table() if table else ""
        self._start = time.monotonic()
        self._label = ""
        self._said = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            auto_refresh=False,
        )
        self._grid: TaskID = self._progress.add_task("runs", total=total, left="")
        self._run: TaskID = self._progress.add_task("", total=None, left="")
        self._live = Live(
            console=console,
            refresh_per_second=4,
            transient=True,
            get_renderable=lambda: Group(self._drawn, self._progress),
        )

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begin(self, label: str) -> None:
        """A run starts."""
        self._label = label
        self._show(f"{label}: loading", 0, None, always=True)

    def finish(self) -> None:
        """The run that began last is done."""
        self._done += 1
        self._progress.update(self._grid, completed=self._done, left=self._left().lstrip(", "))
        if self._table:
            self._drawn = self._table()
        if not self._console.is_terminal:
            self._console.print(
                f"{self._label}: done; {self._done} of {self._total} runs{self._left()}"
            )

    def training(self, done: int, total: int) -> None:
        """Optimiser steps done of all."""
        self._show(f"{self._label}: training, step", done, total)

    def scoring(self, total: int) -> None:
        """Scoring starts."""
        self._items = 0
        self._all_items = total
        self._show(f"{self._label}: scoring, item", 0, total, always=True)

    def scored(self, count: int) -> None:
        """Some items are scored."""
        self._items += count
        self._show(f"{self._label}: scoring, item", self._items, self._all_items)

    def _left(self) -> str:
        if not self._done or self._done >= self._total:
            return ""
        pace = (time.monotonic() - self._start) / self._done
        minutes = pace * (self._total - self._done) / 60
        return f", about {minutes:.0f} min left" if minutes >= 1 else ", under a minute left"

    def _show(self, text: str, done: int, total: int | None, *, always: bool = False) -> None:
        self._progress.update(self._run, description=text, completed=done, total=total, left="")
        if self._console.is_terminal:
            return
        # A log file gets a line now and then, not one a step.
        if always or time.monotonic() - self._said > 30:
            self._said = time.monotonic()
            self._console.print(text + (f" {done} of {total}" if total else ""))
