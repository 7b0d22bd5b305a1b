"""Initialisation of gates."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from baselines.tuners.initial import kaiming_


def kaiming_gates_(gates: Iterable[Tensor], generator: torch.Generator) -> None:
    """Initialise gates in place: Kaiming uniform with ``a = sqrt(5)``, each viewed as a matrix.

    For a gate ``(out_m, out_n, in_m, in_n)`` the fan-in is ``in_m in_n``. The paper does not
    specify the initialisation; this is that of its public implementation.
    """
    for gate in gates:
        kaiming_(gate, math.prod(gate.shape[gate.dim() // 2 :]), generator)
