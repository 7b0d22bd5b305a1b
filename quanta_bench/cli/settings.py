"""``quanta-bench settings``: every key of training and of evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from quanta_bench.cli.options import Json, examples

if TYPE_CHECKING:
    from quanta_bench.cli.page import Page

EXAMPLES = examples(
    "quanta-bench settings",
    "quanta-bench settings training.warmup",
    "quanta-bench table 3 --set training.epochs=2 --set evaluation.items=50",
)


def settings(
    name: Annotated[
        str, typer.Argument(help="training, evaluation, or one key: training.epochs.")
    ] = "",
    as_json: Json = False,
) -> None:
    """List the settings of training and evaluation.

    Each is shown with its default, range and meaning. Suites, sizes and methods override these
    defaults; --dry-run shows the values that a table uses. Settings of a method are on its page:
    `quanta-bench methods NAME`.
    """
    from quanta_bench.cli import output

    page = settings_page(name)
    output.show(page.as_data(), page.on_screen(), as_json=as_json)


def settings_page(name: str = "") -> Page:
    """Every setting, those of one part, or a single one.

    Raises:
        UsageError: there is no such part or key.
    """
    from quanta_bench.cli.page import Page, Section, setting_data, setting_entries
    from quanta_bench.errors import UsageError, did_you_mean
    from quanta_bench.spec import EvaluationSpec, TrainingSpec
    from quanta_bench.utils.settings import settings_of

    kinds = {"training": settings_of(TrainingSpec), "evaluation": settings_of(EvaluationSpec)}
    keys = [f"{part}.{setting.name}" for part, listed in kinds.items() for setting in listed]
    if name and name not in (*kinds, *keys):
        raise UsageError(f"There is no setting {name!r}. {did_you_mean(name, (*kinds, *keys))}")
    selected = {
        part: [setting for setting in listed if name in ("", part, f"{part}.{setting.name}")]
        for part, listed in kinds.items()
    }
    return Page(
        name or "settings",
        "training and evaluation settings for --set and suite files",
        [
            "A suite, its sizes and a method's row override these defaults. Settings of a "
            "method: quanta-bench methods NAME."
        ],
        [
            Section(part, setting_entries(listed, prefix=f"{part}."))
            for part, listed in selected.items()
        ],
        ["quanta-bench table 3 --set training.epochs=2 --set evaluation.items=50"],
        {part: setting_data(listed) for part, listed in selected.items() if listed},
    )
