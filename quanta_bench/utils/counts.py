"""How many: the counts that options take."""

from __future__ import annotations

from quanta_bench.errors import UsageError, near

AUTO = "auto"

MOST = 9999
"""More is a mistake."""


def number_or_auto(option: str, text: str) -> int | None:
    """A number from 1 to `MOST`, or ``None`` for ``auto``.

    Args:
        option: the option's name, for the message.
        text: what was given.

    Raises:
        UsageError: it is neither.
    """
    if text == AUTO:
        return None
    if text.isascii() and text.isdecimal() and len(text) < 5 and int(text) > 0:
        return int(text)
    message = f"{option} takes a number from 1 to {MOST}, or {AUTO}, not {text[:20]!r}. "
    raise UsageError((message + near(text.lower(), [AUTO])).rstrip())
