"""What a results folder holds: its runs, and the tables that were written beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from quanta_bench.errors import BenchError
from quanta_bench.report.data_table import Inventory
from quanta_bench.report.rate_study import Study
from quanta_bench.report.samples import Samples
from quanta_bench.report.table import Table
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.utils.json_text import parse_json


@dataclass
class Folder:
    """What was found.

    Attributes:
        store: where the runs are stored.
        results: the finished runs by name.
        tables: the grids of runs, by name.
        inventory: Table D.1, if it was written.
        samples: Table H, if it was written; its prompts serve where data are not at hand.
        searches: each ``tune-*.json``, by the file's name without its suffix.
        notices: what cannot be read, a sentence each.
    """

    store: Store
    results: dict[str, Result] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    inventory: Inventory | None = None
    samples: Samples | None = None
    searches: dict[str, Study] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def read_folder(root: Path) -> Folder:
    """Read a results folder. Nothing is changed on disk.

    A run or a table that cannot be read is left out, with a notice.

    Raises:
        BenchError: it is no folder, or there is nothing to show.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise BenchError(
            f"The results folder {root} {what}. Name one with --results; "
            "`quanta-bench table 3` makes results/local/embedded."
        )
    found = Folder(Store(root))
    found.results = {result.run: result for result in found.store.results()}
    found.notices += found.store.notices
    for path in sorted(root.glob("*.json")):
        _read_file(path, found)
    # Tables before other grids of runs, as a paper has them.
    found.tables.sort(key=lambda table: (not table.name.startswith("table"), table.name))
    if not (found.results or found.tables):
        damaged = f" {' '.join(found.notices)}" if found.notices else ""
        raise BenchError(
            f"There are no results in {root}: neither a finished run nor a table.{damaged} "
            "`quanta-bench table 3` makes some; --results names another folder."
        )
    return found


def _read_file(path: Path, found: Folder) -> None:
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        found.notices.append(f"Not read: {path} ({error}).")
        return
    if not isinstance(data, dict):
        return  # no file of ours
    try:
        if path.stem.startswith("tune-"):
            found.searches[path.stem] = Study.model_validate(data)
        elif "columns" in data and "rows" in data:
            # Other files of the folder may share a table's name: a partial one, for example.
            table = Table.model_validate(_present_form(data))
            found.tables.append(table.model_copy(update={"name": path.stem}))
        elif data.get("name") == "tableD1":
            found.inventory = Inventory.model_validate(data)
        elif data.get("name") == "tableH":
            found.samples = Samples.model_validate(data)
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        found.notices.append(f"Not read: {path} is not a table of this version ({reason}).")


def _present_form(data: Mapping[str, Any]) -> dict[str, Any]:
    """A table's data with what earlier versions wrote otherwise: one average, unnamed columns."""
    made = dict(data)
    if "averages" not in made:
        title = made.pop("average", "")
        made["averages"] = [title] if title else []
        made["rows"] = [
            {**row, "averages": {title: row["average"]} if row.get("average") else {}}
            for row in made["rows"]
        ]
    made["columns"] = [{"key": column["task"], **column} for column in made["columns"]]
    if not isinstance(made.get("notes"), dict):
        made["notes"] = {"Notes": [str(note) for note in made.get("notes") or ()]}
    return made
