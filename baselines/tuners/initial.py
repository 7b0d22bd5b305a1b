"""Initial values of adapters, which depend only on a seed and a name.

Values are sampled in float32 on the CPU, so that they do not depend on the dtype and device of the
tensor they initialise.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor


def generator_for(seed: int, name: str) -> torch.Generator:
    """A CPU generator that depends only on ``seed`` and ``name``.

    The global random state is neither read nor changed, and the order in which modules are adapted
    does not matter.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@torch.no_grad()
def uniform_(tensor: Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill with values uniform in ``[-bound, bound]``."""
    values = torch.empty(tensor.shape, dtype=torch.float32, device="cpu")
    tensor.copy_(values.uniform_(-bound, bound, generator=generator))


@torch.no_grad()
def normal_(tensor: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill with normal values of mean 0 and standard deviation ``std``."""
    values = torch.empty(tensor.shape, dtype=torch.float32, device="cpu")
    tensor.copy_(values.normal_(0.0, std, generator=generator))


def kaiming_(tensor: Tensor, fan_in: int, generator: torch.Generator) -> None:
    """Kaiming uniform with ``a = sqrt(5)``, as in `torch.nn.Linear` and LoRA.

    The bound is ``sqrt(6 / ((1 + a^2) fan_in)) = 1 / sqrt(fan_in)``.
    """
    uniform_(tensor, 1 / math.sqrt(fan_in), generator)
