"""The progress display: the table so far, the runs in progress, and the time left.

Rich draws the bars. The time left is estimated here, because Rich assumes bars of equal steps: runs
differ in work, several run concurrently, and a run resumed from a checkpoint includes work that
took no time in this session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from quanta_bench.utils.verbosity import is_verbose

TRAINING_SHARE = 0.75
"""Share of a trained run's work that is training; the rest is scoring."""

WIDE = 100
"""Terminal width from which the bars are long, in columns."""

WIDEST_BAR = 120
"""Terminal width up to which the bars use the whole line, in columns."""

LOG_SECONDS = 30.0
"""Minimum interval between two log lines on the progress of one run."""

VERBOSE_LOG_SECONDS = 3.0
"""The same with ``--verbose``."""


TABLE_SHARE = 0.02
"""Largest share of the time that may go into drawing the table, which takes seconds if it is of
thousands of runs."""


class Reporter(Protocol):
    """Receives a run's progress."""

    def training(self, done: int, total: int) -> None:
        """``done`` of ``total`` optimiser steps are finished."""

    def scoring(self, total: int) -> None:
        """Scoring starts, with this number of items."""

    def scored(self, count: int) -> None:
        """This many more items are scored."""


class Silent:
    """Shows nothing."""

    def training(self, done: int, total: int) -> None:
        """Nothing."""

    def scoring(self, total: int) -> None:
        """Nothing."""

    def scored(self, count: int) -> None:
        """Nothing."""


class Screen:
    """Progress of many runs: redrawn in place on a terminal, line by line elsewhere.

    Args:
        console: where to write.
        weights: relative work of each run that is still to be computed.
        table: draws the table as it stands; called after runs, on a terminal alone, and no more
            often than `TABLE_SHARE` allows.
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
        self._failed = 0
        self._ended_work = 0.0
        # Work done by an earlier process, in trainings resumed from a checkpoint.
        self._earlier_work = 0.0
        self._running: list[RunLine] = []
        self._make_table = table if console.is_interactive else None
        self._table: RenderableType = ""
        self._next_table = 0.0
        self._start = monotonic()
        self._renew_table()
        # No markup: labels may contain brackets. Only labels may be cut on narrow terminals.
        whole = Column(no_wrap=True)
        self._progress = Progress(
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            TextColumn("{task.fields[doing]}", markup=False, table_column=whole),
            BarColumn(bar_width=16 if console.width >= WIDE else 10),
            TextColumn("{task.fields[count]}", markup=False, table_column=whole.copy()),
            TextColumn("{task.fields[times]}", markup=False, table_column=whole.copy()),
            console=console,
            auto_refresh=False,
            expand=console.width <= WIDEST_BAR,
        )
        self._overall: TaskID = self._progress.add_task(
            "all runs", total=self._work or 1.0, doing="", count=self._count(), times=""
        )
        self._live = Live(
            console=console, refresh_per_second=4, transient=True, get_renderable=self._draw
        )

    def __enter__(self) -> Screen:
        if self._console.is_interactive:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.tell(self._interrupted())

    def begin(self, label: str, weight: float = 1.0, doing: str = "loading") -> RunLine:
        """Show another run in progress.

        Args:
            label: its name.
            weight: its work, one of those that the screen was made with.
            doing: what it does first.

        Returns:
            Its reporter.
        """
        bar = self._progress.add_task(label, total=None, doing=doing, count="", times="")
        run = RunLine(self, label, weight, bar)
        self._running.append(run)
        self._log(f"{label}: {doing}")
        return run

    def times(self) -> str:
        """Time since the start and, once enough is measured, time left."""
        elapsed = monotonic() - self._start
        text = f"{elapsed / 60:.0f} min" if elapsed >= 60 else f"{elapsed:.0f} s"
        done = self._done_work
        here = done - self._earlier_work
        # Before that, the measured time is mostly model loading.
        little = elapsed < 20 or here < 0.03 * self._work or here <= 0
        if little or self._ended >= self._runs:
            return text
        minutes = elapsed * (self._work - done) / here / 60
        left = f"about {minutes:.0f} min left" if minutes >= 1 else "under a minute left"
        return f"{text}, {left}"

    def tell(self, text: str) -> None:
        """Print a text above the live display."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @property
    def _done_work(self) -> float:
        return self._ended_work + sum(run.done for run in self._running)

    def _count(self) -> str:
        return f"{self._ended} of {self._runs}"

    def _draw(self) -> RenderableType:
        self._progress.update(self._overall, completed=self._done_work, times=self.times())
        return Group(self._table, self._progress)

    def _end(self, run: RunLine, how: str) -> None:
        self._running.remove(run)
        self._progress.remove_task(run.bar)
        self._ended += 1
        self._failed += how == "failed"
        self._ended_work += run.weight
        self._progress.update(self._overall, count=self._count())
        self._renew_table()
        self._log(f"{run.label}: {how}; {self._count()} runs; {self.times()}")

    def _renew_table(self) -> None:
        """Draw the table anew, unless that was done lately for what it takes."""
        start = monotonic()
        if self._make_table and start >= self._next_table:
            self._table = self._make_table()
            end = monotonic()
            self._next_table = end + (end - start) / TABLE_SHARE

    def _drop(self, run: RunLine) -> None:
        self._running.remove(run)
        self._progress.remove_task(run.bar)

    def _show(self, run: RunLine, doing: str, done: int, total: int, *, log: bool) -> None:
        count = f"{done} of {total}"
        self._progress.update(run.bar, doing=doing, completed=done, total=total, count=count)
        if log:
            self._log(f"{run.label}: {doing} {count}; {self.times()}")

    def _log(self, line: str) -> None:
        """Print a line if the console cannot redraw."""
        if not self._console.is_interactive:
            self.tell(line)

    def _interrupted(self) -> str:
        """What is kept of the runs, and where each will resume."""
        kept = self._ended - self._failed
        lines = [f"Interrupted. Finished and kept: {kept} of {self._runs} runs."]
        lines += [f"  {run.label}: {run.resumes()}" for run in self._running]
        return "\n".join(lines)


class RunLine:
    """One run on a :class:`Screen`: a :class:`Reporter` that also says how the run ended."""

    def __init__(self, screen: Screen, label: str, weight: float, bar: TaskID) -> None:
        self.label = label
        self.weight = weight
        self.bar = bar
        self._screen = screen
        self._fraction = 0.0
        self._trained = False
        self._step = (0, 0)
        self._scoring = False
        self._items = 0
        self._all_items = 0
        self._logged = monotonic()

    @property
    def done(self) -> float:
        """Finished work of this run."""
        return self.weight * min(self._fraction, 1.0)

    def finish(self) -> None:
        """The run is done."""
        self._screen._end(self, "done")

    def fail(self) -> None:
        """The run failed."""
        self._screen._end(self, "failed")

    def postpone(self) -> None:
        """Another process is computing the run; it will begin again later."""
        self._screen._drop(self)
        self._screen._log(f"{self.label}: another process is computing it")

    def retry(self, why: str) -> None:
        """The run failed and will begin again."""
        self._screen._drop(self)
        self._screen.tell(f"{self.label}: {why}")

    def resumes(self) -> str:
        """Where the run will resume if it is interrupted now."""
        if self._scoring:
            trained = "its training is kept, " if self._trained else ""
            return f"interrupted while scoring; {trained}scoring will restart"
        if self._trained:
            step, steps = self._step
            return (
                f"interrupted at step {step} of {steps}; will resume from the checkpoint of its "
                "last validation, or restart if there is none"
            )
        return "interrupted while loading; will restart"

    def training(self, done: int, total: int) -> None:
        """``done`` of ``total`` optimiser steps are finished."""
        if not self._trained:
            self._trained = True
            before = TRAINING_SHARE * max(done - 1, 0) / max(total, 1)
            self._screen._earlier_work += before * self.weight
        self._step = (done, total)
        self._fraction = TRAINING_SHARE * done / max(total, 1)
        self._show("training, step", done, total)

    def scoring(self, total: int) -> None:
        """Scoring starts."""
        self._scoring = True
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
        interval = VERBOSE_LOG_SECONDS if is_verbose() else LOG_SECONDS
        log = always or monotonic() - self._logged > interval
        if log:
            self._logged = monotonic()
        self._screen._show(self, what, done, total, log=log)
