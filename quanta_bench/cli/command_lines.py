"""Command lines as help and pages show them: to be copied from a terminal of any width."""

from __future__ import annotations

import re

HELP_WIDTH = 80
"""Columns of a help page, as click writes it."""


def folded(command: str, width: int, indent: int = 2) -> list[str]:
    r"""A command in lines that fit, continued by a backslash.

    A terminal breaks a longer line inside a word, and a line that is broken without a backslash is
    two commands when it is pasted. Lines break before an option, so an option keeps its value.

    Args:
        command: the command, in one line.
        width: columns of the screen.
        indent: spaces before the first line; the others have four more.
    """
    lines: list[str] = []
    line = " " * indent
    for part in re.split(r" (?=--)", command):
        if line.strip() and len(line) + len(part) + len(" ") > width - len(" \\"):
            lines.append(f"{line} \\")
            line = " " * (indent + 4) + part
        else:
            line += part if not line.strip() else f" {part}"
    return [*lines, line]
