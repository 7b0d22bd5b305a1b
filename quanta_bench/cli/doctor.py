"""``quanta-bench doctor``: check this machine."""

from __future__ import annotations

import json

import typer

from quanta_bench.cli.options import Json, examples

EXAMPLES = examples("quanta-bench doctor", "quanta-bench doctor --json")


def doctor(as_json: Json = False) -> None:
    """Check this machine and the installed plug-ins.

    The sources of models and data are checked too. What to do next is said at the end. The exit
    status is 1 if a check fails.
    """
    from rich.text import Text

    from quanta_bench.cli import checks, console

    findings = checks.check()
    if as_json:
        typer.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        screen = console.console()
        for finding in findings:
            # One text, so that the name counts where a long line breaks.
            line = Text.assemble(
                ("ok", "green") if finding.ok else ("no", "red"),
                "  ",
                (finding.name, "bold"),
                f": {finding.detail}",
            )
            screen.print(line, highlight=False)
        screen.print("\nNext:", style="bold")
        for step in checks.next_steps(findings):
            screen.print(f"  {step}", highlight=False, soft_wrap=True)
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)
