"""What is dear on a device beside arithmetic, as the planner reckons.

Those of a processor were measured on two cores of an AMD EPYC (2026-11, torch 2.13) in bfloat16, of
which such a core does 100 billion multiply-adds a second. In float32 it does half as many, and
memory traffic costs about twice the time too.
"""

from __future__ import annotations

from baselines.quanta.planning import Rates

IN_CACHE = Rates(gather=25, run=400, copy=8, turn=60, product=22, call=1.2e6)
"""Numbers that a processor has in its cache from one operation to the next."""

OUT_OF_CACHE = Rates(gather=25, run=400, copy=140, turn=140, product=22, call=1.2e6)
"""More of them: with the vectors last every copy goes to memory, with the vectors first a vector
stays in the cache while it is moved."""

GPU = Rates(gather=400, run=0, copy=400, turn=400, product=400, call=1e9)
"""From data sheets, not measured: 2e14 multiply-adds and 2e12 bytes of memory traffic a second, 5
microseconds to start a kernel. Large matrices are cheap there and passes over memory are not, so
plans merge more."""

CACHED = 1 << 20


def rates_of(device: str, numbers: int) -> Rates:
    """The rates of a type of device, as ``torch.device.type`` names it.

    Args:
        device: the type.
        numbers: how many the vectors have in all.
    """
    if device not in ("cpu", "meta"):
        return GPU
    return IN_CACHE if numbers <= CACHED else OUT_OF_CACHE
