"""The registered methods, built from a name and plain settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quanta_bench.method import Method
from quanta_bench.registry import METHODS_GROUP, Registry

METHODS: Registry[type[Method[Any]]] = Registry(METHODS_GROUP, "method", Method)


def build_method(name: str, settings: Mapping[str, Any]) -> Method[Any]:
    """A method by its registered name.

    Raises:
        UsageError: no such method, or settings it does not take.
    """
    return METHODS.get(name).from_settings(settings)
