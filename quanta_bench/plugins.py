"""The registered plug-ins of every kind, and how each is made from its name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from quanta_bench.benchmark import Benchmark
from quanta_bench.errors import BenchError
from quanta_bench.experiment import Experiment
from quanta_bench.method import Method
from quanta_bench.protocol import Protocol
from quanta_bench.registry import (
    BENCHMARKS_GROUP,
    EXPERIMENTS_GROUP,
    METHODS_GROUP,
    PROTOCOLS_GROUP,
    TASKS_GROUP,
    VERIFICATIONS_GROUP,
    Registry,
)
from quanta_bench.task import Task
from quanta_bench.verification import Verification

METHODS: Registry[type[Method[Any]]] = Registry(METHODS_GROUP, "method", Method)
TASKS: Registry[type[Task]] = Registry(TASKS_GROUP, "task", Task)
BENCHMARKS: Registry[type[Benchmark]] = Registry(BENCHMARKS_GROUP, "benchmark", Benchmark)
VERIFICATIONS: Registry[type[Verification]] = Registry(VERIFICATIONS_GROUP, "check", Verification)
EXPERIMENTS: Registry[type[Experiment]] = Registry(EXPERIMENTS_GROUP, "experiment", Experiment)


def build_method(name: str, settings: Mapping[str, Any]) -> Method[Any]:
    """A method by its registered name.

    Raises:
        UsageError: no such method, or settings it does not take.
    """
    return METHODS.get(name).from_settings(settings)


@cache
def find_task(reference: str) -> Task:
    """The task named by ``name`` or ``name:argument``; one instance for the life of the process.

    A task is without state, and one of a user's own file reads and checks that file when made.

    Raises:
        UsageError: no such task, or an argument it does not take.
    """
    name, colon, argument = reference.partition(":")
    return TASKS.get(name)(argument if colon else None)


def is_registered(reference: str) -> bool:
    """Whether a task reference, ``name`` or ``name:argument``, names a registered task."""
    return reference.partition(":")[0] in TASKS


def task_title(reference: str) -> str:
    """The heading of a task's column; its reference where it is not registered or not readable.

    A task of a user's own file cannot be made once the file is gone.
    """
    try:
        return find_task(reference).title if is_registered(reference) else reference
    except BenchError:
        return reference


def plugin_packages() -> set[str]:
    """The top-level packages of plug-ins, to attribute a crash to one of them.

    The suite's own package is excluded although its benchmarks are plug-ins, because its frames
    surround those of a method or task.
    """
    registries = (METHODS, TASKS, BENCHMARKS, VERIFICATIONS, EXPERIMENTS)
    packages = set().union(*(registry.packages() for registry in registries))
    return packages - {__name__.partition(".")[0]}


PROTOCOLS: Registry[type[Protocol]] = Registry(PROTOCOLS_GROUP, "protocol", Protocol)


def find_protocol(name: str) -> Protocol:
    """A protocol by its registered name.

    Raises:
        UsageError: no such protocol.
    """
    return PROTOCOLS.get(name)()
