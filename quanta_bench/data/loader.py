"""Batches within a budget of tokens, and how large that budget is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

EVALUATION_TOKENS = 8192
"""Tokens of a batch without gradients on an accelerator, padding counted.

Small models are bound by launches, which larger batches make fewer; where memory runs out, a batch
is computed in halves.
"""

CPU_EVALUATION_TOKENS = 512
"""The same on a processor, whose products are as fast per token from some 250 tokens on.

Larger batches only pad more, and what passes between layers leaves the caches.
"""

TRAINING_TOKENS = 16384
"""Tokens of a micro-batch with gradients on an accelerator, padding counted."""

CPU_TRAINING_TOKENS = 1024
"""The same on a processor, where larger ones are no faster and keep more for the backward pass."""


_halvings = 0


@contextmanager
def halved(times: int) -> Iterator[None]:
    """Let batches and micro-batches have half the tokens, so many times, within the block."""
    global _halvings
    before, _halvings = _halvings, times
    try:
        yield
    finally:
        _halvings = before


def halvings() -> int:
    """How many times batches are halved at the moment."""
    return _halvings


def evaluation_tokens(device: torch.device) -> int:
    """Tokens of a batch without gradients, padding counted."""
    return (CPU_EVALUATION_TOKENS if device.type == "cpu" else EVALUATION_TOKENS) >> _halvings


def training_tokens(device: torch.device) -> int:
    """Tokens of a micro-batch with gradients, padding counted; one long item may have more."""
    return (CPU_TRAINING_TOKENS if device.type == "cpu" else TRAINING_TOKENS) >> _halvings


class Batches(Dataset[Any]):
    """Lists of items, collated when asked for."""

    def __init__(
        self, batches: Sequence[Sequence[Any]], collate: Callable[[Sequence[Any]], Any]
    ) -> None:
        self._batches = batches
        self._collate = collate

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return self._collate(self._batches[index])

    def loader(self, device: torch.device) -> DataLoader[Any]:
        """A loader that yields these batches in order, as they are, for a device to copy."""
        return DataLoader(self, batch_size=None, shuffle=False, pin_memory=device.type == "cuda")
