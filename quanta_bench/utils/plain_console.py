"""The console on which texts of data, models and plug-ins are only text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from quanta_bench.utils.escaping import printable


class PlainConsole(Console):
    """A Rich console that shows control characters instead of sending them to the terminal.

    Rich takes out a few control characters of a text and lets escape sequences pass. It also breaks
    words that are longer than a line, or cuts them off; here a path can be copied from a message.
    """

    def print(self, *objects: Any, **how: Any) -> None:
        """Print as Rich does, whole words of messages on one line, and nothing cut off."""
        if all(isinstance(shown, str | Text) for shown in objects):
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
