"""One registry for every kind of plug-in: named by entry points, imported when first used."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from quanta_bench.errors import BenchError, UsageError, did_you_mean

T = TypeVar("T")

METHODS_GROUP = "quanta_bench.methods"
TASKS_GROUP = "quanta_bench.tasks"
BENCHMARKS_GROUP = "quanta_bench.benchmarks"


class Registry(Generic[T]):
    """The plug-ins of one entry-point group, by name.

    Built-ins and third-party plug-ins are declared the same way, so nothing here knows any of
    them. A plug-in's module is imported only when that plug-in is asked for.

    Args:
        group: the entry-point group, for example ``"quanta_bench.methods"``.
        noun: what one entry is called in messages, for example ``"method"``.
        base: the class that every entry must be (a subclass of), or ``None`` for any callable.
    """

    def __init__(self, group: str, noun: str, base: type[Any] | None = None) -> None:
        self.group = group
        self.noun = noun
        self._base = base
        self._points: dict[str, EntryPoint] | None = None
        self._loaded: dict[str, T] = {}

    def __repr__(self) -> str:
        return f"Registry(group={self.group!r}, noun={self.noun!r})"

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._entries()

    def names(self) -> list[str]:
        """All registered names, sorted. Imports nothing."""
        return sorted(self._entries())

    def origin(self, name: str) -> str:
        """The distribution that registered ``name``, as ``"package version"``."""
        dist = self._entry(name).dist
        return f"{dist.name} {dist.version}" if dist is not None else "unknown package"

    def module(self, name: str) -> str:
        """The module that ``name`` is registered from. Imports nothing."""
        return self._entry(name).module

    def get(self, name: str) -> T:
        """The plug-in called ``name``.

        Raises:
            UsageError: no plug-in has that name; the message points at the nearest one.
            BenchError: the plug-in cannot be imported, or is not of the right kind.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(self._entry(name))
        return self._loaded[name]

    def _entry(self, name: str) -> EntryPoint:
        entries = self._entries()
        if name not in entries:
            raise UsageError(
                f"There is no {self.noun} called {name!r}. {did_you_mean(name, entries)}"
            )
        return entries[name]

    def _load(self, point: EntryPoint) -> T:
        try:
            loaded = point.load()
        except Exception as error:
            raise BenchError(
                f"The {self.noun} {point.name!r} ({point.value}, from {self.origin(point.name)}) "
                f"cannot be imported: {type(error).__name__}: {error}"
            ) from error
        if self._base is not None and not (
            isinstance(loaded, type) and issubclass(loaded, self._base)
        ):
            raise BenchError(
                f"The {self.noun} {point.name!r} ({point.value}) is not a subclass of "
                f"{self._base.__module__}.{self._base.__qualname__}."
            )
        if self._base is not None and getattr(loaded, "name", None) != point.name:
            raise BenchError(
                f"The {self.noun} {point.name!r} ({point.value}) calls itself "
                f"{getattr(loaded, 'name', None)!r}. Use one name in both places."
            )
        return cast(T, loaded)

    def _entries(self) -> dict[str, EntryPoint]:
        if self._points is None:
            found: dict[str, EntryPoint] = {}
            for point in entry_points(group=self.group):
                other = found.get(point.name)
                # An editable install can list the same line twice; only different targets collide.
                if other is not None and other.value != point.value:
                    raise BenchError(
                        f"Two packages register a {self.noun} called {point.name!r}: "
                        f"{_owner(other)} ({other.value}) and {_owner(point)} ({point.value}). "
                        "Rename one of them or uninstall its package."
                    )
                found[point.name] = point
            self._points = found
        return self._points


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unnamed package"
