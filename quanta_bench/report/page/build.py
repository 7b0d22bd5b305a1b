"""Put the page together: tables as HTML, the rest as data for its script.

The script of the page sorts, filters and draws; it is our own, some 700 lines without a library but
plotly, because DataTables needs jQuery and writes cells as markup, which data must never be.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from quanta_bench import __version__
from quanta_bench.report import data_table
from quanta_bench.report.page import charts, grids, items, runs
from quanta_bench.report.page.escaping import script_json, source_hash
from quanta_bench.report.page.stored import Folder, read_folder
from quanta_bench.results.frames import frame
from quanta_bench.utils.escaping import printable

SCRIPTS = ("page.js", "tables.js", "charts.js", "items.js")


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        text: the HTML.
        notices: what could not be read, a sentence each.
        left_out: what was left out to bound the page's size.
    """

    text: str
    notices: list[str]
    left_out: list[str]


def make_page(root: Path, *, full: bool = False) -> Page:
    """The page of a results folder. Nothing is changed in it, and no network is used.

    Args:
        root: the results folder.
        full: leave nothing out, whatever its size.

    Raises:
        BenchError: it is no folder, or holds no results.
    """
    folder = read_folder(root)
    content, data, left_out = collect(folder, full=full)
    return Page(_filled(root, content, data, folder, left_out), folder.notices, left_out)


def collect(folder: Folder, *, full: bool) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """What the template shows, what the script draws, and what was left out."""
    results = folder.results
    known = [grids.know(number, table, results) for number, table in enumerate(folder.tables)]
    lines = frame(list(results.values())) if results else pd.DataFrame()
    if results:
        shown_in: dict[str, list[str]] = {}
        for one in known:
            for run in dict.fromkeys(run for found in one.runs for run in found):
                shown_in.setdefault(run, []).append(one.table.name)
        lines["suite"] = lines["run"].map(lambda run: ", ".join(shown_in.get(run, ())))
    tables = [grids.as_grid(one) for one in known]
    if folder.inventory is not None:
        tables += [
            grids.plain_grid(f"data-{number}", "tableD1", section)
            for number, section in enumerate(data_table.sections(folder.inventory))
        ]
    run_grid, left_out = runs.run_grid(lines, full=full) if results else (None, [])
    curves, thinned = charts.learning_curves(known, results, full=full)
    browser = items.item_browser(folder, full=full)
    stored_in = str(folder.store.root)
    origins, unlisted = runs.provenance(list(results.values()), lines, stored_in, full=full)
    content = {
        "tables": tables,
        "runs": run_grid,
        "differences": [made for one in known if (made := grids.differences(one)) is not None],
        "provenance": origins,
        "items_note": browser.note,
        "commands": [
            (one.table.name, one.table.title, runs.row_commands(one, stored_in)) for one in known
        ],
    }
    data = {
        "tables": [charts.trade_off(one, results) for one in known],
        "costs": charts.COSTS,
        "rates": charts.rate_curves(folder.searches, folder.tables),
        "curves": curves,
        "items": browser.groups,
    }
    return content, data, [*left_out, *thinned, *browser.left_out, *unlisted]


def _filled(
    root: Path, content: dict[str, Any], data: dict[str, Any], folder: Folder, left_out: list[str]
) -> str:
    environment = Environment(
        loader=PackageLoader("quanta_bench.report.page"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        # Markup is ours; any other text may hold what controls a terminal or its direction.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    library = _without_end(get_plotlyjs())
    script = _without_end("\n".join(_asset(name) for name in SCRIPTS))
    return environment.get_template("page.html.jinja").render(
        root=str(root),
        version=__version__,
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        results=len(folder.results),
        notices=folder.notices,
        left_out=left_out,
        data=Markup(script_json(data)),
        has={
            "rates": bool(data["rates"]),
            "curves": bool(data["curves"]),
            "items": bool(data["items"]),
            "scores": any(table["measures"] for table in data["tables"]),
            "forgetting": any(
                row["perplexity"] is not None and row["method"] != "none"
                for table in data["tables"]
                for row in table["rows"]
            ),
        },
        style=Markup(_asset("page.css")),
        library=Markup(library),
        script=Markup(script),
        hashes=Markup(" ".join(source_hash(text) for text in (library, script))),
        **content,
    )


def _asset(name: str) -> str:
    return files("quanta_bench.report.page").joinpath("templates", name).read_text("utf-8")


def _without_end(script: str) -> str:
    """A script as the parser of HTML gives it to the browser, so that its hash holds.

    Raises:
        ValueError: it holds what would end its element.
    """
    text = script.replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("a script of the page holds the end of a script")
    return text
