"""Renew the tables of README from the results that they show: ``make readme``.

A table stands between ``<!-- table FILE -->`` and ``<!-- end -->``: the first one of FILE, which
``quanta-bench table`` wrote.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- table (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def first_table(text: str) -> str:
    """The first table of a Markdown text."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    end = next((n for n in range(start, len(lines)) if not lines[n].startswith("|")), len(lines))
    return "\n".join(lines[start:end]) + "\n"


def renewed(text: str) -> str:
    """A document with each table as its file has it."""

    def block(match: re.Match[str]) -> str:
        table = first_table((ROOT / match[2]).read_text(encoding="utf-8"))
        return f"{match[1]}\n{table}\n{match[4]}"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    document = ROOT / "README.md"
    before = document.read_text(encoding="utf-8")
    after = renewed(before)
    document.write_text(after, encoding="utf-8")
    sys.stdout.write("README.md is as the results have it.\n" if before == after else "Renewed.\n")
