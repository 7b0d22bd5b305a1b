"""``quanta-bench methods``: the registered methods, and a page about each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from quanta_bench.cli import completion
from quanta_bench.cli.options import Json, examples

if TYPE_CHECKING:
    from quanta_bench.cli.page import Page
    from quanta_bench.method import Method

EXAMPLES = examples("quanta-bench methods", "quanta-bench methods quanta")

TERMS = {
    "mergeable": "can be merged into the base weights",
    "exact_start": "equals the base model before training",
    "cacheable": "works with a key/value cache and packed candidates",
}
"""Claims of a method in plain words; programs read them by name."""


def methods(
    name: Annotated[
        str, typer.Argument(autocompletion=completion.methods, help="A method to read more about.")
    ] = "",
    as_json: Json = False,
) -> None:
    """List the methods, or show the page of one.

    A page says what the method is, its settings and its rows in tables.
    """
    from quanta_bench.cli import listing, output

    if name:
        page = method_page(name)
        output.show(page.as_data(), page.on_screen(), as_json=as_json)
    else:
        listed = listing.methods()
        output.show(listed.rows, listed.on_screen(), as_json=as_json)


def method_page(name: str) -> Page:
    """The page about a method.

    Raises:
        UsageError: no method has that name.
        BenchError: it cannot be used.
    """
    from quanta_bench.cli.page import (
        Entry,
        Page,
        Section,
        paragraphs,
        setting_data,
        setting_entries,
    )
    from quanta_bench.plugins import METHODS
    from quanta_bench.utils.settings import settings_of

    method = METHODS.get(name)
    settings = settings_of(method.Config)
    facts = _facts(method)
    rows = {profile: _row(method, profile) for profile in method.rows}
    return Page(
        name,
        method.title,
        [*paragraphs(method), *([method.footnote] if method.footnote else [])],
        [
            Section(
                "Properties",
                [Entry(TERMS.get(name, name), text) for name, text in facts.items() if text],
            ),
            Section(f"Settings (--set {name}.KEY=VALUE)", setting_entries(settings)),
            *(
                Section(
                    f"Default row in the {profile} profile: {row['label']}",
                    [
                        Entry(f"{setting['name']} = {setting['value']}", text=setting["source"])
                        for setting in row["settings"]
                    ],
                )
                for profile, row in rows.items()
            ),
        ],
        _examples(name, method),
        {
            **facts,
            "settings": setting_data(settings),
            "rows": rows,
            "search": {key: list(values) for key, values in method.search.items()},
        },
    )


def _facts(method: type[Method[Any]]) -> dict[str, str]:
    from quanta_bench.cli.listing import claim_text
    from quanta_bench.plugins import METHODS

    return {
        "source": method.source,
        "from": METHODS.origin(method.name),
        "trains": "yes" if method.trains else "no: the base model is scored unchanged",
        "base weights": "in the fastest precision of the machine"
        if method.base_precision == "frozen"
        else "in float32, because they are trained",
        "mergeable": claim_text(method.mergeable),
        "exact_start": claim_text(method.exact_start),
        "cacheable": claim_text(method.cacheable),
    }


def _row(method: type[Method[Any]], profile: str) -> dict[str, Any]:
    from quanta_bench.utils.settings import as_yaml

    row = method.rows[profile]
    values = {**row.config, **{f"training.{key}": value for key, value in row.training.items()}}
    return {
        "label": row.label,
        "settings": [
            {
                "name": key,
                "value": as_yaml(value),
                "source": row.origin.get(key.removeprefix("training."), ""),
            }
            for key, value in values.items()
        ],
    }


def _examples(name: str, method: type[Method[Any]]) -> list[str]:
    commands = [f"quanta-bench run --method {name} --task piqa"]
    row = method.rows.get("embedded")
    if row is not None:
        commands.append(f"quanta-bench table 3 --methods none,{name} --seeds 0")
        commands += [
            f"quanta-bench table 3 --methods {name} --set {name}.{key}={values[0]}"
            for key, values in method.search.items()
            if key in method.Config.model_fields
        ][:1]
    return commands
