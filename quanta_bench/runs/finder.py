"""Find stored runs by their names, which stand for their specs and content.

Nothing here imports torch, which takes longer than finding thousands of runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from quanta_bench.data.pools import Pools
from quanta_bench.models.loading import is_here, model_fingerprint, unchecked_fingerprint
from quanta_bench.results.integrity import DamagedError, NewerSchemaError
from quanta_bench.results.records import Result, TrainingRecord
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.identity import Identity, PlannedRow, PlannedRun, check_identity
from quanta_bench.runs.places import relocated, relocated_training

DTYPES = ("bfloat16", "float32")
"""What ``precision="auto"`` may stand for on a machine."""


class Finder:
    """Finds runs in a store.

    Args:
        store: where results are.
        pools: where items come from.
        outdated: stored results that do not count, because they are to be computed again: the
            checksum of each, by run.
    """

    def __init__(
        self, store: Store, pools: Pools, outdated: Mapping[str, str] | None = None
    ) -> None:
        self.store = store
        self.pools = pools
        self.outdated = dict(outdated or {})
        # The files of a model are hashed once for all of its runs.
        self._fingerprint = cache(model_fingerprint)

    def _identify(self, planned: PlannedRun, fastest: str, *, by_place: bool = False) -> Identity:
        return planned.identify(self.pools, fastest, self._fingerprint, by_place=by_place)

    def stored_result(self, planned: PlannedRun, names: Identity) -> Result | None:
        """A stored result of these specs and this content, or ``None``."""
        folder = self.store.run_folder(names.run)
        try:
            result = self.store.result(names.run)
            if result is not None:
                check_identity(folder, planned, names, result.training, result)
        except DamagedError as error:
            self.store.set_aside(folder, error)
            return None
        if result is not None and self.outdated.get(names.run) == result.checksum:
            return None
        return result and relocated(result, planned.training, planned.evaluation)

    def stored_training(self, planned: PlannedRun, names: Identity) -> TrainingRecord | None:
        """A stored training of this spec and content with an intact adapter, or ``None``."""
        folder = self.store.training_folder(names.training)
        try:
            record = self.store.training(names.training)
            if record is not None:
                check_identity(folder, planned, names, record)
                if planned.method.trains:
                    self.store.adapter(record)
        except DamagedError as error:
            self.store.set_aside(folder, error)
            return None
        return record and relocated_training(record, planned.training)


class _Reader(Finder):
    """Finds runs without asking how this machine computes, or whether it could load the model."""

    def __init__(self, store: Store, pools: Pools) -> None:
        super().__init__(store, pools)
        self._fingerprint = cache(unchecked_fingerprint)

    def the_one(self, planned: PlannedRun) -> Result | None:
        """The stored result of a run; ``None`` if there is none, or one of each precision."""
        if not is_here(planned.model):
            return None
        dtypes = DTYPES if planned.training.precision == "auto" else DTYPES[:1]
        names = (self._identify(planned, dtype) for dtype in dtypes)
        found = [result for name in names if (result := self.stored_result(planned, name))]
        return found[0] if len(found) == 1 else None


def all_finished(rows: Sequence[PlannedRow], store: Store, pools: Pools) -> list[Cells] | None:
    """The results of a grid, if every run is stored; those that `Runner.find` finds.

    Args:
        rows: the planned grid, without tasks that the source lacks.
        store: where results are.
        pools: where items come from.

    Returns:
        ``None`` if a run is missing, or which result counts depends on this machine.

    Raises:
        SourceError: the model or the data cannot be read.
    """
    reader = _Reader(store, pools)
    cells = []
    for planned in rows:
        row = Cells(planned.row, {})
        cells.append(row)
        for seed, run in planned.runs:
            try:
                result = reader.the_one(run)
            except NewerSchemaError:
                return None
            if result is None:
                return None
            row.add(seed, result)
    return cells
