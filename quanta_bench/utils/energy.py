"""Energy that a device used: a GPU's counter through NVML, a processor's through Linux's powercap.

Both counters are the whole device's. On a GPU that is the run's own; on a processor it is too only
while nothing else computes, so that the caller decides whether to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

POWERCAP = Path("/sys/class/powercap")
MICRO = 1e-6
MILLI = 1e-3


class EnergyMeter:
    """Joules since the meter was made.

    Args:
        read: the counters' values, in J.
        ranges: where each counter wraps around, in J; 0 for one that does not.
    """

    def __init__(self, read: Callable[[], list[float]], ranges: list[float]) -> None:
        self._read = read
        self._ranges = ranges
        self._last = read()
        self._used = 0.0

    @property
    def joules(self) -> float:
        """Energy used so far."""
        self.update()
        return self._used

    def update(self) -> None:
        """Read the counters; those that wrap have to be read once a turn, which takes minutes."""
        now = self._read()
        for before, after, full in zip(self._last, now, self._ranges, strict=True):
            self._used += after - before + (full if after < before else 0.0)
        self._last = now


def energy_meter(device: torch.device, *, alone: bool) -> EnergyMeter | None:
    """A meter of a device; ``None`` where the device does not tell.

    Args:
        device: where a run computes.
        alone: whether this process is the only one that computes on the processor.
    """
    if device.type == "cuda":
        return _nvidia(device)
    return _powercap() if device.type == "cpu" and alone else None


def _nvidia(device: torch.device) -> EnergyMeter | None:
    import torch

    try:
        import pynvml

        pynvml.nvmlInit()
        # Not by number: CUDA_VISIBLE_DEVICES renumbers what torch sees, not what NVML does.
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

        def read() -> list[float]:
            return [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) * MILLI]

        return EnergyMeter(read, [0.0])
    except ImportError:
        return None
    except pynvml.NVMLError:  # a driver or a card without the counter
        return None


def _powercap() -> EnergyMeter | None:
    # One zone a processor, such as intel-rapl:0 (AMD's have that name too). Those below them, such
    # as intel-rapl:0:0, are parts of it, and that of the whole platform, psys, holds them again.
    zones = [path for path in POWERCAP.glob("*-rapl:*") if path.name.count(":") == 1]

    def read() -> list[float]:
        return [int((zone / "energy_uj").read_text()) * MICRO for zone in zones]

    try:
        zones = [zone for zone in zones if (zone / "name").read_text().strip() != "psys"]
        ranges = [int((zone / "max_energy_range_uj").read_text()) * MICRO for zone in zones]
        return EnergyMeter(read, ranges) if zones else None
    except (OSError, ValueError):  # readable by root alone on most systems
        return None
