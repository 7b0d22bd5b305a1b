"""``quanta-bench figure``: compute the runs of a figure and draw it."""

from __future__ import annotations

from typing import Annotated

import typer

from quanta_bench.cli.options import (
    SuiteOptions,
    examples,
    read_fresh,
    takes_options,
    whole_numbers,
)
from quanta_bench.errors import UsageError

EXAMPLES = examples(
    "quanta-bench figure 4",
    "quanta-bench figure 1 --quick",
    "quanta-bench figure 2 --seeds 0 --results my-results",
    "quanta-bench figure 4 --profile paper --dry-run --gpu h100-80gb",
)


@takes_options(SuiteOptions)
def figure(
    name: Annotated[str, typer.Argument(help="1, figure4, or the path of a suite of your own.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Of figure 1: fewer points and seeds, in seconds.")
    ] = False,
    *,
    options: SuiteOptions,
) -> None:
    """Compute a figure's runs and draw it (PNG, SVG, CSV).

    Runs that are finished are not computed again. Figure 1 has no runs of a
    language model: it takes --quick, --seeds, --results and --json alone.
    """
    from quanta_bench.plugins import EXPERIMENTS

    experiment = f"figure{name}" if name.isdigit() else name
    if experiment in EXPERIMENTS:
        _experiment(experiment, options, quick=quick)
        return
    if quick:
        raise UsageError(f"--quick is of figure 1; {name} has runs, which --dry-run lists.")
    from quanta_bench.cli import console, output
    from quanta_bench.report import figures
    from quanta_bench.runs.concurrency import read_jobs
    from quanta_bench.suites.request import make_request

    options.check()
    at_once = read_jobs(options.jobs)
    with console.working("Reading the suite"):
        request = make_request(
            name,
            "figure",
            options.profile,
            options.choice(),
            check=not options.dry_run,
            others=EXPERIMENTS.names(),
        )
    shown = figures.narrow(request)
    if options.dry_run:
        console.show_plan(shown, as_json=options.as_json, gpu=options.gpu)
        return

    from quanta_bench.results.store import Store

    store = Store(options.folder)
    cells, failed = console.compute(
        shown, store, at_once, fresh=read_fresh(options.fresh), as_json=options.as_json
    )
    if failed and not any(cell.results for cell in cells):
        console.check_failed(failed)
    drawn = figures.draw(request, cells, store)
    paths = figures.write(drawn, store.root)
    output.show(figures.as_data(drawn, paths), figures.on_screen(drawn), as_json=options.as_json)
    if not options.as_json:
        console.say_written(paths, store)
    console.check_failed(failed)


TAKEN = ("--seeds", "--results", "--json")
"""Options that an experiment takes of those of a suite."""


def _experiment(name: str, options: SuiteOptions, *, quick: bool) -> None:
    """Run an experiment and write its figure.

    Raises:
        UsageError: an option that has no meaning for it, or seeds that are none.
        BenchError: it cannot be run here.
    """
    from quanta_bench.cli import console, output
    from quanta_bench.experiment import Conditions
    from quanta_bench.plugins import EXPERIMENTS
    from quanta_bench.report import experiment_figure
    from quanta_bench.utils.quiet import settle_libraries

    # An environment variable may give the jobs, which are no matter here.
    refused = [flag for flag in options.given() if flag not in (*TAKEN, "--jobs")]
    if refused:
        raise UsageError(
            f"{name} has no runs of a suite and takes no {refused[0]}; it takes --quick, "
            f"{', '.join(TAKEN[:-1])} and {TAKEN[-1]}."
        )
    seeds = whole_numbers(options.seeds)
    if len(set(seeds)) < len(seeds) or min(seeds, default=0) < 0:
        raise UsageError(f"--seeds {options.seeds}: give different numbers, none below 0.")
    experiment = EXPERIMENTS.get(name)
    settle_libraries()
    screen = console.console(errors=options.as_json)

    def tell(text: str) -> None:
        screen.print(text, highlight=False, markup=False, style="dim")

    outcome = experiment().run(Conditions(quick=quick, seeds=seeds, tell=tell))
    paths = experiment_figure.write(experiment, outcome, options.folder)
    points = experiment_figure.records(outcome)
    output.show(
        {"title": experiment.title, "points": points, "files": list(map(str, paths))},
        experiment_figure.on_screen(outcome),
        as_json=options.as_json,
    )
    if not options.as_json:
        screen.print(outcome.caption, highlight=False, markup=False)
        screen.print(f"Written: {', '.join(map(str, paths))}.", style="dim")
