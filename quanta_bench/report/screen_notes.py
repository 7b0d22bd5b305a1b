"""The notes below a table on the screen: at most eight lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from quanta_bench.utils.escaping import one_line

Notes = Mapping[str, Sequence[str]]
"""Sentences by heading, the most important of each heading first."""

SCORES = "Scores"
TRAINING = "Training"
CAVEATS = "Caveats"

LINES = 8


class ScreenNotes:
    """Notes by heading, cut to a number of lines; a last line names the file with the rest.

    Each heading gets an equal share of the lines, plus what others leave unused. Notes are shown
    whole or not at all, except that the first of a heading is truncated if it is too long.

    Args:
        notes: the notes.
        file: name of the file with all notes.
        lines: maximum number of lines.
    """

    def __init__(self, notes: Notes, file: str = "", *, lines: int = LINES) -> None:
        self._notes = {
            heading: [one_line(note) for note in texts] for heading, texts in notes.items() if texts
        }
        self._file = file
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The headings, each followed by its notes on the same line."""
        shown = self._shown(options.max_width, self._lines)
        if any(len(shown[heading]) < len(texts) for heading, texts in self._notes.items()):
            shown = self._shown(options.max_width, self._lines - 1)
        for heading, texts in shown.items():
            text = _joined(heading, texts)
            text.stylize("dim", len(heading))
            yield text
        left_out = sum(len(texts) - len(shown[key]) for key, texts in self._notes.items())
        if left_out:
            where = f": see {self._file}" if self._file else ""
            count = f"{left_out} more {'note' if left_out == 1 else 'notes'}"
            yield Text(f"{count}{where}.", style="dim")

    def _shown(self, width: int, lines: int) -> dict[str, list[str]]:
        """The notes that fit, by heading."""
        least = dict.fromkeys(self._notes, 1)
        shown: dict[str, list[str]] = {}
        # Short headings leave more lines to the others.
        order = sorted(self._notes, key=lambda heading: sum(map(len, self._notes[heading])))
        remaining = lines
        for index, heading in enumerate(order):
            share = max(least[heading], remaining // (len(order) - index))
            shown[heading] = self._fitting(heading, width, share)
            remaining -= _lines(heading, shown[heading], width)
        return {heading: shown[heading] for heading in self._notes}

    def _fitting(self, heading: str, width: int, lines: int) -> list[str]:
        first, *others = self._notes[heading]
        while _lines(heading, [first], width) > lines:
            first = first.removesuffix(" …").rpartition(" ")[0] + " …"
            if first == " …":
                break
        shown = [first]
        for note in others:
            if _lines(heading, [*shown, note], width) <= lines:
                shown.append(note)
        return shown


def _joined(heading: str, texts: Sequence[str]) -> Text:
    text = Text(" ".join(texts)) if not heading else Text(f"{heading}: {' '.join(texts)}")
    text.stylize("bold", 0, len(heading))
    return text


def _lines(heading: str, texts: Sequence[str], width: int) -> int:
    console = Console(width=width)
    return len(_joined(heading, texts).wrap(console, width))
