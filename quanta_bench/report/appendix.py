"""Appendix tables that are not grids of runs: data sets and sample outputs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Appendix:
    """A table that trains nothing.

    Attributes:
        name: its name in make and on the command line.
        title: its title.
        takes: the options of ``quanta-bench table`` that apply to it.
    """

    name: str
    title: str
    takes: tuple[str, ...]


TABLES = {
    table.name: table
    for table in (
        Appendix(
            "tableD1",
            "Table D.1: the data sets, their sizes, and what each table draws from them",
            ("--profile", "--source", "--results", "--json"),
        ),
        Appendix(
            "tableH",
            "Tables H.8 to H.10: sample outputs of the finished runs",
            ("--profile", "--methods", "--set", "--results", "--json"),
        ),
    )
}
