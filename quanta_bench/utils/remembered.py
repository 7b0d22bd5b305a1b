"""Values that take seconds to compute and depend on nothing but what they are named by.

They stand in the cache folder, so that a later process need not import what computes them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar, cast

from quanta_bench.utils.cache import cache_folder, keep
from quanta_bench.utils.fingerprint import text_digest

T = TypeVar("T")


def remembered(kind: str, parts: tuple[str, ...], compute: Callable[[], T]) -> T:
    """A value from the cache, or computed and kept there.

    Args:
        kind: the folder in the cache.
        parts: everything that the value depends on, the code that computes it included.
        compute: computes the value, which has to be one of JSON's. What it raises is not kept.

    Returns:
        The value as JSON gives it back, with lists for tuples, also where it was computed just now.
    """
    path = cache_folder() / kind / f"{text_digest(*parts)[:32]}.json"
    try:
        digest, text = json.loads(path.read_bytes())
        if digest == text_digest(text):
            return cast("T", json.loads(text))
    except (OSError, ValueError, TypeError):
        pass  # absent or damaged
    text = json.dumps(compute())
    keep(path, json.dumps([text_digest(text), text]).encode())
    return cast("T", json.loads(text))


@cache
def code_here() -> str:
    """A hash of the suite's source and of the names and releases of all installed packages."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    # A package's metadata lie in a folder NAME-RELEASE.dist-info, which need not be read.
    places = (Path(entry) for entry in sys.path if entry)
    found = (path.name for place in places for path in place.glob("*.dist-info"))
    digest.update("\n".join(sorted(set(found))).encode())
    return digest.hexdigest()
