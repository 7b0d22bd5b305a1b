"""How gates start."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from baselines.tuners.initial import kaiming_


def kaiming_gates_(gates: Iterable[Tensor], generator: torch.Generator) -> None:
    """Fill gates in place: Kaiming uniform with ``a = sqrt(5)``, each seen as a matrix.

    For a gate ``(out_m, out_n, in_m, in_n)`` the fan-in is ``in_m in_n``. The paper does not say
    how gates start; this is what its public implementation does.
    """
    for gate in gates:
        kaiming_(gate, math.prod(gate.shape[gate.dim() // 2 :]), generator)
