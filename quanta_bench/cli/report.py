"""``quanta-bench report``: all results of a folder as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quanta_bench.cli.options import examples
from quanta_bench.errors import UsageError

EXAMPLES = examples(
    "quanta-bench report",
    "quanta-bench report --results results/study --to study.html",
    "quanta-bench report --results my-results --full",
)

ADVICE = "Name another file with --to."


def report(
    results: Annotated[Path, typer.Option("--results", help="Results folder.")] = Path(
        "results/local/embedded"
    ),
    to: Annotated[
        Path | None, typer.Option("--to", help="The file to write. [default: RESULTS/report.html]")
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Leave nothing out, however large the page becomes."),
    ] = False,
) -> None:
    """Write all results of a folder as one HTML page.

    Tables to sort and filter, scores against cost, learning curves, forgetting, differences to
    the base, items with every answer, and where each number comes from. Nothing is computed, and
    neither writing the page nor reading it uses a network.
    """
    target = to or results / "report.html"
    if target.is_dir():
        raise UsageError(f"{target} is a folder; name a file with --to, such as report.html.")

    from quanta_bench.cli import console
    from quanta_bench.report.page.build import make_page
    from quanta_bench.utils.folders import check_writable, storage_errors, whole_file

    screen = console.console()
    made = make_page(results, full=full)
    check_writable(target.parent, ADVICE)
    with storage_errors(target.parent, ADVICE), whole_file(target) as stream:
        content = made.text.encode("utf-8")
        stream.write(content)
    aside = console.progress()
    for notice in made.notices:
        aside.print(notice, style="yellow", highlight=False)
    for text in made.left_out:
        aside.print(text, style="dim", highlight=False)
    if made.left_out:
        aside.print("--full leaves nothing out.", style="dim")
    screen.print(f"Written: {target} ({len(content) / 1e6:.1f} MB).", highlight=False)
