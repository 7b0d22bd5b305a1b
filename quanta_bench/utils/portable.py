"""Names that are files and folders on any system."""

from __future__ import annotations

import re


def portable(text: str) -> str:
    """A text as one component of a path on any system, and of a name on the hub."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "unnamed"
