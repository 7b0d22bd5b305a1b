"""Choose the dtype of a frozen base model on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

import torch

from quanta_bench.utils.device import this_device

ROUNDS = 20
"""Matrix products timed on a CPU for each dtype, a millisecond or two each."""

_fast_dtypes: dict[str, torch.dtype] = {}


def fast_dtype(device: str = "cpu") -> torch.dtype:
    """``bfloat16`` where the device is fast at it, otherwise ``float32``.

    A GPU is asked for its capability. A CPU is timed for a few hundredths of a second, because CPU
    flags do not say whether the library has kernels for them. The result is cached for the life of
    the process.
    """
    if device not in _fast_dtypes:
        _fast_dtypes[device] = _measure(device)
    return _fast_dtypes[device]


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype without its module, as records and settings have it: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def automatic() -> str:
    """The name of the dtype that ``precision="auto"`` stands for on this machine."""
    return dtype_name(fast_dtype(this_device().type))


def settle(device: str, dtype: torch.dtype) -> None:
    """Take another process's result: timing under load may give the wrong one."""
    _fast_dtypes[device] = dtype


def _measure(device: str) -> torch.dtype:
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if device != "cpu":
        return torch.float32
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    # Alternate, and take the best of many: other load on the machine must not decide.
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
    setting: Literal["auto", "bfloat16", "float32"],
    base: Literal["frozen", "float32"],
    device: str = "cpu",
) -> tuple[torch.dtype, Literal["bf16-mixed", "32-true"]]:
    """The base's dtype and Lightning's precision for a run.

    Args:
        setting: the spec's ``precision``.
        base: ``"float32"`` for methods that train the base's own weights: updates smaller than
            half a unit in the last place of bfloat16 would be lost, so those weights stay float32
            and only the arithmetic is bfloat16, under autocast.
        device: the device's type.
    """
    dtype = fast_dtype(device) if setting == "auto" else getattr(torch, setting)
    mixed: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if dtype is torch.bfloat16 else "32-true"
    return (torch.float32 if base == "float32" else dtype), mixed


def arithmetic(precision: Mapping[str, str], device: torch.device) -> torch.autocast:
    """The autocast context of a precision; disabled where it needs none."""
    mixed = precision["arithmetic"] == "bf16-mixed"
    return torch.autocast(device.type, torch.bfloat16, enabled=mixed)
