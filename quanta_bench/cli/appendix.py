"""Appendix tables that are not grids of runs: data sets and sample outputs."""

from __future__ import annotations

from typing import Any

import typer

from quanta_bench.cli import console
from quanta_bench.cli.options import TableOptions, comma_separated
from quanta_bench.errors import UsageError
from quanta_bench.report.appendix import TABLES, Appendix
from quanta_bench.utils.quiet import settle_libraries

Rendered = tuple[dict[str, str], Any]
"""A table's text by file suffix, and its Rich renderable."""


def find(name: str) -> Appendix | None:
    """Look up a table by its name (``tableD1``), with or without the prefix ``table``."""
    return TABLES.get(name) or TABLES.get(f"table{name}")


def show(table: Appendix, options: TableOptions) -> None:
    """Make a table, write it into the results folder and print it.

    Raises:
        UsageError: an option does not apply to the table.
        BenchError: there is nothing to show.
    """
    for flag in options.given():
        # --jobs may be set by the environment for every table.
        if flag not in (*table.takes, "--jobs"):
            raise UsageError(f"{table.name} takes no {flag}, only {', '.join(table.takes)}.")
    console.check_results(options.folder)
    make = _data_sets if table.name == "tableD1" else _samples
    texts, drawn = make(options)
    from quanta_bench.report import sections

    paths = sections.write(options.folder, table.name, texts)
    if options.as_json:
        typer.echo(texts["json"], nl=False)
    else:
        console.console().print(drawn)
        console.progress().print(f"Written: {', '.join(map(str, paths))}.", style="dim")


def _data_sets(options: TableOptions) -> Rendered:
    from quanta_bench.report import data_table, sections

    shown = console.progress()
    made = data_table.take_inventory(options.profile, options.source, shown.print)
    shown_sections = data_table.sections(made)
    notes = {"Notes": made.notes}
    texts = {
        "md": sections.as_markdown(made.title, shown_sections, notes),
        "csv": data_table.as_csv(made),
        "tex": sections.as_latex(made.name, made.title, shown_sections, notes),
        "json": made.model_dump_json(indent=1) + "\n",
    }
    return texts, sections.on_screen(shown_sections, notes, f"{made.name}.md")


def _samples(options: TableOptions) -> Rendered:
    from quanta_bench.report import sample_pages, samples
    from quanta_bench.results.store import Store
    from quanta_bench.suites.choice import parse_settings

    settle_libraries()
    selection = samples.parse_selection(
        parse_settings(options.settings or []), comma_separated(options.methods)
    )
    made = samples.take_samples(options.profile, Store(options.folder), selection)
    texts = {
        "md": sample_pages.as_markdown(made, selection.characters),
        "csv": sample_pages.as_csv(made),
        "json": made.model_dump_json(indent=1) + "\n",
    }
    return texts, sample_pages.on_screen(made, selection.characters)
