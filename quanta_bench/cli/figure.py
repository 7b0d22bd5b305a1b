"""``quanta-bench figure``: compute the runs of a figure and draw it."""

from __future__ import annotations

from typing import Annotated

import typer

from quanta_bench.cli.options import (
    SuiteOptions,
    examples,
    read_seeds,
    takes_options,
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
        bool, typer.Option("--quick", help="Figure 1 only: fewer points and seeds; takes seconds.")
    ] = False,
    *,
    options: SuiteOptions,
) -> None:
    """Compute a figure's runs and draw it (PNG, SVG, CSV).

    Finished runs are not computed again. Figure 1 trains no language model
    and takes only --quick, --seeds, --results and --json.
    """
    from quanta_bench.plugins import EXPERIMENTS

    experiment = f"figure{name}" if name.isdigit() else name
    if experiment in EXPERIMENTS:
        _experiment(experiment, options, quick=quick)
        return
    if quick:
        raise UsageError(f"--quick applies to figure 1 only; --dry-run lists the runs of {name}.")
    from quanta_bench.cli import console, output
    from quanta_bench.report import figures

    request = console.read_request(name, "figure", options, others=EXPERIMENTS.names())
    shown = figures.narrow(request)
    if options.dry_run:
        console.show_plan(shown, as_json=options.as_json, gpu=options.gpu)
        return

    from quanta_bench.results.store import Store

    store = Store(options.folder)
    cells, failed = console.compute(shown, store, options)
    if failed and not any(cell.results for cell in cells):
        console.check_failed(failed)
    drawn = figures.draw(request, cells, store)
    paths = figures.write(drawn, store.root)
    output.show(figures.as_data(drawn, paths), figures.on_screen(drawn), as_json=options.as_json)
    if not options.as_json:
        console.say_written(paths, store)
    console.check_failed(failed)


TAKEN = ("--seeds", "--results", "--json")
"""The suite options that an experiment takes too."""


def _experiment(name: str, options: SuiteOptions, *, quick: bool) -> None:
    """Run an experiment and write its figure.

    Raises:
        UsageError: an option does not apply to it, or the seeds are invalid.
        BenchError: it cannot be run here.
    """
    from quanta_bench.cli import console, output
    from quanta_bench.experiment import Conditions
    from quanta_bench.plugins import EXPERIMENTS
    from quanta_bench.report import experiment_figure
    from quanta_bench.utils.quiet import settle_libraries

    # An environment variable may set --jobs, which does not apply here.
    refused = [flag for flag in options.given() if flag not in (*TAKEN, "--jobs")]
    if refused:
        raise UsageError(
            f"{refused[0]} does not apply to {name}, which trains no language model; it takes "
            f"--quick, {', '.join(TAKEN[:-1])} and {TAKEN[-1]}."
        )
    seeds = read_seeds(options.seeds)
    experiment = EXPERIMENTS.get(name)
    settle_libraries()
    console.check_results(options.folder)
    screen = console.progress()

    def tell(text: str) -> None:
        screen.print(text, highlight=False, style="dim")

    outcome = experiment().run(Conditions(quick=quick, seeds=seeds, tell=tell))
    paths = experiment_figure.write(experiment, outcome, options.folder)
    points = experiment_figure.records(outcome)
    output.show(
        {"title": experiment.title, "points": points, "files": list(map(str, paths))},
        experiment_figure.on_screen(outcome),
        as_json=options.as_json,
    )
    if not options.as_json:
        console.console().print(outcome.caption, highlight=False)
        screen.print(f"Written: {', '.join(map(str, paths))}.", style="dim")
