"""``quanta-bench params``: parameter counts without weights."""

from __future__ import annotations

from typing import Annotated

import typer

from quanta_bench.cli.options import Json, comma_separated, examples
from quanta_bench.errors import UsageError
from quanta_bench.utils.quiet import without_collection

EXAMPLES = examples(
    "quanta-bench params",
    "quanta-bench params --method quanta --set dims=9,8,8",
    "quanta-bench params --model llama2-7b --method quanta --set dims=16,8,8,4",
    "quanta-bench params --model local:my-model --budget 0.04% --methods quanta,lora",
)

DEFAULT_MODEL = "smollm2-135m"
"""The model where none is named, as in the other commands."""


def params(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="A model that `quanta-bench models` lists, or local:DIR (its config.json). "
            f"[default: {DEFAULT_MODEL}]",
        ),
    ] = "",
    method: Annotated[
        str, typer.Option("--method", help="One method's size, work and rank on --model.")
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of --method, such as r=8."),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            "--budget", help="The nearest settings of every method: 0.04%, 2.7M or 460800."
        ),
    ] = "",
    methods: Annotated[
        str, typer.Option("--methods", help="Methods for --budget: quanta,lora.")
    ] = "",
    denominator: Annotated[
        str,
        typer.Option("--denominator", help="What the share of --budget is of: base or base+added."),
    ] = "base",
    as_json: Json = False,
) -> None:
    """Count trained parameters, without weights.

    With --method, one method's size, work and rank on a model; with --budget, the settings of each
    method nearest to a number of parameters. Without options, every row of every paper table is
    counted again: its trained parameters, and whether their share is the printed one. The exit
    status is 1 if one is not, unless it is known to be ambiguous.
    """
    if not (model or method or budget or settings or methods):
        _audit(as_json=as_json)
        return
    if bool(method) == bool(budget):
        raise UsageError(
            f"Give {'only ' if method else ''}one of --method and --budget; without options all "
            "the papers' tables are recounted."
        )
    model = model or DEFAULT_MODEL
    if method:
        if methods:
            raise UsageError("--methods goes with --budget; --method takes one name.")
        _describe(model, method, settings or [], as_json=as_json)
        return
    if settings:
        raise UsageError("--set goes with --method; a search by --budget chooses the settings.")
    from quanta_bench.cli import output
    from quanta_bench.costs import budget as budgets

    nearest = budgets.search(model, budget, comma_separated(methods), denominator)
    output.show(nearest.model_dump(), budgets.on_screen(nearest), as_json=as_json)


def _audit(*, as_json: bool) -> None:
    from quanta_bench.cli import output

    with without_collection():
        from quanta_bench.costs import audit

        checked = audit.audit()
    output.show(checked.model_dump(), audit.on_screen(checked), as_json=as_json)
    if not checked.passes:
        raise typer.Exit(1)


def _describe(model: str, method: str, settings: list[str], *, as_json: bool) -> None:
    from quanta_bench.cli import output

    with without_collection():
        from quanta_bench.costs.params import describe, on_screen
        from quanta_bench.suites.choice import parse_settings

        described = describe(model, method, parse_settings(settings))
    output.show(described.model_dump(), on_screen(described), as_json=as_json)
