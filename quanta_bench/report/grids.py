"""Tables as a reader sees them: the same parts on the screen, in Markdown and in LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from quanta_bench.report.overwriting import free_name

R = TypeVar("R")


@dataclass(frozen=True)
class Shown(Generic[R]):
    """A column as it is shown.

    Attributes:
        title: heading.
        show: a row's text in it.
        right: whether it is set to the right.
        items: number of items scored, for a task's column.
    """

    title: str
    show: Callable[[R], str]
    right: bool = True
    items: int | None = None


@dataclass(frozen=True)
class Part(Generic[R]):
    """One grid of a table."""

    title: str
    columns: Sequence[Shown[R]]
    rows: Sequence[R]

    @property
    def counts_items(self) -> bool:
        """Whether a last line gives each column's number of items."""
        return any(column.items is not None for column in self.columns)


_TEX = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%_#${}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        "†": r"$\dagger$",
    }
)


def _escape_tex(text: str) -> str:
    return text.translate(_TEX)


def fill(template: str, **values: Any) -> str:
    """A text from one of the package's templates."""
    # These are text formats: nothing to escape but what the templates escape themselves.
    environment = Environment(
        loader=PackageLoader("quanta_bench.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["tex"] = _escape_tex
    environment.filters["md"] = lambda text: text.replace("|", r"\|")
    return environment.get_template(template).render(**values)


def as_markdown(title: str, parts: Sequence[Part[Any]], notes: Sequence[str]) -> str:
    """GitHub Markdown: the parts, the notes."""
    return fill("table.md.jinja", title=title, parts=parts, notes=notes)


def as_latex(title: str, parts: Sequence[Part[Any]], notes: Sequence[str]) -> str:
    """A LaTeX ``table`` with booktabs rules: the parts, the notes."""
    return fill("table.tex.jinja", title=title, parts=parts, notes=notes)


def on_screen(parts: Sequence[Part[Any]], notes: Sequence[str]) -> RenderableType:
    """The parts and the notes as Rich draws them."""
    return Group(*map(_grid, parts), *(Text(f"· {note}", style="dim") for note in notes))


def _grid(part: Part[Any]) -> Grid:
    # Text, not str: in a string, Rich would read words in square brackets as styles.
    grid = Grid(title=Text(part.title, style="bold"), title_justify="left")
    for column in part.columns:
        items = "" if column.items is None else f"\nn={column.items}"
        side: JustifyMethod = "right" if column.right else "left"
        grid.add_column(Text(column.title + items), justify=side, overflow="fold")
    for row in part.rows:
        grid.add_row(*(Text(column.show(row)) for column in part.columns))
    return grid


def write(folder: Path, name: str, texts: Mapping[str, str]) -> list[Path]:
    """Write a table's text in each format, by the format's file ending; returns the files.

    Files of an earlier table that has more filled cells are kept; see
    :func:`quanta_bench.report.overwriting.free_name`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = free_name(folder, name, texts["csv"])
    paths = []
    for ending, text in texts.items():
        path = folder / f"{name}.{ending}"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
