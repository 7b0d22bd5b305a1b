"""The planner's cost model of a device: the costs of everything but arithmetic."""

from __future__ import annotations

from baselines.quanta.planning import Rates

CPU = Rates(gather=25, run=1200, copy=140, turn=140, product=22, call=1.2e6)
"""Two cores of an AMD EPYC (2026-11, torch 2.13), tuned on whole layers of width 576 and 4096 in
bfloat16, at 100 billion multiply-adds per second and core. In float32, arithmetic and memory
traffic both take about twice as long, and the same plans are best."""

GPU = Rates(gather=400, run=0, copy=400, turn=400, product=400, call=1e9)
"""From data sheets, not measured: 2e14 multiply-adds and 2e12 bytes of memory traffic per second, 5
microseconds per kernel launch. Large matrices are cheap on a GPU and passes over memory are not, so
plans merge more gates. ``quanta-bench bench rates --device cuda`` measures them."""

CACHED = 1 << 20
"""Elements that stay in a processor's cache between operations."""


def rates_of(device: str) -> Rates:
    """The rates of a device type, named as in ``torch.device.type``."""
    return CPU if device in ("cpu", "meta") else GPU
