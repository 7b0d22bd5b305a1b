"""Tables as a reader sees them: the same sections on the screen, in Markdown and in LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Group, RenderableType

from quanta_bench.report.screen_notes import Notes, ScreenNotes
from quanta_bench.utils import escaping
from quanta_bench.utils.fitted_table import FittedTable

R = TypeVar("R")

SHORTENED = "Shortened to fit this width; a wider terminal and the files show all."


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column of a section.

    Attributes:
        title: heading.
        text: a row's text in it.
        shorter: the same in fewer characters, for narrow terminals, ever shorter.
        right: whether it is set to the right.
        label: whether it names its row, and so is repeated where columns are cut into blocks.
        prose: whether its text may break between words.
        items: number of items scored, for a task's column; 0 if that is not known yet.
    """

    title: str
    text: Callable[[R], str]
    shorter: tuple[Callable[[R], str], ...] = ()
    right: bool = True
    label: bool = False
    prose: bool = False
    items: int | None = None

    def texts(self, row: R) -> tuple[str, ...]:
        """A row's texts, the longest first."""
        return (self.text(row), *(shorter(row) for shorter in self.shorter))


@dataclass(frozen=True)
class Section(Generic[R]):
    """One grid of rows and columns of a table, under a title of its own."""

    title: str
    columns: Sequence[Column[R]]
    rows: Sequence[R]

    @property
    def counts_items(self) -> bool:
        """Whether a last line gives each column's number of items."""
        return any(column.items for column in self.columns)

    @property
    def tex_size(self) -> str:
        r"""The font in which the section fits the width of a page with two columns of text.

        Such a page is about 110 characters of ``\small`` wide; a section that is too wide even for
        ``\scriptsize`` is scaled down by ``adjustbox``.
        """
        widths = [
            max(len(text) for text in (column.title, *map(column.text, self.rows)))
            for column in self.columns
        ]
        characters = sum(widths) + len(widths)
        return (
            "small" if characters <= 110 else "footnotesize" if characters <= 130 else "scriptsize"
        )


def fill(template: str, **values: Any) -> str:
    """A text from one of the package's templates, each of which escapes what it is given."""
    environment = Environment(
        loader=PackageLoader("quanta_bench.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # That of Jinja is for HTML.
        autoescape=False,
    )
    environment.filters["tex"] = escaping.latex
    environment.filters["md"] = escaping.markdown
    environment.filters["code"] = escaping.markdown_code
    return environment.get_template(template).render(**values)


def as_markdown(title: str, sections: Sequence[Section[Any]], notes: Notes) -> str:
    """GitHub Markdown: the sections, the notes."""
    return fill("table.md.jinja", title=title, sections=sections, notes=notes)


def as_latex(name: str, title: str, sections: Sequence[Section[Any]], notes: Notes) -> str:
    r"""A LaTeX ``table*`` for each section, the first with the notes; ``\label{tab:NAME}``."""
    label = "".join(char for char in name if char.isalnum() or char in "-.:")
    return fill("table.tex.jinja", label=label, title=title, sections=sections, notes=notes)


def on_screen(sections: Sequence[Section[Any]], notes: Notes, file: str = "") -> RenderableType:
    """The sections and the notes, in whatever width there is.

    Args:
        sections: the sections.
        notes: the notes, of which the first lines are shown.
        file: name of the file with all notes.
    """
    parts: list[RenderableType] = []
    for section in sections:
        parts += [screen_table(section), ""]
    return Group(*parts, ScreenNotes(notes, file)) if notes else Group(*parts[:-1])


def screen_table(section: Section[Any]) -> FittedTable:
    """A section as a table that fits the screen."""
    table = FittedTable(section.title, shortened=SHORTENED)
    for column in section.columns:
        items = f"\nn={column.items:,}" if column.items else ""
        table.add_column(
            column.title + items, right=column.right, label=column.label, prose=column.prose
        )
    for row in section.rows:
        table.add_row(*(column.texts(row) for column in section.columns))
    return table


def write(folder: Path, name: str, texts: Mapping[str, str]) -> list[Path]:
    """Write a table's text in each format, by the format's file ending; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ending, text in texts.items():
        path = folder / f"{name}.{ending}"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
