"""Attention for training on a processor: probabilities kept from the forward to the backward pass.

What torch runs there by default (flash attention) keeps no probabilities and computes them again
in the backward pass. That saves memory where rows are long. Where they are short, as those of
most benchmark items are, it costs up to several times what a few matrix products do, most of all
in bfloat16. This module registers the other way with ``transformers`` as an attention
implementation of its own, which leaves every call that it is not made for to ``sdpa``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAME = "quanta_bench_sdpa"
"""The implementation's name; ``transformers`` checks whatever has "sdpa" in it as it does sdpa."""

LONGEST = 192
"""Keys up to which the probabilities are kept.

They take four bytes a head and key for every query: at this length, with heads of size 64 in
bfloat16, about as much again as the default keeps of a layer's attention, and the gain in time
has become small.
"""

# Arguments that change what attention computes and that are left to transformers.
_OTHERS = ("position_bias", "cache", "softcap", "s_aux")


def use_kept_probabilities(model: Any) -> None:
    """Let a model that runs ``sdpa`` run this module's attention; leave any other as it is.

    Args:
        model: a model of ``transformers``; changed in place.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def is_sdpa(model: Any) -> bool:
    """Whether a model's text part runs ``sdpa``, by itself or for the calls left to it here."""
    running = getattr(model.config.get_text_config(), "_attn_implementation", None)
    return running in ("sdpa", NAME)


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
    """Attention with grouped heads, as ``transformers`` calls it.

    Args:
        module: the attention layer; says whether it is causal, where the call does not.
        query: (rows, heads, queries, size), floating.
        key: (rows, key heads, keys, size); heads are a multiple of key heads.
        value: (rows, key heads, keys, value size).
        attention_mask: bool, True where a query may see a key, that broadcasts to (rows, heads,
            queries, keys). Without one, a causal layer sees what stands before.
        dropout: of the probabilities.
        scaling: of the scores; by default one over the root of ``size``.
        is_causal: in place of what the layer says.
        kwargs: anything else that a model hands its attention.

    Returns:
        (rows, queries, heads, value size), in the autocast's dtype or the query's, zero where a
        query may see nothing; and ``None``, for the probabilities.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    queries, keys = query.shape[2], key.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    kept = (
        query.device.type == "cpu"
        and keys <= LONGEST
        and torch.is_grad_enabled()
        and (query.requires_grad or key.requires_grad or value.requires_grad)
        and not dropout
        and (attention_mask is None or attention_mask.dtype is torch.bool)
        # Without a mask, other lengths mean a cache, and sdpa knows what each kind of it means.
        and (attention_mask is not None or queries == keys or not causal)
        and all(kwargs.get(name) is None for name in _OTHERS)
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
    """Softmax attention in float32 or wider, whatever its inputs are.

    The query heads of one key head are rows of one matrix, so that keys and values are never
    repeated and their gradients are summed over the group by the matrix product itself.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        rows, heads, queries, _ = query.shape
        with torch.autocast("cpu", enabled=False):
            left, right, content = (_folded(given, key.shape[1]) for given in (query, key, value))
            scores = torch.bmm(left * scale, right.mT)
            seeing = None
            if mask is not None:
                # Finite, so that a query that may see nothing does not become NaN. Added, since
                # masked_fill_ takes several times as long where the mask is broadcast.
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
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, kept, seeing = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            left, right, content = (_folded(given, key.shape[1]) for given in (query, key, value))
            given = gradients[0].transpose(1, 2)
            given = _folded(given if seeing is None else given * seeing, key.shape[1])
            for_value = torch.bmm(kept.mT, given)
            for_kept = torch.bmm(given, content.mT)
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


def _folded(given: Tensor, groups: int) -> Tensor:
    """(rows, heads, length, size) as (rows * groups, heads / groups * length, size), wide."""
    wide = torch.promote_types(given.dtype, torch.float32)
    rows, heads, length, size = given.shape
    return given.to(wide).reshape(rows * groups, heads // groups * length, size)
