"""Compute the runs of trials, each once: results are stored, and so is which runs diverged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, RenderableType

from quanta_bench.data.pools import Pools
from quanta_bench.errors import DivergedError
from quanta_bench.results.provenance import code_versions
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.devices import ONE, Devices
from quanta_bench.runs.identity import PlannedRow, PlannedRun
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.schedule import PendingRun
from quanta_bench.runs.sweep import Fresh, sweep
from quanta_bench.spec import canonical
from quanta_bench.suites.grid import GridRow
from quanta_bench.utils.fingerprint import text_digest
from quanta_bench.utils.folders import whole_file


@dataclass(frozen=True)
class Computed:
    """What became of the rows of a round.

    Attributes:
        cells: the rows with their results, in order.
        diverged: how a run of a row diverged, by the row's place.
    """

    cells: list[Cells]
    diverged: Mapping[int, str]


class Divergences:
    """The runs that are known to diverge, kept in a file of the results folder.

    Such a run leaves no result by which the store would know it. It is computed again when the
    code that computed it has changed.
    """

    def __init__(self, store: Store, pools: Pools) -> None:
        self.path = store.root / "diverged.json"
        self._runner = Runner(store, Silent(), pools)
        self._known = _read(self.path)

    def find(self, run: PlannedRun) -> str:
        """How a run diverged; empty if it is not known to."""
        return self._known.get(self._key(run), "")

    def add(self, run: PlannedRun, message: str) -> None:
        """Remember how a run diverged."""
        # Another process may have added some.
        self._known = _read(self.path) | {self._key(run): message}
        with whole_file(self.path) as stream:
            stream.write(json.dumps(self._known, indent=1, sort_keys=True).encode())

    def _key(self, run: PlannedRun) -> str:
        name = self._runner.identify(run).run
        versions = code_versions(run.training.method, run.training.tasks)
        text = canonical({key: value.model_dump() for key, value in versions.items()})
        return f"{name}-{text_digest(text)[:12]}"


def _read(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in content.items()} if content else {}


class Computer:
    """Computes rounds of trials and collects messages about runs that failed otherwise.

    Args:
        store: where results are and go.
        console: where progress is shown.
        pools: where items come from.
        draw: draws the rows of a round from the results so far.
        fresh: which runs to recompute.
        at_once: how many to compute at once, see :func:`quanta_bench.runs.sweep.sweep`.
        most: how many to train together, likewise.
        devices: over what to spread each, likewise.
        allow_overlap: score validation items even if many of them are in the training data.
        loggers: names of the loggers that trainings are followed in.
    """

    def __init__(
        self,
        store: Store,
        console: Console,
        pools: Pools,
        draw: Callable[[list[Cells]], RenderableType],
        *,
        fresh: Fresh = "",
        at_once: int | None = 1,
        most: int | None = 1,
        devices: Devices = ONE,
        allow_overlap: bool = False,
        loggers: tuple[str, ...] = (),
    ) -> None:
        self.failures: list[str] = []
        self._store = store
        self._console = console
        self._pools = pools
        self._draw = draw
        self._fresh: Fresh = fresh
        self._at_once = at_once
        self._most = most
        self._devices = devices
        self._allow_overlap = allow_overlap
        self._loggers = loggers
        self._divergences = Divergences(store, pools)

    def __call__(self, rows: Sequence[GridRow]) -> Computed:
        """Compute the runs of these rows that have no result and are not known to diverge."""
        known = {} if self._fresh == "all" else self._known(rows)
        diverged: dict[int, str] = {}

        def accept(run: PendingRun, error: Exception) -> bool:
            if not isinstance(error, DivergedError):
                return False
            self._divergences.add(run.planned, str(error))
            diverged.update({id(cells): str(error) for cells, _ in run.cells})
            return True

        waiting = [row for place, row in enumerate(rows) if place not in known]
        computed: list[Cells] = []
        if waiting:
            computed, failures = sweep(
                waiting,
                self._store,
                self._console,
                self._draw,
                pools=self._pools,
                fresh=self._fresh,
                at_once=self._at_once,
                most=self._most,
                devices=self._devices,
                allow_overlap=self._allow_overlap,
                loggers=self._loggers,
                accept=accept,
            )
            self.failures += failures
        remaining = iter(computed)
        cells = [
            Cells(row, {}) if place in known else next(remaining) for place, row in enumerate(rows)
        ]
        new = {place: diverged[id(one)] for place, one in enumerate(cells) if id(one) in diverged}
        return Computed(cells, known | new)

    def _known(self, rows: Sequence[GridRow]) -> dict[int, str]:
        if not self._divergences.path.exists():
            return {}
        found = {}
        for place, row in enumerate(rows):
            runs = (run for _, run in PlannedRow.of(row).runs)
            message = next(filter(None, map(self._divergences.find, runs)), "")
            if message:
                found[place] = message
        return found
