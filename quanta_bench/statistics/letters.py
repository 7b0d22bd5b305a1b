"""Compact letter display: rows that share a letter do not differ significantly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_lowercase


def letters(rows: Sequence[str], different: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Letters by row, insert-and-absorb (Piepho 2004, J. Comput. Graph. Stat. 13, 456-466).

    Args:
        rows: the rows, the best first; it gets the first letter.
        different: pairs that differ, in any order.

    Returns:
        Rows share a letter if and only if they are not among the pairs that differ.
    """
    groups = [set(rows)]
    for one, other in different:
        split: list[set[str]] = []
        for group in groups:
            split += [group - {one}, group - {other}] if {one, other} <= group else [group]
        groups = []
        for group in sorted(split, key=len, reverse=True):
            if not any(group <= kept for kept in groups):
                groups.append(group)
    place = {row: number for number, row in enumerate(rows)}
    groups.sort(key=lambda group: sorted(place[row] for row in group))
    return {
        row: "".join(_letter(n) for n, group in enumerate(groups) if row in group) for row in rows
    }


def _letter(number: int) -> str:
    turn, place = divmod(number, len(ascii_lowercase))
    return ascii_lowercase[place] * (turn + 1)
