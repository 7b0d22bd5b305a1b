"""Initial gate tensors, drawn from a seed and a name and from nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def generator_for(seed: int, name: str) -> torch.Generator:
    """A CPU generator that depends only on ``seed`` and ``name``.

    The global random state is neither read nor moved, and the order in which modules are adapted
    does not matter.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def kaiming_gates_(gates: Iterable[Tensor], generator: torch.Generator) -> None:
    """Fill gates in place: Kaiming uniform with ``a = sqrt(5)``, each seen as a matrix.

    For a gate ``(out_m, out_n, in_m, in_n)`` the fan-in is ``in_m in_n``, and the bound
    ``sqrt(6 / ((1 + a^2) fan_in)) = 1 / sqrt(fan_in)``. The paper does not say how gates start;
    this is what its public implementation does. Drawn in float32 on the CPU whatever the gate's
    dtype and device, so that the values do not depend on them.
    """
    with torch.no_grad():
        for gate in gates:
            bound = 1 / math.sqrt(_fan_in(gate.shape))
            values = torch.empty(gate.shape, dtype=torch.float32, device="cpu")
            gate.copy_(values.uniform_(-bound, bound, generator=generator))


def _fan_in(shape: Sequence[int]) -> int:
    return math.prod(shape[len(shape) // 2 :])
