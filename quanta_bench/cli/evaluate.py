"""``quanta-bench eval``: score a run's model, or an exported one, by a second scorer too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quanta_bench.cli.options import Json, comma_separated, examples
from quanta_bench.errors import UsageError, near

if TYPE_CHECKING:
    from rich.console import RenderableType

    from quanta_bench.export.harness.comparison import Comparison
    from quanta_bench.export.harness.subject import Subject

SCORERS = ("lm-eval",)

EXAMPLES = examples(
    "quanta-bench eval RUN --with lm-eval",
    "quanta-bench eval RUN --with lm-eval --to both-scorers",
    "quanta-bench eval RUN --with lm-eval --tasks arc_easy,hellaswag --items 100",
    "quanta-bench eval my-model --with lm-eval --tasks quanta_bench_piqa,piqa",
)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's folder, its name or the name's first letters; or an exported folder.",
        ),
    ],
    scorer: Annotated[
        str, typer.Option("--with", metavar="SCORER", help="The second scorer: lm-eval.")
    ],
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            metavar="NAMES",
            help="lm-eval's tasks by name, and ours as quanta_bench_NAME. "
            "[default: all of the run's, item by item]",
        ),
    ] = "",
    items: Annotated[
        int | None, typer.Option("--items", min=1, help="Items of a task, at most.")
    ] = None,
    include: Annotated[
        Path | None,
        typer.Option(
            "--include-path", metavar="DIR", help="Tasks of your own for lm-eval, as YAML."
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="DIR", help="Write lm-eval's own files, and ours in its format beside."
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--source",
            help="Data for an exported folder: embedded, hub, local:DIR. [default: embedded]",
        ),
    ] = "",
    results: Annotated[
        Path | None,
        typer.Option(
            "--results", help="Results folder of the run. [default: all of results/local]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a model by lm-evaluation-harness beside this suite.

    By default both score the same items with the same prompts, which needs no hub.
    """
    if scorer not in SCORERS:
        message = f"--with takes {' or '.join(SCORERS)}, not {scorer!r}. {near(scorer, SCORERS)}"
        raise UsageError(message.rstrip())
    if include is not None and not include.is_dir():
        raise UsageError(f"There is no folder {include} for --include-path.")
    from quanta_bench.cli import console, output
    from quanta_bench.export.harness import comparison

    comparison.check_installed()
    screen = console.progress()
    screen.print("Loading packages.", style="dim")
    subject = _subject(model, results, source)
    with console.working("Scoring with lm-evaluation-harness"):
        made = comparison.compare(
            subject, comma_separated(tasks), items=items, include=include, to=to
        )
    data = [{**dataclasses.asdict(row), "difference": row.difference} for row in made.rows]
    files = {name: [str(path) for path in of] for name, of in made.files.items()}
    output.show(
        {"model": subject.name, "rows": data, "notes": made.notes, "files": files},
        _on_screen(subject, made, to or Path()),
        as_json=as_json,
    )


def _subject(model: str, results: Path | None, source: str) -> Subject:
    """The model in memory; what is missing of the offline model and data is fetched.

    Raises:
        UsageError: a source is given for a run, which has its own.
    """
    from quanta_bench.cli import console
    from quanta_bench.export.harness import subject
    from quanta_bench.export.stored import find_run

    screen = console.progress()
    folder = Path(model)
    if folder.is_dir() and not (folder / "result.json").is_file():
        source = source or "embedded"
        console.fetch(screen, models=(), data={source})
        with console.working("Loading the model"):
            return subject.of_folder(folder, source)
    run = find_run(model, results)
    if source:
        raise UsageError(
            "--source goes with an exported folder: a run is scored on the data that it names."
        )
    console.fetch(
        screen,
        models={run.result.training.spec.model.source},
        data={run.result.evaluation.source},
    )
    with console.working("Loading the model"):
        return subject.of_run(run)


def _on_screen(subject: Subject, made: Comparison, to: Path) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from quanta_bench.utils.fitted_table import FittedTable

    table = FittedTable(f"{subject.name} by two scorers")
    table.add_column("Task", label=True)
    table.add_column("Metric", label=True)
    for heading in ("quanta-bench", "lm-eval", "Difference", "lm-eval's error", "Items"):
        table.add_column(heading, right=True)
    for row in made.rows:
        table.add_row(
            row.task,
            row.metric,
            _number(row.ours, ".4f"),
            f"{row.theirs:.4f}",
            _number(row.difference, "+.4f"),
            _number(row.error, ".4f"),
            f"{row.items:,}",
        )
    written: list[Text] = []
    if made.files:
        count = sum(map(len, made.files.values()))
        folders = " and ".join(str(to / name) for name in made.files)
        written.append(Text(f"Written: {count} files in {folders}.", overflow="ignore"))
    return Group(table, "", *map(Text, made.notes), *written)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
