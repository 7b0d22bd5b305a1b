"""The device that runs compute on, and its peak memory."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


WAITING_REFUSED = 2
"""``torch.cuda.get_sync_debug_mode()`` where waiting for the device is an error."""


def this_device() -> torch.device:
    """Where this machine computes: the GPU if there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process can still allocate on a GPU; ``None`` on a CPU."""
    import torch

    if device.type != "cuda":
        return None
    gc.collect()
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished all queued work; a CPU queues none."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def may_wait(device: torch.device) -> bool:
    """Whether this thread may wait for the device: not while its work is recorded as a graph."""
    import torch

    if device.type != "cuda":
        return True
    return torch.cuda.get_sync_debug_mode() != WAITING_REFUSED and not (
        torch.cuda.is_current_stream_capturing()
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be allocated, here or on a GPU."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )


def reset_peak_memory() -> None:
    """Reset the peak of :func:`peak_memory` where the system can: on a GPU, and on Linux."""
    import torch

    # Garbage of earlier runs in reference cycles would be counted.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Largest resident size since the reset, in bytes; on a GPU the largest allocation.

    Where the system cannot reset it, it is the peak of the whole process.
    """
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
