"""The table of runs, and where each number comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from quanta_bench.references import short_names
from quanta_bench.report.page.commands import run_command, table_command
from quanta_bench.report.page.grids import Cell, Grid, Heading, Known, Line
from quanta_bench.report.tables import STALE
from quanta_bench.results.records import Environment, Result

LINES = 2000
"""Lines of the table of runs, unless all are asked for."""

RECORDS = 500
"""Runs whose provenance is listed, likewise."""

NORMAL = 1.959964
"""Half the width of a 95 % interval in standard errors, by the normal distribution."""


def run_grid(frame: pd.DataFrame, *, full: bool) -> tuple[Grid, list[str]]:
    """The lines of :func:`quanta_bench.results.load`.

    Args:
        frame: as ``load`` gives it.
        full: every metric and every line.

    Returns:
        The table, and what was left out.
    """
    shown = frame if full else frame[frame["main"] | (frame["kind"] == "forgetting")]
    left_out = []
    if len(shown) < len(frame):
        left_out.append(
            f"Runs: {len(frame) - len(shown):,} lines of metrics that no table shows are left out."
        )
    if not full and len(shown) > LINES:
        left_out.append(f"Runs: {len(shown) - LINES:,} of {len(shown):,} lines are left out.")
        shown = shown.head(LINES)
    headings = [
        Heading("Row", number=False),
        Heading("Table", number=False),
        Heading("Seed"),
        Heading("Task", number=False),
        Heading("Metric", number=False),
        Heading("Value"),
        Heading("n"),
        Heading("Trained"),
        Heading("Steps"),
        Heading("Training", "s"),
        Heading("Peak memory", "GB"),
        Heading("Run", number=False),
    ]
    names = short_names(shown["task"].unique())
    lines = [_run_line({**line, "task": names[line["task"]]}) for line in shown.to_dict("records")]
    notes = {
        "": [
            "Fractions are in percent. The interval behind a value is 1.96 standard errors over "
            "the items of one run; it does not hold the noise of seeds.",
            "quanta_bench.results.load gives these lines as a pandas data frame, with every "
            "setting, hash and version.",
        ]
    }
    return Grid("runs-table", "runs", "Every run and what it scored", headings, lines, notes), (
        left_out
    )


def _run_line(line: Mapping[Any, Any]) -> Line:
    perplexity = line["metric"] == "perplexity" or line["kind"] == "perplexity"
    scale, decimals = (1.0, 2) if perplexity else (100.0, 1)
    value = scale * line["value"]
    about = []
    if not pd.isna(line["standard_error"]):
        half = NORMAL * scale * line["standard_error"]
        about.append(f"95 % interval {value - half:.{decimals}f} to {value + half:.{decimals}f}")
    seeds = f"seeds: start {line['seed']}, order {line['seed_order']}, draw {line['seed_sample']}"
    about.append(seeds)
    if not pd.isna(line["items"]):
        about.append(f"n = {line['items']:,} items in {line['groups']:,} groups")
    memory = line["peak_memory_bytes"]
    unknown = "unknown: the process had computed other runs before"
    return Line(
        [
            Cell(line["row"], minor=STALE if line["stale"] else ""),
            Cell(line["suite"] or "–"),
            _whole(line["seed"]),
            Cell(line["task"]),
            Cell(line["metric"]),
            Cell(f"{value:,.{decimals}f}", value, "; ".join(about)),
            _whole(line["items"]),
            _whole(line["parameters_trained"]),
            _whole(line["steps"]),
            Cell(f"{line['training_seconds']:,.0f}", line["training_seconds"]),
            Cell("–", about=unknown) if pd.isna(memory) else Cell(f"{memory / 1e9:.2f}", memory),
            Cell(line["run"]),
        ],
        line["stale"],
    )


def _whole(value: Any) -> Cell:
    return Cell("–") if pd.isna(value) else Cell(f"{value:,}", int(value))


def provenance(
    results: Sequence[Result], frame: pd.DataFrame, folder: str, *, full: bool
) -> tuple[dict[str, Any], list[str]]:
    """Environments, and for each run its own, its fingerprints and the command that finds it.

    Args:
        results: the runs.
        frame: as :func:`quanta_bench.results.load` gives them.
        folder: the results folder that holds them.
        full: list every run.

    Returns:
        ``environments`` with a ``name`` and ``facts``; ``runs`` with ``run``, ``row``, ``seed``,
        ``environment``, ``facts``, ``stale`` and ``command``. And what was left out.
    """
    left_out = []
    if not full and len(results) > RECORDS:
        left_out.append(
            f"Provenance: {len(results) - RECORDS:,} of {len(results):,} runs are left out."
        )
        results = results[:RECORDS]
    if not results:
        return {}, []
    names: dict[str, str] = {}
    environments: list[dict[str, Any]] = []

    def name(environment: Environment) -> str:
        key = json.dumps(environment.model_dump(mode="json"), sort_keys=True)
        if key not in names:
            names[key] = f"E{len(names) + 1}"
            environments.append({"name": names[key], "runs": 0, "facts": _facts(environment)})
        return names[key]

    by_run = {line["run"]: line for line in frame.drop_duplicates("run").to_dict("records")}
    runs = []
    for result in results:
        training, scored = name(result.training.environment), name(result.evaluation_environment)
        for environment in environments:
            environment["runs"] += environment["name"] in (training, scored)
        line = by_run[result.run]
        checked = "hashes hold" if line["verified"] else "no hashes (older record)"
        facts = {
            "Model": f"{result.training.model}, sha256 {result.training.model_fingerprint}",
            "Record": f"schema {result.schema_version}, {checked}",
            "Checksum": result.checksum or "none",
            "Predictions": result.predictions_sha256 or "no hash",
            "Data": "; ".join(_data(result)),
        }
        runs.append(
            {
                "run": result.run,
                "row": str(line["row"]),
                "seed": int(line["seed"]),
                "environment": " / ".join(dict.fromkeys((training, scored))),
                "facts": {key: value for key, value in facts.items() if value},
                "stale": str(line["stale"]),
                "command": run_command(result, folder),
            }
        )
    return {"environments": environments, "runs": runs}, left_out


def _facts(environment: Environment) -> dict[str, str]:
    commit = environment.git_commit or "not recorded"
    dirty = " with uncommitted changes" if environment.git_dirty else ""
    packages = [f"{name} {version}" for name, version in environment.packages.items()]
    return {
        "Commit": commit + dirty,
        "Machine": f"{environment.device}; {environment.platform}",
        "Threads": f"{environment.threads}, {environment.jobs} runs at once",
        "Spread": (
            f"over {environment.devices} devices ({environment.strategy})"
            if environment.devices > 1
            else "one device"
        ),
        "Versions": ", ".join([f"Python {environment.python}", *packages]),
    }


def _data(result: Result) -> list[str]:
    """The fingerprint of each location that was read, once."""
    found: dict[str, None] = {}
    for task in result.tasks.values():
        content = task.data.get("content", {})
        for place, digest in content.items() if isinstance(content, dict) else ():
            found[f"{place} {str(digest)[:12]}"] = None
    return list(found)


def row_commands(known: Known, folder: str) -> list[dict[str, Any]]:
    """Of each row that is computed: its command and its runs."""
    return [
        {"label": row.label, "command": table_command(known.table, row, folder), "runs": runs}
        for row, runs in zip(known.table.rows, known.runs, strict=True)
        if row.method
    ]
