"""Start-up time of the command line."""

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
    """Wall time of commands in fresh processes, with a warm disk cache."""

    name = "startup"
    title = "seconds until a command exits"
    place = 60

    def run(self, conditions: Conditions) -> Outcome:
        """One case: each command several times, interleaved; with ``--quick`` only the fastest."""
        sides: dict[str, Callable[[], object]] = {PYTHON: partial(call, "-c", "pass")}
        commands = SHORT if conditions.quick else COMMANDS
        for name, arguments in commands.items():
            sides[name] = partial(call, "-m", "quanta_bench.cli.main", *arguments)
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
                    notes=["Intervals span the shortest and the longest round."],
                )
            ]
        )


def call(*arguments: str) -> None:
    """Run Python with arguments.

    Raises:
        BenchError: the exit status is not 0.
    """
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if process.returncode:
        raise BenchError(
            f"{' '.join(arguments)} exited with status {process.returncode}: {process.stderr}"
        )
