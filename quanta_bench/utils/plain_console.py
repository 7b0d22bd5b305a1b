"""The console on which texts of data, models and plug-ins are only text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from quanta_bench.utils.escaping import printable


class PlainConsole(Console):
    """A Rich console that shows control characters instead of sending them to the terminal.

    Rich takes out a few control characters of a text and lets escape sequences pass. It also breaks
    words that are longer than a line, or cuts them off; here a path can be copied from a message.
    Brackets are no markup and names between colons no emoji: labels, paths and messages have both.

    Args:
        options: of Rich's console.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def print(self, *objects: Any, **how: Any) -> None:
        """Print as Rich does, nothing cut off, and no word of a message broken."""
        if any(isinstance(shown, str) and _is_long(shown, self.width) for shown in objects):
            objects = tuple(
                whole_words(shown, self.width) if isinstance(shown, str) else shown
                for shown in objects
            )
            how.setdefault("overflow", "ignore")
        super().print(*objects, **{"crop": False, **how})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Rich's own segments; those that are text without control characters."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield segment._replace(text=printable(segment.text))


def whole_words(text: str, width: int) -> str:
    """A text in lines that fit, broken between words alone: a long word is a line of its own."""
    lines = []
    for line in text.split("\n"):
        made, *words = line.split(" ")
        for word in words:
            if made.strip() and cell_len(f"{made} {word}") > width:
                lines.append(made)
                made = word
            else:
                made = f"{made} {word}"
        lines.append(made)
    return "\n".join(lines)


def _is_long(text: str, width: int) -> bool:
    return any(cell_len(word) > width for word in text.split())
