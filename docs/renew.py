"""Renew the tables of README from the results that they show: ``make readme``.

A table stands between ``<!-- table FILE: COLUMN, COLUMN -->`` and ``<!-- end -->``: these columns
of the first one of FILE, which ``quanta-bench table`` wrote, with the command that prints it and
the commits that computed its runs.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- table (\S+): ([^>]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def first_table(text: str, columns: list[str]) -> str:
    """Some columns of the first table of a Markdown text."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    end = next((n for n in range(start, len(lines)) if not lines[n].startswith("|")), len(lines))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end]]
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
    commits = {record["evaluation_environment"]["git_commit"][:7] for record in records}
    folder = path.parent.relative_to(ROOT)
    # A table of another size than the suite's own has it in its name.
    suite, _, size = table["name"].partition("-")
    options = f" --size {size}" if size else ""
    return (
        f"`quanta-bench table {suite}{options} --stored --results {folder}` prints it whole; "
        f"{len(set(runs))} runs of commit {', '.join(sorted(commits))}.\n"
    )


def renewed(text: str) -> str:
    """A document with each table as its file has it."""

    def block(match: re.Match[str]) -> str:
        path = ROOT / match[2]
        table = first_table(path.read_text(encoding="utf-8"), match[3].split(", "))
        return f"{match[1]}\n{table}\n{provenance(path)}\n{match[5]}"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    document = ROOT / "README.md"
    before = document.read_text(encoding="utf-8")
    after = renewed(before)
    document.write_text(after, encoding="utf-8")
    sys.stdout.write("README.md is as the results have it.\n" if before == after else "Renewed.\n")
