"""``quanta-bench table``: compute a table and print it."""

from __future__ import annotations

from typing import Annotated

import typer

from quanta_bench.cli import completion
from quanta_bench.cli.options import TableOptions, examples, takes_options
from quanta_bench.errors import UsageError
from quanta_bench.utils.quiet import without_collection

EXAMPLES = examples(
    "quanta-bench table 3",
    "quanta-bench table 3 --methods lora,quanta --seeds 0 --set quanta.dims=9,8,8",
    "quanta-bench table 3 --model local:my-model --rows all",
    "quanta-bench table 2 --profile paper --dry-run --gpu h100-80gb",
    "quanta-bench table my-suite.yaml --results my-results",
    "quanta-bench table 3 --launcher slurm --workers 8 --launcher-set partition=gpu",
)


@takes_options(TableOptions)
def table(
    name: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.tables,
            help="3, table3, D1, H, or the path of a suite of your own.",
        ),
    ],
    *,
    options: TableOptions,
) -> None:
    """Compute a table and print it.

    Finished runs are not computed again; interrupted runs resume.
    D1 and H train nothing: D1 lists the data sets with their sizes, H shows sample outputs of
    finished runs.
    """
    from quanta_bench.cli import appendix

    without_runs = appendix.find(name)
    if without_runs is not None:
        appendix.show(without_runs, options)
        return
    _compute(name, options)


def _compute(name: str, options: TableOptions) -> None:
    """Compute the runs of a suite, and print and write its table."""
    from quanta_bench.cli import console
    from quanta_bench.report.appendix import TABLES

    request = console.read_request(name, "table", options, others=TABLES)
    if options.published and not request.suite.published:
        raise UsageError(f"--published: no table of a paper belongs to {request.suite.name}.")
    if options.dry_run:
        console.show_plan(request, as_json=options.as_json, gpu=options.gpu)
        return

    with without_collection():
        from quanta_bench.report import render
        from quanta_bench.report.tables import make_table
        from quanta_bench.results.published import published_table
        from quanta_bench.results.store import Store

    store = Store(options.folder)
    cells, failed = console.compute(request, store, options)
    with without_collection():
        finished = make_table(request, cells, store)
        paths = render.write(finished, store.root)
    if options.as_json:
        typer.echo(render.as_json(finished), nl=False)
    else:
        console.console().print(render.on_screen(finished))
        if options.published:
            console.console().print(published_table(request.suite.published))
        console.say_written(paths, store)
    console.check_failed(failed)
