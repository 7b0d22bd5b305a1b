"""JSON: parsed from users and downloads, one exception for every defect; numbers it can hold."""

from __future__ import annotations

import json
import math
from typing import Any


def parse_json(text: str, *, unique_keys: bool = False) -> Any:
    """Parse a JSON text.

    Args:
        text: the text.
        unique_keys: refuse an object that names a key twice; ``json`` keeps the last value.

    Raises:
        json.JSONDecodeError: it is not JSON, is nested too deeply, holds an integer of
            thousands of digits, or names a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique if unique_keys else None)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("it is nested too deeply", text, 0) from None
    except ValueError as error:
        # Python's own message on a long number advises to lift its limit.
        own = isinstance(error, _DuplicateKeyError)
        message = str(error) if own else "a number has too many digits"
        raise json.JSONDecodeError(message, text, 0) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _DuplicateKeyError(f"the key {twice!r} appears twice in one object")
    return made


class _DuplicateKeyError(ValueError):
    """A key with two values."""


def finite(value: float) -> float | None:
    """A number that JSON can hold: it has neither infinity nor NaN, which become ``None``."""
    return value if math.isfinite(value) else None
