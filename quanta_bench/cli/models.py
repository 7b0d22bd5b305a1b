"""``quanta-bench models``: the models known by name."""

from __future__ import annotations

from quanta_bench.cli.options import Json, examples
from quanta_bench.utils.quiet import without_collection

EXAMPLES = examples("quanta-bench models", "quanta-bench models --json")


def models(as_json: Json = False) -> None:
    """List the models known by name, with their parameters.

    Of the embedded model, its folder too, once it is on this machine.
    """
    from rich.console import Group
    from rich.text import Text

    from quanta_bench.cli import output

    with without_collection():
        from quanta_bench.cli import listing
        from quanta_bench.models import embedded

        listed = listing.models()
    # Only what was converted is kept in a folder of its own; the hub's cache belongs to the hub.
    here = {embedded.NAME: str(embedded.converted_folder())} if embedded.is_converted() else {}
    rows = [{**row, "folder": here.get(row["name"], "")} for row in listed.rows]
    lines = [
        Text(f"{name} with its tokenizer is on this machine: {folder}")
        for name, folder in here.items()
    ]
    output.show(rows, Group(listed.on_screen(), *lines), as_json=as_json)
