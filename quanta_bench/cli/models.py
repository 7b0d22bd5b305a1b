"""``quanta-bench models``: the models known by name."""

from __future__ import annotations

from quanta_bench.cli.options import Json, examples
from quanta_bench.utils.quiet import without_collection

EXAMPLES = examples("quanta-bench models", "quanta-bench models --json")


def models(as_json: Json = False) -> None:
    """List the models known by name, with their parameters."""
    from quanta_bench.cli import output

    with without_collection():
        from quanta_bench.cli import listing

        listed = listing.models()
    output.show(listed.rows, listed.on_screen(), as_json=as_json)
