"""Render tables: the same sections on the screen, in Markdown and in LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Group, RenderableType
from rich.text import Text

from quanta_bench.report.screen_notes import Notes, ScreenNotes
from quanta_bench.results.store import ADVICE
from quanta_bench.utils import escaping
from quanta_bench.utils.escaping import printable
from quanta_bench.utils.fitted_table import FittedTable
from quanta_bench.utils.folders import storage_errors, whole_file

R = TypeVar("R")

SHORTENED = "Shortened to fit this width; a wider terminal and the files show all."


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column of a section.

    Attributes:
        title: heading.
        text: gives a row's text.
        shorter: give shorter versions for narrow terminals, in descending length.
        right: whether it is right-aligned.
        label: whether it labels the row, and is repeated when columns are split into blocks.
        prose: whether its text may wrap between words.
        items: number of items scored, for a task's column; 0 if not known yet.
    """

    title: str
    text: Callable[[R], str]
    shorter: tuple[Callable[[R], str], ...] = ()
    right: bool = True
    label: bool = False
    prose: bool = False
    items: int | None = None

    def texts(self, row: R) -> tuple[str, ...]:
        """A row's text in all versions, the longest first."""
        return (self.text(row), *(shorter(row) for shorter in self.shorter))


@dataclass(frozen=True)
class Section(Generic[R]):
    """A titled grid of rows and columns."""

    title: str
    columns: Sequence[Column[R]]
    rows: Sequence[R]

    @property
    def counts_items(self) -> bool:
        """Whether the number of items is known for some column."""
        return any(column.items for column in self.columns)

    @property
    def tex_size(self) -> str:
        r"""The LaTeX font size at which the section fits a two-column page.

        Such a page is about 110 characters wide in ``\small``; sections too wide even for
        ``\scriptsize`` are scaled down by ``adjustbox``.
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
    """Render one of the package's templates, which escape their values themselves."""
    environment = Environment(
        loader=PackageLoader("quanta_bench.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Jinja escapes for HTML only.
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


def on_screen(
    sections: Sequence[Section[Any]], notes: Notes, file: str = "", *, below: str = ""
) -> RenderableType:
    """The sections and the notes, fitted to the terminal's width.

    Args:
        sections: the sections.
        notes: the notes; only the first lines are shown.
        file: name of the file with all notes.
        below: a line below the first section, on what is not shown.
    """
    parts: list[RenderableType] = []
    for number, section in enumerate(sections):
        parts += [screen_table(section), ""]
        if below and not number:
            parts[-1:] = [Text(printable(below), style="dim"), ""]
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
    """Write each text to a file with its format's suffix; returns the files.

    Raises:
        StorageError: the folder cannot be written.
    """
    paths = {folder / f"{name}.{suffix}": text for suffix, text in texts.items()}
    with storage_errors(folder, ADVICE):
        for path, text in paths.items():
            with whole_file(path) as stream:
                stream.write(text.encode())
    return list(paths)
