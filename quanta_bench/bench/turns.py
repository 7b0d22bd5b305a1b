"""Interleave whole runs: each runs for a while, then waits for its next turn.

Two runs of several minutes each, timed one after the other, would also measure how the machine's
speed drifts. Here every run has its own thread, and only one of them is active at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from quanta_bench.benchmark import Side
from quanta_bench.timing import synchronize

EndPart = Callable[[float], None]
"""Called by a run at the end of each part with the amount of work in that part."""


def take_turns(sides: Mapping[str, Callable[[EndPart], object]], *, unit: str = "") -> list[Side]:
    """Time whole runs part by part, alternating between them.

    The first side runs in the calling thread, so code that needs the main thread can go first.

    Args:
        sides: the runs, by name. Each gets a function to call at the end of every part with the
            part's amount of work; the function returns at the run's next turn. What a run does
            after its last part is not timed.
        unit: the unit of work.

    Returns:
        The sides, with one sample per part.

    Raises:
        Exception: whatever a run raises; the others are abandoned in daemon threads.
    """
    runs = [_Run(name, work) for name, work in sides.items()]
    failures: list[BaseException] = []
    for index, run in enumerate(runs):
        run.others = [*runs[index + 1 :], *runs[:index]]
        run.failures = failures
    for run in runs[1:]:
        threading.Thread(target=run.execute, daemon=True, name=run.name).start()
    runs[0].turn.release()
    runs[0].execute()
    for run in runs[1:]:
        run.finished.wait()
    if failures:
        raise failures[0]
    return [Side(name=run.name, seconds=run.seconds, work=run.work, unit=unit) for run in runs]


class _Run:
    """A run with its turn-taking and timing."""

    def __init__(self, name: str, call: Callable[[EndPart], object]) -> None:
        self.name = name
        self.turn = threading.Semaphore(0)
        self.finished = threading.Event()
        self.seconds: list[float] = []
        self.work: list[float] = []
        self.others: Sequence[_Run] = ()
        self.failures: list[BaseException] = []
        self._call = call
        self._start = 0.0

    def execute(self) -> None:
        self.turn.acquire()
        self._start = time.perf_counter()
        try:
            if not self.failures:
                self._call(self._end_part)
        except BaseException as error:
            self.failures.append(error)
            # The others stop at the end of their next part.
        finally:
            self.finished.set()
            self._hand_over()

    def _end_part(self, work: float) -> None:
        synchronize()
        self.seconds.append(time.perf_counter() - self._start)
        self.work.append(work)
        if self._hand_over():
            self.turn.acquire()
        if self.failures:
            raise _StoppedError
        self._start = time.perf_counter()

    def _hand_over(self) -> bool:
        """Hand the turn to the next unfinished run; false if there is none."""
        for run in self.others:
            if not run.finished.is_set():
                run.turn.release()
                return True
        return False


class _StoppedError(Exception):
    """Ends a run after another run failed."""
