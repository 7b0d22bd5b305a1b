"""Rotary positions whose frequencies depend on a text's length: of each row, and not of the batch.

"Dynamic" NTK scaling and LongRoPE choose their frequencies by the length of the text. In
``transformers`` that is the length of the batch's longest row, padding counted, and of "dynamic"
scaling the longest that was ever computed. A row then has other numbers beside a longer one. Here
each row is given the frequencies of its own length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Kinds of scaling that look at the length, as configurations call them."""


def depends_on_length(module: Any) -> bool:
    """Whether a module makes rotary positions with frequencies that depend on the length."""
    kinds = getattr(module, "rope_type", None)
    named = kinds.values() if isinstance(kinds, dict) else [kinds]
    return any(
        isinstance(kind, str) and mark in kind for kind in named for mark in LENGTH_DEPENDENT
    )


def unscaled_length(model: nn.Module) -> int | None:
    """Tokens up to which no frequency depends on the length; ``None`` where none ever does."""
    limits = [_unscaled_length(module) for module in model.modules() if depends_on_length(module)]
    return min(limits, default=None)


def _unscaled_length(module: Any) -> int:
    parameters = module.config.rope_parameters
    nested = [value for value in parameters.values() if isinstance(value, dict)] or [parameters]
    original = [
        one["original_max_position_embeddings"]
        for one in nested
        if "original_max_position_embeddings" in one
    ]
    return int(min([*original, module.original_max_seq_len]))


def use_own_lengths(model: nn.Module) -> None:
    """Let rotary positions depend on each row's own length; no-op for models where none do.

    Args:
        model: a model of ``transformers``; changed in place.
    """
    modules = [module for module in model.modules() if depends_on_length(module)]
    for module in modules:
        if not isinstance(module, _ByRow):
            kind = type(module)
            module.__class__ = type(kind.__name__, (_ByRow, kind), {})
    if modules:
        model.register_forward_pre_hook(_count_positions, with_kwargs=True)


class _ByRow(nn.Module):
    """Mixed into a rotary module: each row is computed alone, and nothing is kept between calls."""

    def forward(self, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows = []
        for row in torch.chunk(position_ids, len(position_ids)):
            self._forget()
            rows.append(super().forward(x, row, *args, **kwargs))
        return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))

    def _forget(self) -> None:
        """Go back to the frequencies of a short text."""
        for name in [name for name in self._buffers if name.endswith("original_inv_freq")]:
            prefix = name.removesuffix("original_inv_freq")
            original = self._buffers[name]
            if original is not None:
                self._buffers[f"{prefix}inv_freq"] = original.clone()
            if hasattr(self, f"{prefix}max_seq_len_cached"):
                setattr(self, f"{prefix}max_seq_len_cached", self.original_max_seq_len)


def _count_positions(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Number a padded row's tokens, so that padding on the right does not count as length."""
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2 and kwargs.get("position_ids") is None:
        ids = kwargs.get("input_ids")
        if isinstance(ids, Tensor) and ids.shape == mask.shape:
            kwargs = {**kwargs, "position_ids": (mask.long().cumsum(-1) - 1).clamp(min=0)}
    return args, kwargs
