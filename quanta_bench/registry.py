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
PROTOCOLS_GROUP = "quanta_bench.protocols"
VERIFICATIONS_GROUP = "quanta_bench.verifications"
EXPERIMENTS_GROUP = "quanta_bench.experiments"


class Registry(Generic[T]):
    """The plug-ins of one entry-point group, by name.

    Built-in and third-party plug-ins are declared the same way, so none is known here. A plug-in's
    module is imported only when that plug-in is requested: a broken plug-in, or two with the same
    name, stop only what uses them.

    Our own code because ``importlib.metadata`` lists entry points but neither checks nor caches
    them.

    Args:
        group: the entry-point group, for example ``"quanta_bench.methods"``.
        noun: what one entry is called in messages, for example ``"method"``.
        base: the class that every entry must be (a subclass of), or ``None`` for any callable.
    """

    def __init__(self, group: str, noun: str, base: type[Any] | None = None) -> None:
        self.group = group
        self.noun = noun
        self._base = base
        self._points: dict[str, list[EntryPoint]] | None = None
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
        """The distribution that registered ``name``, as ``"package version"``.

        Where several did, all of them, separated by commas.

        Raises:
            UsageError: no plug-in has that name.
        """
        return ", ".join(map(_distribution, self._registered(name)))

    def packages(self) -> set[str]:
        """The top-level packages that plug-ins are defined in."""
        points = (point for points in self._entries().values() for point in points)
        return {point.module.partition(".")[0] for point in points}

    def module(self, name: str) -> str:
        """The module that ``name`` is registered from. Imports nothing.

        Raises:
            UsageError: no plug-in has that name.
        """
        return str(self._registered(name)[0].module)

    def get(self, name: str) -> T:
        """The plug-in called ``name``.

        Raises:
            UsageError: no plug-in has that name; the message points at the nearest one.
            BenchError: the plug-in cannot be imported, is not of the right kind, or shares its
                name with another.
        """
        # Settings of a user's file may name anything, also what has no hash.
        if not isinstance(name, str) or name not in self._loaded:
            point, *others = self._registered(name)
            if others:
                targets = [f"{_owner(one)} ({one.value})" for one in (point, *others)]
                raise BenchError(
                    f"{len(targets)} packages register a {self.noun} called {name!r}: "
                    f"{' and '.join(targets)}. Rename one of them or uninstall its package."
                )
            self._loaded[name] = self._load(point)
        return self._loaded[name]

    def usable(self) -> tuple[dict[str, T], dict[str, str]]:
        """Every plug-in that can be used, and the reason for each that cannot; both by name."""
        plugins: dict[str, T] = {}
        reasons: dict[str, str] = {}
        for name in self.names():
            try:
                plugins[name] = self.get(name)
            except BenchError as error:
                reasons[name] = str(error)
        return plugins, reasons

    def _registered(self, name: str) -> list[EntryPoint]:
        entries = self._entries()
        if not isinstance(name, str) or name not in entries:
            raise UsageError(
                f"There is no {self.noun} called {name!r}. {did_you_mean(str(name), entries)}"
            )
        return entries[name]

    def _load(self, point: EntryPoint) -> T:
        try:
            loaded = point.load()
        except (Exception, SystemExit) as error:
            # A plug-in's module runs as it is imported; a script without a guard may even exit.
            raise BenchError(
                f"The {self.noun} {point.name!r} ({point.value}, from {_distribution(point)}) "
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

    def _entries(self) -> dict[str, list[EntryPoint]]:
        """The entry points of each name: more than one where packages collide."""
        if self._points is None:
            self._points = {}
            for point in entry_points(group=self.group):
                same_name = self._points.setdefault(point.name, [])
                # An editable install can list the same line twice; only other targets collide.
                if point.value not in [other.value for other in same_name]:
                    same_name.append(point)
        return self._points


def _distribution(point: EntryPoint) -> str:
    dist = point.dist
    return f"{dist.name} {dist.version}" if dist is not None else "unknown package"


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unnamed package"
