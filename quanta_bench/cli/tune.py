"""``quanta-bench tune``: search the learning rate of each row of a table on validation items."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from quanta_bench.cli.options import SuiteOptions, examples, read_fresh, takes_options
from quanta_bench.errors import UsageError

if TYPE_CHECKING:
    from quanta_bench.report.rate_study import Study
    from quanta_bench.results.store import Store
    from quanta_bench.suites.request import Request
    from quanta_bench.tuning.trials import Plan

EXAMPLES = examples(
    "quanta-bench tune 3 --methods lora,quanta --seeds 0",
    "quanta-bench tune 3 --methods lora --rates 3e-4,1e-3,3e-3 --max-rates 5",
    "quanta-bench tune 3 --methods lora,quanta --dry-run",
    "quanta-bench table results/local/embedded/tuned-table3.yaml",
)


@dataclass(frozen=True)
class TuneOptions(SuiteOptions):
    """The options of a suite, and those of a search."""

    rates: Annotated[
        str,
        typer.Option(
            "--rates",
            help="First learning rates of every row, ascending: 1e-4,3e-4,1e-3. "
            "[default: five or more, half a decade apart, around the row's own]",
        ),
    ] = ""
    max_rates: Annotated[
        int | None,
        typer.Option("--max-rates", help="Stop growing at so many rates of a row. [default: 9]"),
    ] = None


@takes_options(TuneOptions)
def tune(
    name: Annotated[str, typer.Argument(help="3, table3, or the path of a suite of your own.")],
    *,
    options: TuneOptions,
) -> None:
    """Tune each row's learning rate on validation items.

    Rates are half a decade apart; the range grows until the best one is not at its edge. A rate
    that makes running text more than 1.5 times as perplexing is refused. Writes the curves and a
    suite with the chosen rates, for `quanta-bench table`. The same command resumes.
    """
    from quanta_bench.cli import console
    from quanta_bench.launchers.choice import LOCAL
    from quanta_bench.report.appendix import TABLES
    from quanta_bench.tuning import trials
    from quanta_bench.tuning.rates import MOST, parse_rates

    if options.stored:
        raise UsageError("--stored does not apply to tune, which computes no finished run again.")
    if options.launcher != LOCAL:
        raise UsageError(
            "--launcher does not apply to tune, which decides on this machine what to try next."
        )
    rates = parse_rates(options.rates)
    most = options.max_rates if options.max_rates is not None else max(MOST, len(rates))
    if most < max(2, len(rates)):
        raise UsageError(
            f"--max-rates {most}: a row is tried at {len(rates)} rates at least (--rates)."
            if rates
            else f"--max-rates {most}: there is nothing to compare; give at least 2."
        )
    if name in TABLES or f"table{name}" in TABLES:
        raise UsageError(f"Table {name.removeprefix('table')} trains nothing to tune.")
    request = console.read_request(name, "table", options, others=())
    plan = trials.plan(request, options.choice())
    if options.dry_run:
        _show_plan(request, plan, options, rates, most)
        return
    _compute(name, request, plan, options, rates, most)


def _show_plan(
    request: Request, plan: Plan, options: TuneOptions, rates: tuple[float, ...], most: int
) -> None:
    """Print the first rates of each row, and the plan of its runs at one rate."""
    from quanta_bench.cli import console
    from quanta_bench.cli import plan as plan_on_screen
    from quanta_bench.costs.plan import make_plan
    from quanta_bench.tuning import report
    from quanta_bench.tuning.study import first

    at_first = [first(tunable, rates, most) for tunable in plan.rows]
    with console.working("Counting parameters without loading weights"):
        one_rate = replace(request, grid=[tunable.row for tunable in plan.rows])
        made = make_plan(one_rate, options.gpu)
    if options.as_json:
        rows = [
            {"label": tunable.row.spec.label, "first_rates": values, "most_rates": most}
            for tunable, values in zip(plan.rows, at_first, strict=True)
        ]
        data = {"rows": rows, "skipped": plan.skipped, "one_rate": made.model_dump()}
        typer.echo(json.dumps(data, indent=1))
        return
    console.console().print(report.planned(plan, at_first, most))
    console.console().print("\nAt one rate:\n")
    console.console().print(plan_on_screen.on_screen(made))


def _compute(
    name: str,
    request: Request,
    plan: Plan,
    options: TuneOptions,
    rates: tuple[float, ...],
    most: int,
) -> None:
    """Compute the trials, and print and write the study."""
    from quanta_bench.cli import console
    from quanta_bench.data.pools import Pools
    from quanta_bench.results.store import Store
    from quanta_bench.runs.concurrency import read_jobs, read_together
    from quanta_bench.runs.devices import Devices
    from quanta_bench.training.loggers import read_loggers
    from quanta_bench.tuning import report, scores, study, trials
    from quanta_bench.tuning.computing import Computer
    from quanta_bench.utils.quiet import settle_libraries

    settle_libraries()
    shown = console.progress()
    console.fetch_for(shown, [job for tunable in plan.rows for job in tunable.row.jobs])
    pools = Pools()
    without = trials.missing_text(plan.rows, pools)
    plan = study.available(plan.without_text(without) if without else plan, pools)
    store = Store(options.folder)
    compute = Computer(
        store,
        shown,
        pools,
        lambda cells: report.progress(
            cells,
            {
                place: scores.score_of(row, plan.columns, store)[0]
                for place, row in enumerate(cells)
                if row.complete
            },
        ),
        fresh=read_fresh(options.fresh),
        at_once=read_jobs(options.jobs),
        most=read_together(options.together),
        devices=Devices.of(options.devices, options.strategy),
        allow_overlap=options.allow_overlap,
        loggers=read_loggers(options.loggers or ()),
    )
    rows = study.tune(plan, compute, store, rates=rates, most=most)
    found = study.describe(
        request,
        plan,
        rows,
        study=study.fingerprint(request, plan, pools),
        command=shlex.join(["quanta-bench", *sys.argv[1:]]),
        most=most,
    )
    _show(name, request, found, store, options)
    console.check_failed(compute.failures)


def _show(name: str, request: Request, found: Study, store: Store, options: TuneOptions) -> None:
    """Print a study and write its files."""
    from quanta_bench.cli import console
    from quanta_bench.report import plots
    from quanta_bench.tuning import picture, report, suite_file

    stem, paths = report.write(found, store.root)
    paths += plots.save(picture.draw(found), store.root, stem)
    content = suite_file.tuned_suite(request, options.choice(), found, name)
    tuned = suite_file.write(content, found, store.root, stem)
    if options.as_json:
        typer.echo(report.as_json(found), nl=False)
        return
    console.console().print(report.on_screen(found))
    console.say_written([*paths, tuned], store)
    if any(row.chosen is not None for row in found.rows):
        console.progress().print(
            f"The table at these rates: quanta-bench table {shlex.quote(str(tuned))}",
            style="dim",
            highlight=False,
            soft_wrap=True,
        )
