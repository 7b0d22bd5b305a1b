"""Renew the tables of README and the pages from the results that they show: ``make readme``.

A table stands between ``<!-- table FILE: COLUMN, COLUMN -->`` and ``<!-- end -->``: these columns
of the first table of FILE, which ``quanta-bench table`` wrote, or of another one, as in
``FILE#3``. Below stand the command that prints it and the commits that computed its runs.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"(<!-- table ([^\s#]+)(?:#(\d+))?: ([^>]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL
)


def some_columns(text: str, number: int, columns: list[str]) -> str:
    """Some columns of a table of a Markdown text, the first one being number 1."""
    tables = re.findall(r"^(?:\|.*\n?)+", text, re.MULTILINE)
    lines = tables[number - 1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    places = [cells[0].index(column) for column in columns]
    kept = [[line[place] for place in places] for line in cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in kept)


def provenance(path: Path) -> str:
    """The command that prints a table, and the commits and days that its runs are of."""
    table = json.loads(path.with_suffix(".json").read_bytes())
    runs = [run for row in table["rows"] for run in row["runs"]]
    records = [
        json.loads((path.parent / "runs" / run / "result.json").read_bytes()) for run in runs
    ]
    environments = [
        environment
        for record in records
        for environment in (record["training"]["environment"], record["evaluation_environment"])
    ]
    commits = sorted({environment["git_commit"][:7] for environment in environments})
    folder = path.parent.relative_to(ROOT)
    # A table of another size than the suite's own has it in its name.
    suite, _, size = table["name"].partition("-")
    options = f" --size {size}" if size else ""
    return (
        f"`quanta-bench table {suite}{options} --stored --results {folder}` prints it whole; "
        f"{len(set(runs))} runs of commit{'s' * (len(commits) > 1)} {', '.join(commits)}.\n"
    )


def renewed(text: str) -> str:
    """A document with each table as its file has it."""

    def block(match: re.Match[str]) -> str:
        path = ROOT / match[2]
        text = path.read_text(encoding="utf-8")
        table = some_columns(text, int(match[3] or 1), match[4].split(", "))
        return f"{match[1]}\n{table}\n{provenance(path)}\n{match[6]}"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        before = document.read_text(encoding="utf-8")
        after = renewed(before)
        if before != after:
            document.write_text(after, encoding="utf-8")
            sys.stdout.write(f"Renewed {document.relative_to(ROOT)}.\n")
