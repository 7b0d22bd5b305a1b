"""The options that commands share, and how their words are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand

from quanta_bench.errors import UsageError

if TYPE_CHECKING:
    from quanta_bench.runs.sweep import Fresh
    from quanta_bench.suites.choice import Choice

Profile = Annotated[str, typer.Option(help="embedded (offline, small) or paper (GPUs and a hub).")]
Methods = Annotated[
    str,
    typer.Option(help="Rows to keep, by method: quanta,lora. With +name a row is added."),
]
Rows = Annotated[str, typer.Option(help="all: a row for every registered method.")]
SeedsOption = Annotated[str, typer.Option("--seeds", help="Seeds in place of the suite's: 0,1,2.")]
SizeOption = Annotated[
    str, typer.Option(help="Size of the data, as the suite names it: small, full.")
]
ModelsOption = Annotated[
    str, typer.Option("--models", help="Keep the rows of these models: llama2-7b,llama3-8b.")
]
ModelOption = Annotated[
    str, typer.Option("--model", help="A model for all rows: hub:NAME@REVISION or local:DIR.")
]
SourceOption = Annotated[
    str, typer.Option("--source", help="Where data comes from: embedded, hub, local:DIR.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override, such as training.epochs=1 or evaluation.items=10."),
]
Results = Annotated[
    Path | None, typer.Option(help="Results folder. [default: results/local/PROFILE]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
FreshOption = Annotated[
    str,
    typer.Option(
        "--fresh",
        metavar="[all|stale]",
        help="Compute again all runs, or those of other code than the present. [alone: all]",
    ),
]
GpuOption = Annotated[
    str,
    typer.Option("--gpu", help="With --dry-run: estimate for this GPU, such as h100-80gb."),
]
Jobs = Annotated[
    str,
    typer.Option(
        "--jobs",
        envvar="QUANTA_BENCH_JOBS",
        help="Runs computed at once: a number, or auto: by cores and memory, one with a GPU.",
    ),
]
DryRun = Annotated[bool, typer.Option(help="Print the plan and compute nothing.")]


class FreshAlone(TyperCommand):
    """A command whose option ``--fresh`` may stand without its value, for ``--fresh all``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the value where it was left out."""
        filled = []
        for word, after in zip(args, [*args[1:], ""], strict=True):
            alone = word == "--fresh" and after not in ("all", "stale")
            filled += [word, "all"] if alone else [word]
        return super().parse_args(ctx, filled)


def read_fresh(text: str) -> Fresh:
    """Which runs to compute again.

    Raises:
        UsageError: neither ``all`` nor ``stale``.
    """
    if text in ("", "all", "stale"):
        return cast("Fresh", text)
    raise UsageError(f"--fresh takes all or stale, not {text!r}.")


def words(text: str) -> tuple[str, ...]:
    """The words of a list such as ``quanta,lora``."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str) -> tuple[int, ...]:
    """The numbers of a list such as ``0,1,2``.

    Raises:
        UsageError: one of them is no whole number.
    """
    try:
        return tuple(int(word) for word in words(text))
    except ValueError:
        raise UsageError(f"{text!r} is not a list of whole numbers such as 0,1,2.") from None


def check_dry(gpu: str, dry_run: bool) -> None:
    """Refuse a GPU to estimate for where runs are to be computed.

    Raises:
        UsageError: a GPU is named without a dry run.
    """
    if gpu and not dry_run:
        raise UsageError("--gpu goes with --dry-run; a run takes the GPU that the machine has.")


def read_choice(
    methods: str,
    rows: str,
    seeds: str,
    size: str,
    models: str,
    model: str,
    source: str,
    settings: Any,
) -> Choice:
    """What the options of a suite's command select and override.

    Raises:
        UsageError: an option cannot be read.
    """
    from quanta_bench.suites.choice import Choice, parse_settings

    if rows not in ("", "default", "all"):
        raise UsageError(f"--rows takes 'all', not {rows!r}; name single rows with --methods.")
    return Choice(
        methods=words(methods),
        all_rows=rows == "all",
        seeds=numbers(seeds),
        size=size,
        models=words(models),
        model=model,
        source=source,
        settings=parse_settings(settings or []),
    )
