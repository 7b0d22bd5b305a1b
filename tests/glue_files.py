"""Tiny files of GLUE in the layouts of GLUE's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

ENTAILS = ("entailment", "not_entailment")
# The first line of each file, where it has one for the columns, and a row by its number.
FILES: dict[str, tuple[str, Callable[[int], str]]] = {
    "RTE": (
        "index\tsentence1\tsentence2\tlabel",
        lambda n: f"{n}\tAnn has {n}.\tAnn has some.\t{ENTAILS[n % 2]}",
    ),
    "SST-2": ("sentence\tlabel", lambda n: f"film {n} is fine \t{n % 2}"),
    "MRPC": (
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        lambda n: f"{n % 2}\t{n}\t{n}\tAnn has {n}.\tSome has Ann, {n}.",
    ),
    "CoLA": ("", lambda n: f"x\t{n % 2}\t\tAnn has {n}."),
    "STS-B": (
        "index\tsentence1\tsentence2\tscore",
        lambda n: f"{n}\tAnn has {n}.\tAnn has some {n}.\t{n % 5}.250",
    ),
}


def write_glue(root: Path, rows: int = 40) -> None:
    """Write a training file and a validation file for each of the five tasks."""
    for name, (header, row) in FILES.items():
        (root / name).mkdir()
        for split, start in (("train", 0), ("dev", 100)):
            lines = [header] if header else []
            lines += [row(n) for n in range(start, start + rows)]
            (root / name / f"{split}.tsv").write_text("\n".join(lines) + "\n")
