"""``quanta-bench bench``: measure speed and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quanta_bench.cli.options import DataSource, Json, ModelName, examples

EXAMPLES = examples(
    "quanta-bench bench --quick",
    "quanta-bench bench layer training",
    "quanta-bench bench layer --device cuda",
    "quanta-bench bench --list",
)


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="Benchmarks to run; all of them by default.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer rounds and items: minutes, not half an hour.")
    ] = False,
    model: ModelName = "smollm2-135m",
    source: DataSource = "embedded",
    device: Annotated[
        str, typer.Option("--device", help="auto (a GPU if there is one), cpu or cuda.")
    ] = "auto",
    only_list: Annotated[
        bool, typer.Option("--list", help="List the registered benchmarks and run none.")
    ] = False,
    results: Annotated[Path, typer.Option("--results", help="Results folder.")] = Path(
        "results/local/bench"
    ),
    as_json: Json = False,
) -> None:
    """Measure speed and memory against alternatives."""
    from quanta_bench.cli import listing, output

    if only_list:
        listed = listing.benchmarks()
        output.show(listed.rows, listed.on_screen(), as_json=as_json)
        return
    from quanta_bench.cli.bench_progress import Selection, run

    selection = Selection(tuple(names or ()), quick, model, source, device)
    failed = run(selection, results, as_json=as_json)
    if failed:
        raise typer.Exit(1)
