"""``quanta-bench figure``: compute the runs of a figure and draw it."""

from __future__ import annotations

from typing import Annotated

import typer

from quanta_bench.cli.options import SuiteOptions, examples, read_fresh, takes_options

EXAMPLES = examples(
    "quanta-bench figure 4",
    "quanta-bench figure 2 --seeds 0 --results my-results",
    "quanta-bench figure 4 --profile paper --dry-run --gpu h100-80gb",
)


@takes_options(SuiteOptions)
def figure(
    name: Annotated[str, typer.Argument(help="4, figure4, or the path of a suite of your own.")],
    *,
    options: SuiteOptions,
) -> None:
    """Compute a figure's runs and draw it (PNG, SVG, CSV).

    Runs that are finished are not computed again.
    """
    from quanta_bench.cli import console, output
    from quanta_bench.report import figures
    from quanta_bench.runs.concurrency import read_jobs
    from quanta_bench.suites.request import make_request

    options.check()
    at_once = read_jobs(options.jobs)
    request = make_request(
        name, "figure", options.profile, options.choice(), check=not options.dry_run
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
