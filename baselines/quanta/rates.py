"""What is dear on a device beside arithmetic, as the planner reckons."""

from __future__ import annotations

from baselines.quanta.planning import Rates

CPU = Rates(gather=25, run=1200, copy=140, turn=140, product=22, call=1.2e6)
"""Two cores of an AMD EPYC (2026-11, torch 2.13), tuned on whole layers of 576 and 4096 in
bfloat16, of which such a core does 100 billion multiply-adds a second. In float32 it does half as
many, memory traffic takes about twice the time too, and the same plans are best."""

GPU = Rates(gather=400, run=0, copy=400, turn=400, product=400, call=1e9)
"""From data sheets, not measured: 2e14 multiply-adds and 2e12 bytes of memory traffic a second, 5
microseconds to start a kernel. Large matrices are cheap there and passes over memory are not, so
plans merge more."""

CACHED = 1 << 20
"""Numbers that a processor has in its cache from one operation to the next."""


def rates_of(device: str) -> Rates:
    """The rates of a type of device, as ``torch.device.type`` names it."""
    return CPU if device in ("cpu", "meta") else GPU
