"""Lists of methods, tasks, models, benchmarks and targets, as data and as a table on the screen."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from quanta_bench.bench import runner
from quanta_bench.errors import BenchError
from quanta_bench.method import Claim
from quanta_bench.models.meta import known_models
from quanta_bench.plugins import BENCHMARKS, EXPERIMENTS, METHODS, TASKS
from quanta_bench.report.appendix import TABLES
from quanta_bench.suites.loading import load_suite, shipped
from quanta_bench.utils.fitted_table import FittedTable

TYPED = ("name", "make", "command", "hub_name")
"""Columns with text that users type, which is never wrapped."""

HEADINGS = {"exact_start": "equals the base before training"}
"""Headings of columns whose key does not explain itself."""


@dataclass(frozen=True)
class Listing:
    """Rows with the same keys, and how to draw them."""

    rows: list[dict[str, Any]]

    def on_screen(self) -> FittedTable:
        """One row each."""
        table = FittedTable()
        for number, key in enumerate(self.rows[0]):
            count = any(isinstance(row[key], int) for row in self.rows)
            prose = not count and key not in TYPED
            table.add_column(
                HEADINGS.get(key, key.replace("_", " ")), right=count, label=not number, prose=prose
            )
        for row in self.rows:
            table.add_row(*map(_text, row.values()))
        return table


def methods() -> Listing:
    """The registered methods with their properties; for one that cannot be used, the reason."""
    usable, reasons = METHODS.usable()
    rows = []
    for name in METHODS:
        method = usable.get(name)
        rows.append(
            {
                "name": name,
                "title": method.title if method else reasons[name],
                "settings": ", ".join(method.Config.model_fields) if method else "",
                "rows_in": ", ".join(method.rows) if method else "",
                "mergeable": claim_text(method.mergeable) if method else "",
                "exact_start": claim_text(method.exact_start) if method else "",
                "from": METHODS.origin(name),
            }
        )
    return Listing(rows)


def tasks() -> Listing:
    """The registered tasks; for one that cannot be used, the reason."""
    usable, reasons = TASKS.usable()
    rows = []
    for name in TASKS:
        task = usable.get(name)
        rows.append(
            {
                "name": name,
                "title": str(getattr(task, "title", name)) if task else reasons[name],
                "kind": task.kind if task else "",
                "metric": task.metric if task else "",
                "protocols": ", ".join(task.protocols) if task else "",
                "about": (inspect.getdoc(task) or "").partition("\n")[0] if task else "",
                "from": TASKS.origin(name),
            }
        )
    return Listing(rows)


def benchmarks() -> Listing:
    """The registered benchmarks; for one that cannot be used, the reason."""
    rows = []
    for name in runner.select(()):
        try:
            benchmark = BENCHMARKS.get(name)
            title, needs = benchmark.title, benchmark.needs
        except BenchError as error:
            title, needs = str(error), ()
        rows.append(
            {
                "name": name,
                "title": title,
                "needs": ", ".join(needs),
                "from": BENCHMARKS.origin(name),
            }
        )
    return Listing(rows)


def models() -> Listing:
    """The models known by name; none is loaded."""
    from quanta_bench.models.meta import hub_name, meta_model

    rows = []
    for name in known_models():
        model = meta_model(name)
        rows.append(
            {
                "name": name,
                "parameters": sum(value.numel() for value in model.parameters()),
                "source": "embedded, hub" if name == "smollm2-135m" else "hub",
                "hub_name": hub_name(name),
            }
        )
    return Listing(rows)


def targets() -> Listing:
    """What ``make`` and the commands ``table`` and ``figure`` can make."""
    suites = {name: load_suite(name) for name in shipped()}
    profiles = dict.fromkeys(profile for suite in suites.values() for profile in suite.profiles)
    rows = [
        {
            "make": name,
            "command": f"quanta-bench {'figure' if suite.figure else 'table'} {name}",
            "what": suite.title,
            "profiles": ", ".join(suite.profiles),
        }
        for name, suite in suites.items()
    ]
    rows += [
        {
            "make": table.name,
            "command": f"quanta-bench table {table.name}",
            "what": table.title,
            "profiles": "embedded, paper",
        }
        for table in TABLES.values()
    ]
    experiments, reasons = EXPERIMENTS.usable()
    rows += [
        {
            "make": name,
            "command": f"quanta-bench figure {name}",
            "what": experiments[name].title if name in experiments else reasons[name],
            "profiles": "",
        }
        for name in EXPERIMENTS
    ]
    rows += [
        {
            "make": "verify",
            "command": "quanta-bench verify",
            "what": "the theorems behind the methods, checked on many cases",
            "profiles": "",
        },
        {
            "make": "tune",
            "command": "quanta-bench tune SUITE",
            "what": "learning rates of a table's rows, chosen on validation items",
            "profiles": ", ".join(profiles),
        },
        {
            "make": "params",
            "command": "quanta-bench params",
            "what": "the parameter counts that the papers print, recounted",
            "profiles": "",
        },
        {
            "make": "report",
            "command": "quanta-bench report",
            "what": "all results of a folder as one HTML page",
            "profiles": "",
        },
        {
            "make": "bench",
            "command": "quanta-bench bench",
            "what": "speed and memory compared with alternatives",
            "profiles": "",
        },
        {
            "make": "fetch",
            "command": "quanta-bench fetch",
            "what": "the offline model and data",
            "profiles": "",
        },
        {
            "make": "doctor",
            "command": "quanta-bench doctor",
            "what": "a check of this machine, the sources and the plug-ins",
            "profiles": "",
        },
        {"make": "test", "command": "pytest", "what": "the tests", "profiles": ""},
        {"make": "lint", "command": "pre-commit", "what": "format, lint and types", "profiles": ""},
    ]
    return Listing(rows)


def claim_text(claim: Claim) -> str:
    """A claim in words: yes, or no and why."""
    return "yes" if claim else f"no: {claim.reason}"


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
