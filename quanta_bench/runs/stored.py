"""Finished runs of which the model or the data are not on this machine, found by their specs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from quanta_bench.models import embedded
from quanta_bench.models.loading import is_here
from quanta_bench.results.provenance import stale
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells, jobs_of
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.sources.wheels import WHEELS
from quanta_bench.spec import EvaluationSpec, Job, TrainingSpec, canonical, sources_of
from quanta_bench.suites.grid import GridRow


def content_is_here(rows: Iterable[GridRow]) -> bool:
    """Whether the models of a grid, and the embedded data where it reads these, are on the disk.

    Data from other sources are not looked for. Downloads nothing.
    """
    jobs = [job for row in rows if not row.missing for _, job in jobs_of(row)]
    if any("embedded" in sources_of(job.training, job.evaluation) for job in jobs) and not (
        all(wheel.fetched for wheel in WHEELS) and embedded.is_converted()
    ):
        return False
    return all(is_here(model) for model in {PlannedRun.of(job).model for job in jobs})


def stored_cells(rows: Sequence[GridRow], store: Store) -> list[Cells] | None:
    """The results of a grid by their specs alone, if every run of it is stored.

    Tasks that none of the runs has scored count as absent from the source. Where several results
    have the same specs, for models or data of other content, one of the present code is taken.

    Returns:
        The rows with their results, or ``None`` if a run is missing.
    """
    stored: dict[str, list[Result]] = {}
    for result in store.results():
        stored.setdefault(_key(result.training.spec, result.evaluation), []).append(result)
    if not stored:
        return None
    found: list[list[tuple[int, Job, Result | None]]] = []
    for row in rows:
        jobs = [] if row.missing else jobs_of(row)
        found.append([(seed, job, _best(stored, job)) for seed, job in jobs])
    scored = {task for row in found for _, _, result in row if result for task in result.tasks}
    cells = []
    for row, runs in zip(rows, found, strict=True):
        cell = Cells(row, {}, by_spec=True)
        kept = []
        for seed, job, match in runs:
            tasks = scored & set(job.evaluation.tasks)
            if not tasks:
                continue
            if match is None or set(match.tasks) != tasks:
                return None
            kept.append((job.training, job.evaluation))
            cell.results.setdefault(seed, []).append(match)
        if runs:
            absent = {
                task: "none of the stored runs has scored it."
                for _, job, _ in runs
                for task in job.evaluation.tasks
                if task not in scored
            }
            cell.row = replace(row, jobs=tuple(kept), absent=absent)
        cells.append(cell)
    return cells if scored else None


def _best(stored: dict[str, list[Result]], job: Job) -> Result | None:
    planned = PlannedRun.of(job)
    tasks = set(planned.evaluation.tasks)
    fits = [
        result
        for result in stored.get(_key(planned.training, planned.evaluation), ())
        if set(result.tasks) <= tasks
    ]
    return min(fits, key=lambda one: (-len(one.tasks), len(stale(one)), one.run), default=None)


def _key(training: TrainingSpec, evaluation: EvaluationSpec) -> str:
    """Equal for runs of the same specs, whichever of the tasks their source had."""
    return canonical(
        [
            training.model_dump(mode="json"),
            evaluation.model_dump(mode="json", exclude={"tasks"}),
        ]
    )
