"""Make length-dependent rotary frequencies depend on each row's length, not on the batch's.

"Dynamic" NTK scaling and LongRoPE choose their frequencies by the length of the text. In
``transformers`` that is the length of the batch's longest row, padding included, and for "dynamic"
scaling the longest ever computed. A row's outputs then change with the other rows. Here each row
gets the frequencies of its own length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Types of scaling that depend on the length, as named in configurations."""


def depends_on_length(module: Any) -> bool:
    """Whether a module computes rotary embeddings whose frequencies depend on the length."""
    kinds = getattr(module, "rope_type", None)
    named = kinds.values() if isinstance(kinds, dict) else [kinds]
    return any(
        isinstance(kind, str) and name in kind for kind in named for name in LENGTH_DEPENDENT
    )


def unscaled_length(model: nn.Module) -> int | None:
    """Length in tokens up to which frequencies are constant; ``None`` if they always are."""
    limits = [_unscaled_length(module) for module in model.modules() if depends_on_length(module)]
    return min(limits, default=None)


def _unscaled_length(module: Any) -> int:
    parameters = module.config.rope_parameters
    nested = [value for value in parameters.values() if isinstance(value, dict)] or [parameters]
    original = [
        scaling["original_max_position_embeddings"]
        for scaling in nested
        if "original_max_position_embeddings" in scaling
    ]
    return int(min([*original, module.original_max_seq_len]))


def use_own_lengths(model: nn.Module) -> None:
    """Make rotary frequencies depend on each row's own length; no-op for other models.

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
    """Mixin for a rotary module: computes each row separately and keeps no state between calls."""

    def forward(self, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows = []
        for row in torch.chunk(position_ids, len(position_ids)):
            self._reset()
            rows.append(super().forward(x, row, *args, **kwargs))
        return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))

    def _reset(self) -> None:
        """Restore the frequencies of a short text."""
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
