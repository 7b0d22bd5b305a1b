"""Data in a page: JSON that cannot end its element, and scripts known by their hash."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from quanta_bench.utils.escaping import printable


def script_json(data: Any) -> str:
    r"""Plain values as JSON inside ``<script type="application/json">``.

    Every character that HTML or a script's parser reads is written as ``\uXXXX``, so the text is
    the same JSON and holds no markup. Control characters are shown by their pictures.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(_printable(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _printable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(part) for part in value]
    return value


def source_hash(script: str) -> str:
    """What a content security policy calls a script with this text."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
