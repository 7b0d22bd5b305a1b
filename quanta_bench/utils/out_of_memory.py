"""Go on with less at a time where a GPU's memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def release_memory() -> None:
    """Give memory that nothing holds back to the GPU, so that other sizes can be allocated."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_halves(compute: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
    """What ``compute`` returns for the items, or for each half of them if memory runs out.

    Args:
        compute: gives a list for some of the items; the lists of parts, one after another, are
            that of the whole.
        items: at least one.

    Raises:
        torch.OutOfMemoryError: a single item does not fit.
    """
    import torch

    try:
        return compute(items)
    except torch.OutOfMemoryError:
        if len(items) < 2:
            raise
    # Outside of the handler: the exception's traceback held on to what had been computed.
    release_memory()
    middle = len(items) // 2
    return in_halves(compute, items[:middle]) + in_halves(compute, items[middle:])
