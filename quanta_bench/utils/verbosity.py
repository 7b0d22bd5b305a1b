"""How much commands say: results alone, progress too, or what libraries say as well.

It is kept in an environment variable, which the processes that compute runs inherit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

VARIABLE = "QUANTA_BENCH_VERBOSITY"

Verbosity = Literal["quiet", "verbose"]


def choose(verbosity: Verbosity) -> None:
    """Say more or less from here on."""
    os.environ[VARIABLE] = verbosity


def is_quiet() -> bool:
    """Whether progress and closing messages are left out."""
    return os.environ.get(VARIABLE) == "quiet"


def is_verbose() -> bool:
    """Whether libraries may print, and an unexpected error has its traceback."""
    return os.environ.get(VARIABLE) == "verbose"


@contextmanager
def kept() -> Iterator[None]:
    """A block after which commands say as much as before."""
    before = os.environ.get(VARIABLE)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
