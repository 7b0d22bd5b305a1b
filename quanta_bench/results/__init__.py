"""What runs leave on disk, and what the papers printed.

``load(folder)`` and ``load_predictions(folder)`` give results as pandas data frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quanta_bench.results.frames import load, load_predictions

__all__ = ["load", "load_predictions"]


def __getattr__(name: str) -> Any:
    # pandas takes a third of a second to import, and most of the suite reads records without it.
    if name in __all__:
        from quanta_bench.results import frames

        return getattr(frames, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
