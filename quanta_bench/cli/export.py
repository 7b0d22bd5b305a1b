"""``quanta-bench export``: a run's model for `peft` or `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quanta_bench.cli.options import Json, examples

EXAMPLES = examples(
    "quanta-bench export results/local/single/runs/RUN --to my-model",
    "quanta-bench export RUN --merged --to my-model",
    "quanta-bench export RUN --unmerged --to my-adapter",
)

RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run's folder, its name, or the name's first letters."),
]
RunsIn = Annotated[
    Path | None,
    typer.Option("--results", help="Results folder of the run. [default: all of results/local]"),
]

FORMS = {
    "adapter": "An adapter that peft loads; nothing of this suite is needed",
    "unmerged": "An adapter that peft loads after `import quanta_bench.tuners`",
    "merged": "A plain model in float32 that transformers loads; nothing of this suite is needed",
}


def export(
    run: RunName,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A new folder.")],
    merged: Annotated[
        bool,
        typer.Option("--merged", help="Write the update into the base's weights, in float32."),
    ] = False,
    unmerged: Annotated[
        bool,
        typer.Option(
            "--unmerged",
            help="Write the adapter as it is, also one that peft loads only after "
            "`import quanta_bench.tuners`.",
        ),
    ] = False,
    push: Annotated[
        str,
        typer.Option(
            "--push", metavar="OWNER/NAME", help="Upload the folder to this hub repository."
        ),
    ] = "",
    results: RunsIn = None,
    as_json: Json = False,
) -> None:
    """Export a run as a folder for peft or transformers.

    By default an adapter where peft has its type (LoRA, DoRA, prefix tuning, ...), else a merged
    model. Nothing is uploaded without --push.
    """
    from quanta_bench.cli import console, output
    from quanta_bench.export.stored import find_run

    found = find_run(run, results)
    screen = console.progress()
    screen.print("Loading packages.", style="dim")
    from quanta_bench.export import folder, hub

    form = folder.choose_form(found, merged=merged, unmerged=unmerged)
    if push:
        hub.check_push(found, push, form)
    console.fetch(screen, models={found.result.training.spec.model.source}, data=())
    with console.working("Writing the model"):
        written = folder.export(found, to, form)
    address = ""
    if push:
        with console.working(f"Uploading to {push}"):
            address = hub.push(to, push)
    total = sum(written.files.values()) / 2**20
    output.show(
        {
            "folder": str(to),
            "form": form,
            "base": written.base,
            "files": written.files,
            "pushed": address,
        },
        f"{FORMS[form]}.\nWritten: {to}, {len(written.files)} files, {total:,.1f} MiB; README.md "
        f"is its card.{f' Pushed: {address}' if address else ''}",
        as_json=as_json,
    )
