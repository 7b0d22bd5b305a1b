"""``quanta-bench list``: what can be made."""

from __future__ import annotations

from quanta_bench.cli.options import Json, examples

EXAMPLES = examples("quanta-bench list", "quanta-bench list --json")


def targets(as_json: Json = False) -> None:
    """List what can be made, with the command for each."""
    from quanta_bench.cli import listing, output

    listed = listing.targets()
    output.show(listed.rows, listed.on_screen(), as_json=as_json)
