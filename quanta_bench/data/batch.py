"""The base of all batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors that go to a device together.

    Attributes:
        tokens: number of real tokens, padding not counted; counted on the host, because reading
            it from a device would wait for the device.
    """

    tokens: int

    def to(self, device: torch.device | str, **kwargs: Any) -> Self:
        """A copy with every tensor on ``device``; the host does not wait for a GPU's copies."""
        # In the other direction, the host would read what is not there yet.
        options = {"non_blocking": torch.device(device).type == "cuda", **kwargs}
        return self._with(lambda tensor: tensor.to(device, **options))

    def pin_memory(self) -> Self:
        """A copy in pinned memory, which a GPU reads while the host goes on."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {
            f.name: change(value)
            for f in fields(self)
            for value in [getattr(self, f.name)]
            if isinstance(value, Tensor)
        }
        return replace(self, **changed)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and tokens of each, padding counted."""
        raise NotImplementedError

    @classmethod
    def stack(cls, batches: Sequence[Self]) -> Self:
        """One batch of the rows of several, in order, padded to the longest.

        Raises:
            NotImplementedError: batches of this kind cannot be stacked.
        """
        raise NotImplementedError
