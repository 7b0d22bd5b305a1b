"""Whole runs that take turns: each goes on for a while and then waits until it is its turn again.

Two runs of minutes, one after the other, would measure the machine's mood as well. Here every run
has a thread of its own and only one of them works at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from quanta_bench.benchmark import Side
from quanta_bench.timing import synchronize

Done = Callable[[float], None]
"""What a run calls at the end of each part with the amount of work that the part was."""


def take_turns(sides: Mapping[str, Callable[[Done], object]], *, unit: str = "") -> list[Side]:
    """Time whole runs part by part, a part of each in turn.

    The first side runs in the calling thread; what only works in a main thread can be first.

    Args:
        sides: runs, by name. Each is called with a function that it calls at the end of every
            part with the part's work; that function returns when it is the run's turn again.
            What a run does after its last part is not timed.
        unit: of the work.

    Returns:
        The sides with a sample for each part.

    Raises:
        Exception: whatever a run raises; the others are left where they are, in daemon threads.
    """
    runs = [_Run(name, work) for name, work in sides.items()]
    failures: list[BaseException] = []
    for place, run in enumerate(runs):
        run.others = [*runs[place + 1 :], *runs[:place]]
        run.failures = failures
    for run in runs[1:]:
        threading.Thread(target=run.whole, daemon=True, name=run.name).start()
    runs[0].turn.release()
    runs[0].whole()
    for run in runs[1:]:
        run.over.wait()
    if failures:
        raise failures[0]
    return [Side(name=run.name, seconds=run.seconds, work=run.work, unit=unit) for run in runs]


class _Run:
    """One run, its turn and its clock."""

    def __init__(self, name: str, call: Callable[[Done], object]) -> None:
        self.name = name
        self.turn = threading.Semaphore(0)
        self.over = threading.Event()
        self.seconds: list[float] = []
        self.work: list[float] = []
        self.others: Sequence[_Run] = ()
        self.failures: list[BaseException] = []
        self._call = call
        self._start = 0.0

    def whole(self) -> None:
        self.turn.acquire()
        self._start = time.perf_counter()
        try:
            if not self.failures:
                self._call(self._done)
        except BaseException as error:
            self.failures.append(error)
            # The others end their wait and, at the end of their next part, themselves.
        finally:
            self.over.set()
            self._pass_on()

    def _done(self, work: float) -> None:
        synchronize()
        self.seconds.append(time.perf_counter() - self._start)
        self.work.append(work)
        if self._pass_on():
            self.turn.acquire()
        if self.failures:
            raise _StoppedError
        self._start = time.perf_counter()

    def _pass_on(self) -> bool:
        """Give the turn to the next run that is not over; false if there is none."""
        for run in self.others:
            if not run.over.is_set():
                run.turn.release()
                return True
        return False


class _StoppedError(Exception):
    """Ends a run after another one failed."""
