"""The rows of a source, read once for all that ask for them, such as the splits of a file."""

from __future__ import annotations

from typing import Any

from quanta_bench.sources.names import Kind
from quanta_bench.task import Location, Source


class KeptRows:
    """A source that keeps what it has read. Readers share the rows and leave them as they are.

    Args:
        source: where rows come from.

    Attributes:
        read: every location whose rows were asked for and are there, in order of first asking.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rows: dict[Location, list[dict[str, Any]]] = {}
        self.read: list[Location] = []

    @property
    def kind(self) -> Kind:
        """Which kind of source this is."""
        return self._source.kind

    def rows(self, location: Location) -> list[dict[str, Any]]:
        """All rows at a location, in file order; each call gives the same list.

        Raises:
            SourceError: as the source's own.
        """
        if location not in self._rows:
            self._rows[location] = self._source.rows(location)
        if location not in self.read:
            self.read.append(location)
        return self._rows[location]

    def begin(self) -> None:
        """Forget what was asked for, and keep the rows."""
        self.read = []
