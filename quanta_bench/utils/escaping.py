"""Text from data, models and plug-ins, made safe for where it is written.

A label, an answer of a model or a title of a plug-in may hold anything: escape sequences that
rewrite a terminal, HTML, a formula of a spreadsheet, a LaTeX command. Each function here returns
text that reads the same and does nothing.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNPRINTABLE = re.compile(
    rf"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_BIDIRECTIONAL}\ud800-\udfff]"
)
_ENTITY = re.compile(r"&(?=#?\w+;)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_INLINE = re.compile(r"([\\`*~$|]|(?<![^\W_])_|_(?![^\W_]))")
_LINK = re.compile(r"\](?=[(:\[])")
_BLOCK = re.compile(r"^(?=#{1,6}(?:\s|$)|>|[+-](?:\s|$)|-{3,}$|=+$)|(?<=^\d)(?=[.)](?:\s|$))")
_FORMULA = re.compile(r"^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")

_TEX = {
    **{char: rf"\{char}" for char in "&%_#${}"},
    # In brackets of its own: after the end of a row these would be read as its options.
    **{char: f"{{{char}}}" for char in "[]*"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "→": r"$\to$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "·": r"\textperiodcentered{}",
    "\u00a0": "~",
    "\u2009": r"\,",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    # What `printable` puts in the place of control characters has no glyph in LaTeX's fonts.
    **{chr(code): "?" for code in (*range(0x2400, 0x2422), 0xFFFD)},
}


def printable(text: str) -> str:
    """A text without characters that control a terminal; line breaks and tabs stay.

    Control characters are replaced by their pictures (ESC by U+241B), and bidirectional controls
    and non-characters by U+FFFD, so that the width of the text is known.
    """
    return _UNPRINTABLE.sub(_picture, text)


def drawable(text: str) -> str:
    """A printable text in which control characters are U+FFFD, which every font has."""
    return _UNPRINTABLE.sub("\ufffd", text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


LONGEST_WORD = 400
LONGEST_LINE = 4_000
"""Characters of a message's word and line; a user's own value may have millions."""


def brief(text: str) -> str:
    """A printable message in which words and lines that no one would read are cut, saying so."""
    text = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: _cut(word[0], LONGEST_WORD), text)
    return "\n".join(_cut(line, LONGEST_LINE) for line in printable(text).split("\n"))


def _cut(text: str, longest: int) -> str:
    if len(text) < longest:
        return text
    return f"{text[: longest // 4]}... ({len(text):,} characters)"


def one_line(text: str) -> str:
    """A printable text with its line breaks and runs of spaces as single spaces."""
    return printable(" ".join(text.split()))


def markdown(text: str) -> str:
    """A text as inline GitHub Markdown, on one line, also inside a cell of a table."""
    text = _ENTITY.sub("&amp;", one_line(text))
    text = _INLINE.sub(r"\\\1", _TAG.sub("&lt;", text))
    text = _LINK.sub(r"]\\", text)
    # A list item or a line of its own may begin with it.
    return _BLOCK.sub(r"\\", text)


def markdown_code(text: str) -> str:
    """A text as inline code of GitHub Markdown, on one line, outside of a table."""
    text = one_line(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def latex(text: str) -> str:
    """A text as LaTeX, on one line. Letters of other alphabets stay, for XeLaTeX or LuaLaTeX."""
    # Two hyphens would be set as a dash, and an option such as --seeds could not be copied.
    parts = one_line(text).split("--")
    return "-{}-".join("".join(_TEX.get(char, char) for char in part) for part in parts)


def spreadsheet(value: object) -> object:
    """A cell of a CSV file: a text that a spreadsheet would take for a formula after ``'``.

    Numbers, also those in a text, stay as they are.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _FORMULA.match(text) and not _is_numeric(text) else text


def _is_numeric(text: str) -> bool:
    try:
        return bool([float(word) for word in text.split()])
    except ValueError:
        return False


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV file with ``\\n`` at the end of lines; ``None`` is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([spreadsheet(value) for value in row] for row in rows)
    return text.getvalue()
