"""CUDA graphs of decoding steps.

A recording that fails leaves the caching allocator in disorder: it goes on filling the graph's
pool. So what would make it fail is looked for before, and after a failure no more are made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from quanta_bench.utils.device import WAITING_REFUSED, is_out_of_memory

_failures: list[str] = []
"""What a recording of this process failed with; none is made after that."""


def record_graph(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record a CUDA graph of a step on the current device.

    Args:
        step: reads and writes tensors of the device and nothing else, and may be repeated.

    Returns:
        A function that repeats the step and returns the same tensor each time.

    Raises:
        RuntimeError: the step waits for the device, or does something else that no graph can hold.
        torch.OutOfMemoryError: memory ran out.
    """
    if _failures:
        raise RuntimeError(f"an earlier graph could not be recorded: {_failures[0]}")
    current, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(current)
    try:
        with torch.cuda.stream(aside):
            # Libraries allocate their workspaces in the first call, which no graph may hold.
            step()
            with _waiting_refused():
                step()
    finally:
        # Also after an error: what the step wrote to is freed on the current stream.
        current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        # Other threads may allocate memory meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = step()
        # The first replay makes the graph ready, which takes memory outside the allocator.
        graph.replay()
    except RuntimeError as error:
        torch.cuda.set_stream(current)
        if is_out_of_memory(error):
            raise torch.OutOfMemoryError(str(error)) from error
        _failures.append(str(error))
        raise

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def graph_or_calls(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A graph of a step, or the step itself where it cannot be recorded.

    Args:
        step: as for :func:`record_graph`.

    Raises:
        torch.OutOfMemoryError: memory ran out.
    """
    try:
        return record_graph(step)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return step


@contextmanager
def _waiting_refused() -> Iterator[None]:
    """Raise a RuntimeError where something waits for the device."""
    mode = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it is a prototype
            torch.cuda.set_sync_debug_mode(WAITING_REFUSED)
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)
