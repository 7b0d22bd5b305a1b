"""``quanta-bench results``: the scores of finished runs in the formats of other tools."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from quanta_bench.cli.options import Json, examples
from quanta_bench.errors import UsageError
from quanta_bench.export.formats.options import Options

EXAMPLES = examples(
    "quanta-bench results results/local/embedded --as lm-eval --to lm-eval-results",
    "quanta-bench results RUN --as eee --organization NAME --items --to every-eval-ever",
    "quanta-bench results RUN --as lm-eval --items --to lm-eval-results",
    "quanta-bench results RUN --as hub --to my-model",
    "quanta-bench results results/local/embedded --beside MetaMathQA/results",
)


def results(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs: a folder, a name, its first letters, or a results folder for all of its.",
        ),
    ],
    form: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="FORMAT",
            help="eee (Every Eval Ever), lm-eval (its results JSON), hub (scores in a model card) "
            "or peft (its method comparison).",
        ),
    ] = "",
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="DIR", help="Folder to write into; other files in it are kept."
        ),
    ] = None,
    organization: Annotated[
        str, typer.Option("--organization", help="Who evaluated, which eee asks for.")
    ] = "",
    items: Annotated[
        bool,
        typer.Option(
            "--items",
            help="With eee and lm-eval: what each item was asked and answered too; reads the data.",
        ),
    ] = False,
    beside: Annotated[
        Path | None,
        typer.Option(
            "--beside",
            metavar="DIR",
            help="Show the runs beside the results of peft's method comparison in this folder.",
        ),
    ] = None,
    stored: Annotated[
        Path | None,
        typer.Option("--results", help="Results folder of the runs. [default: all results/local]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write scores for other tools, or show theirs beside ours.

    Nothing is computed or uploaded.
    """
    if beside is not None and not form and to is None and not items:
        _show_beside(runs, stored, beside, as_json=as_json)
    elif form and to is not None and beside is None:
        _write(runs, stored, form, to, Options(organization, items), as_json=as_json)
    else:
        raise UsageError("Give --as FORMAT with --to DIR to write results, or --beside DIR alone.")


def _write(
    runs: Sequence[str],
    stored: Path | None,
    form: str,
    to: Path,
    options: Options,
    *,
    as_json: bool,
) -> None:
    from quanta_bench.cli import console, output
    from quanta_bench.export.formats import registry
    from quanta_bench.export.stored import find_runs

    found = registry.find_format(form)
    chosen = find_runs(runs, stored)
    if options.items:
        sources = {run.result.evaluation.source for run in chosen}
        console.fetch(console.progress(), models=(), data=sources)
    with console.working("Writing"):
        files = registry.write(chosen, form, to, options)
    counted = f"{_count(len(chosen), 'run')} as {found.title}"
    output.show(
        {
            "format": form,
            "runs": [run.result.run for run in chosen],
            "files": [str(path) for path in files],
        },
        f"Written: {counted}; {_count(len(files), 'file')} in {to}.",
        as_json=as_json,
    )


def _show_beside(runs: Sequence[str], stored: Path | None, folder: Path, *, as_json: bool) -> None:
    from rich.console import Group

    from quanta_bench.cli import output
    from quanta_bench.export.formats import peft_rows
    from quanta_bench.export.stored import find_runs

    theirs = peft_rows.read(folder)
    rows = [*theirs.rows, *peft_rows.ours(find_runs(runs, stored))]
    notes = [
        "Rows compare within one model and data set. A dash stands for what was not measured or "
        "not kept."
    ]
    if theirs.skipped:
        notes.append(
            f"Left out: {_count(theirs.skipped, 'file')} of trainings that failed, or without an "
            "accuracy on test items."
        )
    output.show(
        [dataclasses.asdict(row) for row in rows],
        Group(peft_rows.on_screen(rows), "", *notes),
        as_json=as_json,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
