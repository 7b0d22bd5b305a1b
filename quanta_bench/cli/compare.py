"""``quanta-bench compare``: what stored results show of the difference between rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quanta_bench.cli.options import DataSource, Json, examples, whole_numbers
from quanta_bench.errors import BenchError, UsageError, did_you_mean

if TYPE_CHECKING:
    from quanta_bench.suites.grid import GridRow

EXAMPLES = examples(
    "quanta-bench compare quanta lora --table 3",
    "quanta-bench compare quanta full lora --table 3 --reference full --results results/study",
)


def compare(
    rows: Annotated[
        list[str], typer.Argument(help="Two rows or more, by label or method: quanta lora.")
    ],
    table: Annotated[
        str, typer.Option("--table", help="3, table3, or the path of a suite of your own.")
    ],
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Results folder. [default: results/local/PROFILE]"),
    ] = None,
    reference: Annotated[
        str,
        typer.Option(
            "--reference", help="Row to compare with: LoRA if it is named, else the first."
        ),
    ] = "",
    profile: Annotated[
        str, typer.Option("--profile", help="embedded (offline, small) or paper.")
    ] = "embedded",
    size: Annotated[
        str, typer.Option("--size", help="Size of the data, as the suite names it: small, full.")
    ] = "",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds in place of the suite's: 0,1.")] = "",
    model: Annotated[
        str, typer.Option("--model", help="The model for all rows, as the table was computed.")
    ] = "",
    source: DataSource = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting, as the table was computed; repeatable."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare rows of a table, paired over seeds and items; nothing is computed.

    Effect, 95 % interval, p after Holm's correction, and the smallest difference that could have
    been shown. docs/statistics.md says how.
    """
    from quanta_bench.cli import output
    from quanta_bench.report import compared
    from quanta_bench.report.evidence import REFERENCE
    from quanta_bench.results.store import Store
    from quanta_bench.runs.stored import stored_cells
    from quanta_bench.suites.choice import Choice, parse_settings
    from quanta_bench.suites.request import make_request

    choice = Choice(
        seeds=whole_numbers(seeds),
        size=size,
        model=model,
        source=source,
        settings=parse_settings(settings or []),
    )
    request = make_request(table, "table", profile, choice, check=True)
    chosen = _rows(rows, request.grid, table)
    named = _rows([reference], request.grid, table) if reference else {}
    if not named:
        named = {k: row for k, row in chosen.items() if row.spec.method == REFERENCE} or chosen
    against = next(iter(named))
    chosen = {against: named[against], **chosen}
    if len(chosen) < 2:
        raise UsageError("Name two rows or more, such as: quanta-bench compare quanta lora")
    store = Store(results or Path("results") / "local" / profile)
    given = [("profile", profile), ("size", size), ("seeds", seeds), ("model", model)]
    given += [("source", source), *(("set", setting) for setting in settings or [])]
    options = "".join(
        f" --{name} {value}"
        for name, value in given
        if value and (name, value) != ("profile", "embedded")
    )
    command = f"quanta-bench table {table}{options} --results {store.root}"
    cells = {}
    for label, row in chosen.items():
        found = stored_cells([row], store)
        if found is None or not found[0].complete:
            raise BenchError(
                f"Not every run of {label!r} is in {store.root}. Compute it: {command} --methods "
                f"{row.spec.method}"
            )
        cells[label] = found[0]
    made = compared.compare_rows(request.suite, cells, against, store, command)
    output.show(compared.as_data(made), compared.on_screen(made), as_json=as_json)


def _rows(names: Sequence[str], grid: Sequence[GridRow], table: str) -> dict[str, GridRow]:
    """Rows of a table by label, found by label or by method.

    Raises:
        UsageError: there is no such row, or there are several.
    """
    several = len({row.model.name for row in grid}) > 1
    labels = {
        (row.spec.label or row.spec.method) + (f" ({row.model.name})" if several else ""): row
        for row in grid
    }
    chosen = {}
    for name in names:
        of_method = {label: row for label, row in labels.items() if row.spec.method == name}
        found = {name: labels[name]} if name in labels else of_method
        if len(found) > 1:
            raise UsageError(
                f"Table {table} has several rows of {name!r}; name one by its label: "
                f"{', '.join(repr(label) for label in found)}."
            )
        if not found:
            known = {*labels, *(row.spec.method for row in grid)}
            raise UsageError(f"Table {table} has no row {name!r}. {did_you_mean(name, known)}")
        chosen.update(found)
    return chosen
