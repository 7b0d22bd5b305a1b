"""``quanta-bench run``: fine-tune once and score once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quanta_bench.cli import completion
from quanta_bench.cli.options import (
    AllowOverlap,
    ChatTemplate,
    DataSource,
    DeviceCount,
    FreshOption,
    Json,
    Loggers,
    ModelName,
    Strategy,
    examples,
    read_fresh,
    read_settings,
)
from quanta_bench.utils.quiet import settle_libraries

EXAMPLES = examples(
    "quanta-bench run --method lora --task piqa --set r=16",
    "quanta-bench run --method quanta --task file:my-data.csv --model local:my-model",
    "quanta-bench run --method lora --task boolq --task piqa --set training.epochs=2",
    "quanta-bench run --method lora --task boolq --devices 2 --strategy ddp",
)


def run(
    method: Annotated[
        str,
        typer.Option(
            "--method", autocompletion=completion.methods, help="Method to fine-tune with."
        ),
    ],
    task: Annotated[
        list[str],
        typer.Option(
            "--task",
            metavar="TASK",
            autocompletion=completion.tasks,
            help="Task to train on and score; repeat it for a mixture. file:PATH is your own data "
            "(JSON lines, JSON, CSV, TSV or Parquet), or a mapping of rows of any form in YAML.",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the method (r=8), of training (training.epochs=2) or of the "
            "evaluation (evaluation.items=50). Repeat it for several.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of start and order.")] = 0,
    model: ModelName = "smollm2-135m",
    source: DataSource = "embedded",
    chat_template: ChatTemplate = False,
    results: Annotated[Path, typer.Option("--results", help="Results folder.")] = Path(
        "results/local/single"
    ),
    devices: DeviceCount = 1,
    strategy: Strategy = "",
    fresh: FreshOption = "",
    allow_overlap: AllowOverlap = False,
    loggers: Loggers = None,
    as_json: Json = False,
) -> None:
    """Fine-tune once, score once, print the result."""
    from quanta_bench.plugins import METHODS, TASKS

    # Before torch is imported, which takes seconds.
    METHODS.module(method)
    for name in task:
        TASKS.module(name.partition(":")[0])
    from quanta_bench.cli import console, output
    from quanta_bench.training.loggers import read_loggers

    follow = read_loggers(loggers or ())
    screen = console.progress()
    screen.print("Loading packages.", style="dim")
    from quanta_bench.cli import single_run
    from quanta_bench.results.store import Store
    from quanta_bench.runs.devices import Devices

    settle_libraries()
    spread = Devices.of(devices, strategy)
    console.fetch_configuration(model)
    given = read_settings(settings, chat=chat_template)
    job = single_run.job(method, task, given, seed, model, source, tell=screen.print)
    console.fetch_for(screen, [(job.training, job.evaluation)])
    result = single_run.compute(
        job,
        Store(results),
        screen,
        fresh=read_fresh(fresh),
        allow_overlap=allow_overlap,
        devices=spread,
        loggers=follow,
    )
    output.show(
        result.model_dump(mode="json"), single_run.on_screen(result, results), as_json=as_json
    )
