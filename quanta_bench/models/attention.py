"""Attention of this suite: masks made only where needed, and probabilities saved on a CPU.

``transformers`` reads a batch's mask to see whether anything is padded, for which the host has to
wait for a GPU, and then makes a mask between all pairs of positions, for which flash attention has
no kernel. A causal model needs neither where padding is on the right: no token attends to a later
one (:func:`padded_on_the_right`).

torch's default on CPUs, flash attention, recomputes the probabilities in the backward pass. That
saves memory for long rows. For short rows, which most benchmark items are, it can be several times
slower than a few matrix products, especially in bfloat16. This module registers an attention
implementation with ``transformers`` that saves them, and delegates every other call to ``sdpa``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NAME = "quanta_bench_sdpa"
"""The implementation's name; ``transformers`` treats any name that contains "sdpa" like sdpa."""

MAX_KEYS = 192
"""Largest number of keys for which the probabilities are saved.

They take four bytes per head, query and key. At this length, with heads of size 64 in bfloat16,
that about doubles what the default saves of a layer's attention, and the speed-up has become small.
"""

# Arguments that change what attention computes; such calls are delegated.
_DELEGATED = ("position_bias", "cache", "softcap", "s_aux")


def use_kept_probabilities(model: Any) -> None:
    """Switch a model that runs ``sdpa`` to this module's attention; leave other models unchanged.

    On a GPU this also takes cuDNN's attention out of torch's choice, for the whole process: it
    builds a plan for each new shape, and batches of a benchmark have a new shape at almost every
    step. On an H200 those plans took half of a training of SmolLM2-135M.

    Args:
        model: a model of ``transformers``; changed in place.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return
    torch.backends.cuda.enable_cudnn_sdp(False)
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _mask)
    model.set_attn_implementation(NAME)


_right: ContextVar[bool] = ContextVar("padded_on_the_right", default=False)


@contextmanager
def padded_on_the_right() -> Iterator[None]:
    """A block in which causal models get rows whose padding, if any, follows their text."""
    token = _right.set(True)
    try:
        yield
    finally:
        _right.reset(token)


def _mask(**arguments: Any) -> Tensor | None:
    """``sdpa_mask`` of ``transformers``, without the mask of a padding that causality masks.

    Where a model attends to later positions too, ``transformers`` passes
    ``allow_is_causal_skip=False``.
    """
    from transformers.masking_utils import sdpa_mask

    if _right.get() and arguments.get("allow_is_causal_skip", True):
        arguments["attention_mask"] = None
    return sdpa_mask(**arguments)


def is_sdpa(model: Any) -> bool:
    """Whether a model's text part runs ``sdpa``, directly or through this module."""
    implementation = getattr(model.config.get_text_config(), "_attn_implementation", None)
    return implementation in ("sdpa", NAME)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Grouped-query attention with the signature that ``transformers`` expects.

    Args:
        module: the attention layer; its ``is_causal`` applies if the argument is ``None``.
        query: (rows, heads, queries, size), floating.
        key: (rows, key heads, keys, size); heads are a multiple of key heads.
        value: (rows, key heads, keys, value size).
        attention_mask: bool, True where a query may attend to a key; broadcasts to (rows, heads,
            queries, keys). Without a mask, a causal layer attends to earlier positions.
        dropout: dropout rate of the probabilities.
        scaling: factor of the scores; by default ``size ** -0.5``.
        is_causal: overrides the layer's own value.
        kwargs: other arguments that models pass to their attention.

    Returns:
        (rows, queries, heads, value size), in autocast's dtype or the query's, zero where a query
        may attend to nothing; and ``None`` in place of the probabilities.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    queries, keys = query.shape[2], key.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    kept = (
        query.device.type == "cpu"
        and keys <= MAX_KEYS
        and torch.is_grad_enabled()
        and (query.requires_grad or key.requires_grad or value.requires_grad)
        and not dropout
        and (attention_mask is None or attention_mask.dtype is torch.bool)
        # Without a mask, different lengths mean a cache, whose kinds sdpa handles.
        and (attention_mask is not None or queries == keys or not causal)
        and all(kwargs.get(name) is None for name in _DELEGATED)
    )
    if not kept:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
        )
    if attention_mask is not None:
        mask = attention_mask
    elif causal:
        mask = torch.ones(1, 1, queries, keys, dtype=torch.bool).tril()
    else:
        mask = None
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    inputs = (query, key, value, mask, scale)
    return _KeptProbabilities.apply(*inputs), None  # type: ignore[no-untyped-call]


class _KeptProbabilities(torch.autograd.Function):
    """Softmax attention in float32 or wider, whatever the dtype of its inputs.

    The query heads of one key head are stacked as rows of one matrix, so that keys and values are
    never repeated and the matrix product itself sums their gradients over the group.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        rows, heads, queries, _ = query.shape
        with torch.autocast("cpu", enabled=False):
            left, right, content = (_folded(tensor, key.shape[1]) for tensor in (query, key, value))
            scores = torch.bmm(left * scale, right.mT)
            seeing = None
            if mask is not None:
                # Finite, so that a query that may attend to nothing does not give NaN. Added,
                # because masked_fill_ is several times slower with a broadcast mask.
                bias = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
                scores.view(rows, heads, queries, -1).add_(bias)
                seeing = (bias.amax(-1, keepdim=True) == 0).to(scores.dtype)
            kept = scores.softmax(-1)
            output = torch.bmm(kept, content).view(rows, heads, queries, -1)
            if seeing is not None:
                output *= seeing
            ctx.save_for_backward(query, key, value, kept, seeing)
            ctx.scale = scale
            return output.transpose(1, 2).to(query.dtype).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, kept, seeing = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            left, right, content = (_folded(tensor, key.shape[1]) for tensor in (query, key, value))
            gradient = gradients[0].transpose(1, 2)
            gradient = _folded(gradient if seeing is None else gradient * seeing, key.shape[1])
            for_value = torch.bmm(kept.mT, gradient)
            for_kept = torch.bmm(gradient, content.mT)
            for_scores = torch._softmax_backward_data(for_kept, kept, -1, kept.dtype)
            for_query = torch.bmm(for_scores, right).mul_(ctx.scale)
            for_key = torch.bmm(for_scores.mT, left).mul_(ctx.scale)
        return (
            for_query.view(query.shape).to(query.dtype),
            for_key.view(key.shape).to(key.dtype),
            for_value.view(value.shape).to(value.dtype),
            None,
            None,
        )


def _folded(tensor: Tensor, groups: int) -> Tensor:
    """(rows, heads, length, size) as (rows * groups, heads / groups * length, size), widened."""
    wide = torch.promote_types(tensor.dtype, torch.float32)
    rows, heads, length, size = tensor.shape
    return tensor.to(wide).reshape(rows * groups, heads // groups * length, size)
