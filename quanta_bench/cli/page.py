"""One page about a method, a task or the settings: plain data, and how it is drawn.

A page fits any width: each term has its own line with its values, and prose below it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from quanta_bench.cli.command_lines import folded
from quanta_bench.utils.settings import Setting, plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


@dataclass(frozen=True)
class Entry:
    """A term and its explanation.

    Attributes:
        term: what is explained, such as a setting's key.
        facts: its default, its values or the like, in a few words.
        text: prose.
    """

    term: str
    facts: str = ""
    text: str = ""


@dataclass(frozen=True)
class Section:
    """Entries under a heading."""

    heading: str
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        name: what it is about.
        title: its heading.
        about: paragraphs.
        sections: the rest.
        examples: commands to copy.
        data: more fields for programs, besides ``name``, ``title``, ``about`` and ``examples``.
    """

    name: str
    title: str
    about: Sequence[str]
    sections: Sequence[Section]
    examples: Sequence[str]
    data: dict[str, Any] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """The page for programs."""
        named = {"name": self.name, "title": self.title, "about": list(self.about)}
        return {**named, **self.data, "examples": list(self.examples)}

    def on_screen(self) -> Any:
        """The page as Rich draws it."""
        from rich.console import Group, RenderableType
        from rich.padding import Padding
        from rich.text import Text

        from quanta_bench.references import portable_task

        name = portable_task(self.name)
        parts: list[RenderableType] = [Text(f"{name}: {self.title}", style="bold")]
        for paragraph in self.about:
            parts += [Text(), Text(paragraph)]
        for section in self.sections:
            if section.entries:
                parts += [Text(), Text(section.heading, style="bold")]
            for entry in section.entries:
                line = Text(entry.term, style="cyan")
                if entry.facts:
                    line.append(f"  {entry.facts}", style="default")
                parts.append(Padding(line, (0, 0, 0, 2), expand=False))
                if entry.text:
                    parts.append(Padding(Text(entry.text), (0, 0, 0, 6), expand=False))
        if self.examples:
            parts += [Text(), Text("Examples", style="bold"), _Commands(self.examples)]
        return Group(*parts)


@dataclass(frozen=True)
class _Commands:
    """Commands, a line each where it fits."""

    commands: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        for command in self.commands:
            for line in folded(command, options.max_width):
                yield Text(line, no_wrap=True, overflow="ignore")


def paragraphs(kind: type) -> list[str]:
    """A class's docstring without its sections, each paragraph in one line."""
    texts = []
    for block in inspect.cleandoc(kind.__doc__ or "").split("\n\n"):
        first = block.partition("\n")[0]
        if first in SECTIONS:
            continue
        if block.lstrip().startswith(("- ", "* ")):
            texts += [plain(f"- {item}") for item in block.lstrip("-* ").split("\n- ")]
        else:
            texts.append(plain(block))
    return [text for text in texts if text]


SECTIONS = ("Args:", "Attributes:", "Class attributes:", "Raises:", "Returns:", "Yields:")
"""Headings of a docstring's sections, which are for programmers."""


def setting_entries(settings: Sequence[Setting], prefix: str = "") -> list[Entry]:
    """A line for each setting with its default and its values, and what it means below."""
    return [
        Entry(
            prefix + setting.name,
            ("required" if setting.default is None else f"= {setting.default}")
            + f"  ({setting.values})",
            setting.meaning,
        )
        for setting in settings
    ]


def setting_data(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """Settings for programs."""
    return [asdict(setting) for setting in settings]
