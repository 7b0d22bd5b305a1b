"""The registered methods, tasks, protocols and benchmarks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quanta_bench.benchmark import Benchmark
from quanta_bench.method import Method
from quanta_bench.protocol import Protocol
from quanta_bench.registry import (
    BENCHMARKS_GROUP,
    METHODS_GROUP,
    PROTOCOLS_GROUP,
    TASKS_GROUP,
    Registry,
)
from quanta_bench.task import Task

METHODS: Registry[type[Method[Any]]] = Registry(METHODS_GROUP, "method", Method)


def build_method(name: str, settings: Mapping[str, Any]) -> Method[Any]:
    """A method by its registered name.

    Raises:
        UsageError: no such method, or settings it does not take.
    """
    return METHODS.get(name).from_settings(settings)


TASKS: Registry[type[Task]] = Registry(TASKS_GROUP, "task", Task)


def find_task(reference: str) -> Task:
    """The task named by ``name`` or ``name:argument``.

    Raises:
        UsageError: no such task, or an argument it does not take.
    """
    name, colon, argument = reference.partition(":")
    return TASKS.get(name)(argument if colon else None)


def task_title(reference: str) -> str:
    """The heading of a task's column; the task's own name where it is not registered."""
    return find_task(reference).title if reference.partition(":")[0] in TASKS else reference


PROTOCOLS: Registry[type[Protocol]] = Registry(PROTOCOLS_GROUP, "protocol", Protocol)


def find_protocol(name: str) -> Protocol:
    """A protocol by its registered name.

    Raises:
        UsageError: no such protocol.
    """
    return PROTOCOLS.get(name)()


BENCHMARKS: Registry[type[Benchmark]] = Registry(BENCHMARKS_GROUP, "benchmark", Benchmark)
