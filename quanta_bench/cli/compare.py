"""``quanta-bench compare``: what stored results show of the difference between rows."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quanta_bench.cli.command import one_of
from quanta_bench.cli.options import (
    DataSource,
    Json,
    StoredIn,
    StoredModel,
    StoredProfile,
    StoredSeeds,
    StoredSize,
    comma_separated,
    examples,
    read_seeds,
)
from quanta_bench.errors import BenchError, UsageError, did_you_mean

if TYPE_CHECKING:
    from quanta_bench.results.records import Result
    from quanta_bench.runs.cells import Cells
    from quanta_bench.suites.grid import GridRow

TOO_FEW = "Name two rows or more, such as: quanta-bench compare quanta lora"
MATCHED = 0.1
"""How far a matched budget may be from the reference's, as a share of it."""

BUDGETS: Mapping[str, Callable[[Sequence[Result]], float]] = {
    "parameters": lambda runs: max(run.training.trainable_parameters for run in runs),
    "seconds": lambda runs: sum(run.training.seconds for run in runs) / len(runs),
}
"""What rows can be matched by, of a row's runs."""

EXAMPLES = examples(
    "quanta-bench compare quanta lora --table 3",
    "quanta-bench compare quanta full lora --table 3 --reference full --results results/study",
    "quanta-bench compare lora +krona --table 3 --size full --results results/study",
    "quanta-bench compare --matched parameters --table 3",
    "quanta-bench compare 'LoRA r=8' 'LoRA r=2' --table figure4",
)


def compare(
    rows: Annotated[
        list[str] | None,
        typer.Argument(
            help="Two rows or more, by label or method: quanta lora. With +name, the row that "
            "--methods +name adds to the table."
        ),
    ] = None,
    *,
    table: Annotated[
        str,
        typer.Option("--table", help="3, table3, figure4, or the path of a suite of your own."),
    ],
    results: StoredIn = None,
    reference: Annotated[
        str,
        typer.Option(
            "--reference", help="Row to compare with: LoRA if it is named, else the first."
        ),
    ] = "",
    matched: Annotated[
        str,
        typer.Option(
            "--matched",
            help="Compare only rows of equal budget, within 10% of the reference: parameters "
            "(trained) or seconds (of training). Without rows: all of the table.",
        ),
    ] = "",
    profile: StoredProfile = "embedded",
    size: StoredSize = "",
    seeds: StoredSeeds = "",
    vary: Annotated[
        str, typer.Option("--vary", help="What seeds vary, as the table was computed.")
    ] = "",
    model: StoredModel = "",
    source: DataSource = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting, as the table was computed; repeatable."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare rows of a table or figure, paired over seeds and items.

    Effect, 95 % interval, p after Holm's correction, and the smallest difference that could have
    been shown. docs/statistics.md says how.
    """
    from quanta_bench.cli import output
    from quanta_bench.report import compared
    from quanta_bench.report.evidence import REFERENCE
    from quanta_bench.results.store import Store
    from quanta_bench.runs.stored import stored_rows
    from quanta_bench.suites.choice import Choice, parse_settings
    from quanta_bench.suites.request import make_request

    if matched not in ("", *BUDGETS):
        raise UsageError(one_of("--matched", matched, tuple(BUDGETS)))
    added = tuple(name for name in [*(rows or []), reference] if name.startswith("+"))
    rows = [name.removeprefix("+") for name in rows or []]
    reference = reference.removeprefix("+")
    choice = Choice(
        methods=added,
        seeds=read_seeds(seeds),
        vary=comma_separated(vary),
        size=size,
        model=model,
        source=source,
        settings=parse_settings(settings or []),
    )
    request = make_request(table, "", profile, choice, check=True)
    drawn = request.suite.figure
    if drawn is not None and drawn.kind != "parameters":
        raise UsageError(f"{request.suite.name} draws updates, not scores: nothing to compare.")
    if not rows and not matched:
        raise UsageError(TOO_FEW)
    every = _labels(request.grid)
    where = f"Table {table}" if drawn is None else request.suite.name
    chosen = _rows(rows, request.grid, where) if rows or not matched else every
    named = _rows([reference], request.grid, where) if reference else {}
    if not named:
        named = {k: row for k, row in chosen.items() if row.spec.method == REFERENCE} or chosen
    against = next(iter(named))
    chosen = {against: named[against], **chosen}
    if len(chosen) < 2:
        raise UsageError(TOO_FEW)
    store = Store(results or Path("results") / "local" / profile)
    given = [("profile", profile), ("size", size), ("seeds", seeds), ("vary", vary)]
    given += [("model", model), ("source", source)]
    words = ["quanta-bench", request.suite.kind, table]
    for name, value in given:
        if value and (name, value) != ("profile", "embedded"):
            words += [f"--{name}", value]

    def command(methods: Sequence[str]) -> str:
        """Computes the rows of these methods; the table refuses --set of one without a row."""
        owners = ("training", "evaluation", *methods)
        kept = [word for word in settings or [] if word.partition(".")[0] in owners]
        options = [part for word in kept for part in ("--set", word)]
        # A method that the table lacks is added by its bare name too; +name alone would compute
        # the table's other rows as well.
        options += ["--results", str(store.root), "--methods", ",".join(methods)]
        return shlex.join([*words, *options])

    stored = zip(every, stored_rows(list(every.values()), store), strict=True)
    finished = {label: found for label, found in stored if found and found.complete}
    cells = {}
    for label, row in chosen.items():
        if label not in finished:
            if matched and not rows and label != against:
                continue
            raise BenchError(
                f"Not every run of {label!r} is in {store.root}. Compute it: "
                f"{command([row.spec.method])}"
            )
        cells[label] = finished[label]
    if matched:
        cells = _matched(cells, against, matched)
    made = compared.compare_rows(request.suite, cells, against, store, command, finished)
    output.show(compared.as_data(made), compared.on_screen(made), as_json=as_json)


def _matched(cells: Mapping[str, Cells], reference: str, budget: str) -> dict[str, Cells]:
    """The rows whose budget is within `MATCHED` of the reference's, which is among them.

    Raises:
        UsageError: there is no other.
    """
    spent = {label: BUDGETS[budget](row.everything()) for label, row in cells.items()}
    own = spent[reference]
    kept = {
        label: row
        for label, row in cells.items()
        if label == reference or (own and abs(spent[label] / own - 1) <= MATCHED)
    }
    if len(kept) < 2:
        others = (label for label in cells if label != reference and spent[label])
        near = sorted(others, key=lambda label: abs(math.log(spent[label] / (own or 1))))
        listed = ", ".join(f"{label} {spent[label]:,.0f}" for label in near[:3])
        raise UsageError(
            f"No row has the {budget} of {reference} ({own:,.0f}) within {MATCHED:.0%}. "
            f"Nearest: {listed or 'none'}."
        )
    return kept


def _labels(grid: Sequence[GridRow]) -> dict[str, GridRow]:
    """A table's rows by label; the model is part of it where there are several."""
    several = len({row.model.name for row in grid}) > 1
    return {
        (row.spec.label or row.spec.method) + (f" ({row.model.name})" if several else ""): row
        for row in grid
        if not row.missing
    }


def _rows(names: Sequence[str], grid: Sequence[GridRow], where: str) -> dict[str, GridRow]:
    """Rows of a table by label, found by label or by method.

    Raises:
        UsageError: there is no such row, or there are several.
    """
    labels = _labels(grid)
    chosen = {}
    for name in names:
        of_method = {label: row for label, row in labels.items() if row.spec.method == name}
        found = {name: labels[name]} if name in labels else of_method
        if len(found) > 1:
            raise UsageError(
                f"{where} has several rows of {name!r}; name one by its label: "
                f"{', '.join(repr(label) for label in found)}."
            )
        if not found:
            known = {*labels, *(row.spec.method for row in grid)}
            raise UsageError(f"{where} has no row {name!r}. {did_you_mean(name, known)}")
        chosen.update(found)
    return chosen
