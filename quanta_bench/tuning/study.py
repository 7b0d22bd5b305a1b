"""A study: rounds of trials of all rows together, until every row's search is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quanta_bench.data.pools import Pools
from quanta_bench.report.rate_study import RowStudy, Sensitivity, Study
from quanta_bench.report.tuned import settings_of
from quanta_bench.results.provenance import code_versions
from quanta_bench.results.store import Store
from quanta_bench.runs.availability import without_absent
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.identity import PlannedRow
from quanta_bench.spec import canonical
from quanta_bench.suites.grid import GridRow
from quanta_bench.suites.request import Request
from quanta_bench.tuning import scores
from quanta_bench.tuning.computing import Computed
from quanta_bench.tuning.rates import first_rates
from quanta_bench.tuning.search import RateSearch
from quanta_bench.tuning.trials import Plan, Tunable
from quanta_bench.utils.fingerprint import text_digest

Compute = Callable[[Sequence[GridRow]], Computed]


def first(tunable: Tunable, rates: Sequence[float], most: int) -> list[float]:
    """The rates that a row is tried at first: the user's, or those around its present one."""
    return list(rates) or first_rates(tunable.present, tunable.declared, most)


def tune(
    plan: Plan, compute: Compute, store: Store, *, rates: Sequence[float], most: int
) -> list[RowStudy]:
    """Search the learning rate of each row.

    The rows' trials are computed together, so that several can run at once; a search that grows
    asks for more in the next round.

    Args:
        plan: the rows.
        compute: computes the runs of rows.
        store: where their predictions are.
        rates: the first rates of every row; empty for those around its present one.
        most: the largest number of rates of a row.
    """
    searches = [
        RateSearch(first(tunable, rates, most), most, lower_is_better=plan.lower_is_better)
        for tunable in plan.rows
    ]
    bases: list[Cells] = []
    while asked := [
        (place, rate) for place, search in enumerate(searches) for rate in search.ask()
    ]:
        rows = [plan.rows[place].at(rate) for place, rate in asked]
        if not bases:
            rows += [tunable.base for tunable in plan.rows if tunable.has_text]
        computed = compute(rows)
        if not bases:
            scored = iter(computed.cells[len(asked) :])
            bases = [
                next(scored) if tunable.has_text else Cells(tunable.row, {})
                for tunable in plan.rows
            ]
        for number, (place, rate) in enumerate(asked):
            trial = scores.judge(
                rate,
                computed.cells[number],
                plan.columns,
                store,
                scores.perplexity_of(bases[place]),
                computed.diverged.get(number, ""),
            )
            searches[place].tell(trial)
    return [
        _row_study(tunable, search, base, plan, store)
        for tunable, search, base in zip(plan.rows, searches, bases, strict=True)
    ]


def _row_study(
    tunable: Tunable, search: RateSearch, base: Cells, plan: Plan, store: Store
) -> RowStudy:
    failed = any(trial.state == "failed" for trial in search.trials)
    # The missing rate may have been the best one.
    chosen = None if failed else search.best
    spec = tunable.row.spec
    return RowStudy(
        label=spec.label,
        method=spec.method,
        model=tunable.row.model.title,
        present=tunable.present,
        settings=settings_of(tunable.row.jobs),
        base_score=scores.score_of(base, plan.columns, store)[0] if base.complete else None,
        base_perplexity=scores.perplexity_of(base),
        trials=search.trials,
        chosen=chosen.rate if chosen else None,
        at_edge=chosen is not None and search.at_edge,
        sensitivity=search.sensitivity() if chosen else Sensitivity(),
    )


def available(plan: Plan, pools: Pools) -> Plan:
    """The plan without the tasks that the source lacks.

    Raises:
        SourceError: see :func:`quanta_bench.runs.availability.without_absent`.
    """
    planned = without_absent([PlannedRow.of(tunable.row) for tunable in plan.rows], pools)
    rows = [
        Tunable(one.row, tunable.present, tunable.declared)
        for tunable, one in zip(plan.rows, planned, strict=True)
    ]
    absent = {task: why for one in planned for task, why in one.row.absent.items()}
    notes = [f"{task} is left out: {why}" for task, why in absent.items()]
    return Plan(rows, plan.skipped, plan.columns, [*plan.notes, *notes])


def fingerprint(request: Request, plan: Plan, pools: Pools) -> str:
    """12 hexadecimal digits of all that a study's scores depend on.

    They hold the profile with its size and columns, each row's trainings but for their rates, the
    evaluations, the content of model and data, and the versions of suite, methods and tasks.
    """
    rows = []
    for tunable in plan.rows:
        for seed, run in PlannedRow.of(tunable.at(tunable.present)).runs:
            names = run.identify(pools)
            rows.append(
                [
                    tunable.row.spec.label,
                    seed,
                    run.training.model_dump(mode="json", exclude={"learning_rate"}),
                    run.evaluation.model_dump(mode="json"),
                    names.model,
                    names.training_data,
                    names.evaluation_data,
                ]
            )
    tasks = {task for t in plan.rows for _, evaluation in t.row.jobs for task in evaluation.tasks}
    versions = {
        key: value.model_dump()
        for tunable in plan.rows
        for key, value in code_versions(tunable.row.spec.method, tasks).items()
    }
    content = {
        "suite": request.suite.name,
        "profile": request.profile_name,
        "size": request.size or request.profile.size,
        "columns": [column.key for column in plan.columns],
        "bound": scores.BOUND,
        "rows": rows,
        "versions": versions,
    }
    return text_digest(canonical(content))[:12]


def describe(
    request: Request, plan: Plan, rows: list[RowStudy], *, study: str, command: str, most: int
) -> Study:
    """The study as a record.

    Args:
        request: the request.
        plan: the rows that were tuned.
        rows: what was found.
        study: its fingerprint.
        command: the command that made it.
        most: the largest number of rates of a row.
    """
    suite, size = request.suite, request.size
    text = any(tunable.has_text for tunable in plan.rows)
    columns = ", ".join(column.key for column in plan.columns)
    several = len(plan.columns) > 1
    return Study(
        name=f"tune-{request.file_name}",
        suite=suite.name,
        profile=request.profile_name,
        size=size or request.profile.size,
        title=f"Learning rates of {suite.name} on validation items",
        fingerprint=study,
        command=command,
        score=f"mean of {columns}" if several else columns,
        lower_is_better=plan.lower_is_better,
        bound=scores.BOUND if text else None,
        seeds=list(plan.rows[0].row.seeds),
        most=most,
        rows=rows,
        skipped=plan.skipped,
        notes=plan.notes,
    )
