"""Which dtype a frozen base is kept in on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

import torch

ROUNDS = 20
"""Products that a processor is timed for in each dtype, a millisecond or two each."""

_known: dict[str, torch.dtype] = {}


def fast_dtype(device: str = "cpu") -> torch.dtype:
    """``bfloat16`` where the processor is fast at it, otherwise ``float32``.

    A GPU answers by capability. A CPU is timed for some hundredths of a second, since flags do
    not tell whether the library in use has kernels for them. The answer stays for the life of the
    process.
    """
    if device not in _known:
        _known[device] = _measured(device)
    return _known[device]


def settle(device: str, dtype: torch.dtype) -> None:
    """Take an answer that another process found: beside other work, a timing may come out wrong."""
    _known[device] = dtype


def _measured(device: str) -> torch.dtype:
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device != "cpu":
        return torch.float32
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    # In turns, and the best of many: other work on the machine must not decide.
    for _ in range(ROUNDS):
        for dtype in best:
            best[dtype] = min(best[dtype], _matmul_seconds(dtype))
    return min(best, key=best.__getitem__)


def _matmul_seconds(dtype: torch.dtype) -> float:
    left = torch.ones(256, 1024, dtype=dtype)
    right = torch.ones(1024, 1024, dtype=dtype)
    start = time.perf_counter()
    left @ right
    return time.perf_counter() - start


def resolve(
    wanted: Literal["auto", "bfloat16", "float32"],
    base: Literal["frozen", "float32"],
    device: str = "cpu",
) -> tuple[torch.dtype, Literal["bf16-mixed", "32-true"]]:
    """The base's dtype and Lightning's precision for a run.

    Args:
        wanted: the spec's setting.
        base: ``"float32"`` for methods that train the base's own weights: steps smaller than half
            a unit in the last place of bfloat16 would be lost, so those weights stay float32 and
            only the arithmetic is bfloat16, by autocast.
        device: type of the device.
    """
    dtype = fast_dtype(device) if wanted == "auto" else getattr(torch, wanted)
    mixed: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if dtype is torch.bfloat16 else "32-true"
    return (torch.float32 if base == "float32" else dtype), mixed


def arithmetic(precision: Mapping[str, str], device: torch.device) -> torch.autocast:
    """A precision's autocast, or one that does nothing."""
    mixed = precision["arithmetic"] == "bf16-mixed"
    return torch.autocast(device.type, torch.bfloat16, enabled=mixed)
