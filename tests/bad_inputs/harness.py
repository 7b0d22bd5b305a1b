"""Give the command line bad inputs, in this process, and say what it should not have done."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from bad_inputs.cases import Case

from quanta_bench.cli import main

SECONDS = 10.0
"""Most CPU time of a refusal."""

WAITING = 60.0
"""Most time of a refusal, for a command that waits for something and computes nothing."""


class TooLong(BaseException):
    """A command took longer than that."""


class Computed(BaseException):
    """A command went on to compute something."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: the exit status; ``None`` if it was stopped because it computed, or took too long.
        text: what it printed.
        seconds: CPU time.
        why: why it was stopped.
    """

    status: Any
    text: str
    seconds: float
    why: str = ""


def complaint(case: Case, outcome: Outcome) -> str:
    """What is wrong with how a command ended; empty if it was refused as it should be."""
    errors = [line for line in outcome.text.splitlines() if line.startswith("quanta-bench: ")]
    problems = [
        (bool(outcome.why), outcome.why),
        (outcome.status == 0, "it was taken"),
        (outcome.status not in (0, None, *case.statuses), f"status {outcome.status}"),
        ("quanta-bench: unexpected" in outcome.text, "unexpected"),
        ("Traceback" in outcome.text, "a traceback"),
        (re.search(r"[\x00-\x08\x0b-\x1f\x7f]", outcome.text) is not None, "control characters"),
        (outcome.status is not None and len(errors) != 1, f"{len(errors)} messages"),
        (any(len(line) > 2000 for line in errors), "a message of pages"),
        (outcome.seconds > SECONDS, f"{outcome.seconds:.0f} s"),
    ]
    found = [text for wrong, text in problems if wrong]
    return f"{case.name}: {'; '.join(found)}: {' '.join(errors)[:300]!a}" if found else ""


def attempt(words: Iterable[str]) -> Outcome:
    """Run a command in this process."""
    out, status, why = io.StringIO(), None, ""
    signals = (signal.SIGVTALRM, signal.SIGALRM)
    before = [signal.signal(number, _too_long) for number in signals]
    argv, sys.argv = sys.argv, ["quanta-bench", *words]
    start = time.process_time()
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WAITING)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            main.main()
    except SystemExit as ended:
        status = ended.code
    except TooLong:
        why = f"over {SECONDS:.0f} s"
    except Computed as what:
        why = f"it began to {what}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
        sys.argv = argv
    return Outcome(status, out.getvalue(), time.process_time() - start, why)


def _too_long(*_: Any) -> None:
    raise TooLong


@contextlib.contextmanager
def nothing_computed(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stop commands before they train, score, download, search or measure."""

    def stop(what: str) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            raise Computed(what)

        return call

    with patch.context() as patched:
        for target, what in (
            ("quanta_bench.training.trainer.train", "train"),
            ("quanta_bench.evaluation.evaluators.evaluate", "score"),
            ("quanta_bench.runs.canary.ensure", "compute the canary"),
            ("quanta_bench.sources.wheels.fetch", "download"),
        ):
            patched.setattr(target, stop(what))
        yield
