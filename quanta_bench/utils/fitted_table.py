"""Tables that fit a terminal: no number and no name is ever broken.

Rich draws them. What it does not do, and is done here, is to choose among ways to say the same in
less room: Rich narrows a table by breaking words wherever the width runs out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from quanta_bench.utils.escaping import printable

Cell = str | Sequence[str]
"""A text, or the same in several lengths, the longest first."""


LONGEST_WORD = 40
"""Cells of a word of prose that may be broken: languages without spaces have longer ones."""


@dataclass
class _Column:
    heading: str
    right: bool
    label: bool
    prose: bool
    cells: list[Sequence[str]] = field(default_factory=list)

    def texts(self, length: int) -> list[str]:
        return [cell[min(length, len(cell) - 1)] for cell in self.cells]

    @property
    def lengths(self) -> int:
        return max((len(cell) for cell in self.cells), default=1)


@dataclass(frozen=True)
class _Layout:
    """How a table is drawn.

    Attributes:
        blocks: the columns of each block with their widths; label columns are in every block.
        length: which of a cell's texts is shown.
        gap: spaces between columns.
    """

    blocks: list[dict[int, int]]
    length: int
    gap: int


class FittedTable:
    """A table that Rich draws in whatever width there is.

    As the width shrinks, in this order: columns of prose and label columns break between words;
    cells are shown in their shorter texts; the table is cut into the fewest blocks of columns, one
    below the other, each with the label columns. A block is never narrower than its longest word.

    Args:
        title: stands above the table; breaks between words.
        shortened: stands below the table where cells are not shown in their longest text.
        length: show no longer text than this one, by its number.
    """

    def __init__(self, title: str = "", *, shortened: str = "", length: int = 0) -> None:
        self._title = printable(title)
        self._shortened = printable(shortened)
        self._length = length
        self._columns: list[_Column] = []

    def add_column(
        self, heading: str, *, right: bool = False, label: bool = False, prose: bool = False
    ) -> None:
        """Add a column.

        Args:
            heading: may have several lines; also breaks between words.
            right: whether it is right-aligned.
            label: whether it names its row, so that every block has it. Label columns come first.
            prose: whether its cells may break between words before a cell is shortened.
        """
        self._columns.append(_Column(printable(heading), right, label, prose))

    def add_row(self, *cells: Cell) -> None:
        """Add a row, a cell for each column."""
        for column, cell in zip(self._columns, cells, strict=True):
            texts = [cell] if isinstance(cell, str) else cell
            column.cells.append([printable(text) for text in texts])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the blocks, under one title."""
        layout = self._fit(options.max_width)
        if self._title:
            yield Text(self._title, style="bold")
        for number, block in enumerate(layout.blocks):
            if number:
                yield Text()
            # Wider than the terminal only if one word is.
            taken = max(options.max_width, sum(block.values()) + layout.gap * (len(block) - 1))
            yield from console.render(self._draw(block, layout), options.update(width=taken))
        if layout.length > self._length and self._shortened:
            yield Text(self._shortened, style="dim")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """From the narrowest block to everything on one line."""
        widths = self._widths(0, broken=False)
        narrow = self._widths(self._longest_length, broken=True)
        labels, others = self._split()
        least = max([narrow[n] for n in others], default=0) + sum(narrow[n] + 1 for n in labels)
        most = sum(widths) + 2 * (len(widths) - 1)
        return Measurement(min(least, options.max_width), min(most, options.max_width))

    @property
    def _longest_length(self) -> int:
        return max((column.lengths for column in self._columns), default=1) - 1

    def _split(self) -> tuple[list[int], list[int]]:
        numbers = range(len(self._columns))
        labels = [number for number in numbers if self._columns[number].label]
        return labels, [number for number in numbers if number not in labels]

    def _widths(self, length: int, *, broken: bool) -> list[int]:
        """The width of each column if prose breaks between words and, if ``broken``, labels do."""
        widths = []
        for column in self._columns:
            heading = _width([column.heading], str.split)
            if column.prose:
                cells = min(_width(column.texts(length), str.split), LONGEST_WORD)
            elif broken and column.label:
                cells = _width(column.texts(length), str.split)
            else:
                cells = _width(column.texts(length), str.splitlines)
            widths.append(max(heading, cells))
        return widths

    def _fit(self, width: int) -> _Layout:
        whole = range(len(self._columns))
        start = min(self._length, self._longest_length)
        for length in range(start, self._longest_length + 1):
            for gap, broken in ((2, False), (1, False), (2, True), (1, True)):
                widths = self._widths(length, broken=broken)
                spare = width - sum(widths) - gap * (len(widths) - 1)
                if spare >= 0:
                    return _Layout([self._spread(whole, widths, length, spare)], length, gap)
        length, widths, blocks = min(
            (self._cut(length, width) for length in range(start, self._longest_length + 1)),
            key=lambda layout: (
                max(self._taken(block, layout[1]) for block in layout[2]) > width,
                len(layout[2]),
            ),
        )
        spread = [
            self._spread(block, widths, length, width - self._taken(block, widths))
            for block in blocks
        ]
        return _Layout(spread, length, 2)

    def _cut(self, length: int, width: int) -> tuple[int, list[int], list[list[int]]]:
        """Blocks that fit a width; labels break between words only where they must."""
        widths = self._widths(length, broken=False)
        blocks = self._blocks(widths, width)
        if any(self._taken(block, widths) > width for block in blocks):
            widths = self._widths(length, broken=True)
            blocks = self._blocks(widths, width)
        return length, widths, blocks

    @staticmethod
    def _taken(block: Sequence[int], widths: Sequence[int]) -> int:
        return sum(widths[number] for number in block) + 2 * (len(block) - 1)

    def _blocks(self, widths: Sequence[int], width: int) -> list[list[int]]:
        labels, others = self._split()
        blocks: list[list[int]] = []
        for number in others:
            if blocks and self._taken([*blocks[-1], number], widths) <= width:
                blocks[-1].append(number)
            else:
                blocks.append([*labels, number])
        return blocks or [labels]

    def _spread(
        self, block: Iterable[int], all_widths: Sequence[int], length: int, spare: int
    ) -> dict[int, int]:
        """A block's widths, after spare width is given to the columns that can use it."""
        widths = {number: all_widths[number] for number in block}
        wishes = {
            number: _width(
                [self._columns[number].heading, *self._columns[number].texts(length)],
                str.splitlines,
            )
            for number in widths
            if self._columns[number].prose or self._columns[number].label
        }
        while spare > 0:
            open_ = [number for number, wish in wishes.items() if widths[number] < wish]
            if not open_:
                break
            # A long text leaves the others what they need.
            widths[min(open_, key=lambda number: widths[number])] += 1
            spare -= 1
        return widths

    def _draw(self, block: dict[int, int], layout: _Layout) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            # The box draws one of the spaces.
            padding=(0, layout.gap - 1, 0, 0),
            pad_edge=False,
            header_style="bold",
        )
        for number in block:
            column = self._columns[number]
            side: JustifyMethod = "right" if column.right else "left"
            table.add_column(
                Text(column.heading),
                justify=side,
                width=block[number],
                vertical="top",
                overflow="fold",
            )
        texts = [self._columns[number].texts(layout.length) for number in block]
        for row in zip(*texts, strict=True):
            table.add_row(*map(Text, row))
        return table


def _width(texts: Iterable[str], cut: Callable[[str], Sequence[str]]) -> int:
    return max((cell_len(piece) for text in texts for piece in cut(text)), default=0)
