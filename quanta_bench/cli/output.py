"""What a command prints: JSON for programs, or a drawing for people."""

from __future__ import annotations

import json
from typing import Any

import typer


def show(data: Any, drawing: Any, *, as_json: bool) -> None:
    """Print data as JSON, or its drawing.

    Args:
        data: plain values.
        drawing: what Rich draws.
        as_json: which of the two.
    """
    if as_json:
        typer.echo(json.dumps(data, indent=1))
    else:
        from quanta_bench.cli.console import console

        console().print(drawing)
