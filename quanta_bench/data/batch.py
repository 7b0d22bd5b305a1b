"""The base of all batches."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Tensors that go to a device together."""

    def to(self, device: torch.device | str, **kwargs: Any) -> Self:
        """A copy with every tensor on ``device``."""
        moved: dict[str, Any] = {
            f.name: value.to(device, **kwargs)
            for f in fields(self)
            for value in [getattr(self, f.name)]
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    @property
    def tokens(self) -> int:
        """Real tokens, padding not counted."""
        raise NotImplementedError
