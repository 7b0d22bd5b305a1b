"""What is dear on a device beside arithmetic, as the planner reckons."""

from __future__ import annotations

from baselines.quanta.planning import Rates

CPU = Rates(copy=28, product=22, transpose=80, call=1.2e6)
"""Two cores of an AMD EPYC, 2026-11: 400 multiply-adds of bfloat16 take as long as to start an
operation (6 microseconds) and so on; float32 has half of it, and the same plans."""

GPU = Rates(copy=400, product=400, transpose=400, call=1e9)
"""From data sheets, not measured: 2e14 multiply-adds and 2e12 bytes of memory traffic a second, 5
microseconds to start a kernel. Large matrices are cheap there and passes over memory are not, so
plans merge more."""


def rates_of(device: str) -> Rates:
    """The rates of a type of device, as ``torch.device.type`` names it."""
    return CPU if device in ("cpu", "meta") else GPU
