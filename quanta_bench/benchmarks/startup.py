"""How long the command takes that computes next to nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

from quanta_bench.benchmark import BenchError, Benchmark, Case, Conditions, Finding, Outcome
from quanta_bench.timing import interleave

SHORT: Mapping[str, tuple[str, ...]] = {"--help": ("--help",), "list": ("list",)}
COMMANDS: Mapping[str, tuple[str, ...]] = {
    **SHORT,
    "params, LoRA on llama2-70b": ("params", "--model", "llama2-70b", "--method", "lora"),
    "params": ("params",),
}
PYTHON = "Python itself"


class Startup(Benchmark):
    """Wall time of commands in processes of their own, warm disk cache."""

    name = "startup"
    title = "seconds until a command is done"
    place = 60

    def run(self, conditions: Conditions) -> Outcome:
        """One case: each command some times, in turns; in short those of less than a second."""
        sides: dict[str, Callable[[], object]] = {PYTHON: partial(call, "-c", "pass")}
        commands = SHORT if conditions.quick else COMMANDS
        for name, words in commands.items():
            sides[name] = partial(call, "-m", "quanta_bench.cli.main", *words)
        timed = interleave(sides, rounds=conditions.choose(3, quick=1))
        return Outcome(
            cases=[
                Case(
                    title="this machine",
                    sides=timed,
                    findings=[
                        Finding(
                            title=f"seconds, {side.name}",
                            value=median(side.seconds),
                            low=min(side.seconds),
                            high=max(side.seconds),
                            ratio=False,
                        )
                        for side in timed
                    ],
                    notes=["Intervals are the shortest and the longest of the rounds."],
                )
            ]
        )


def call(*words: str) -> None:
    """Run Python with some words.

    Raises:
        BenchError: it ended with another status than 0.
    """
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{' '.join(words)} ended with status {done.returncode}: {done.stderr}")
