"""Log-likelihoods of tokens under an output layer, one chunk of the vocabulary at a time.

A model's logits, tokens times vocabulary numbers in float32, and their gradient of the same size
take a large share of a small model's training memory. Neither needs to be stored. The logarithm of
the sum of exponentials can be computed chunk by chunk with a running maximum (M.
Milakov, N. Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867), and so can
the mean of the output vectors under the softmax (as T. Dao et al. do for attention,
arXiv:2205.14135). The log-likelihood of a token depends only on its own hidden vector, and its
gradient is the target's output vector minus that mean, so all that is left for the backward pass is
a product with one number per token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LOGIT_BYTES = {"cpu": 4 << 20}
"""Bytes of float32 logits held at a time: what the cores' caches hold."""

OTHER_LOGIT_BYTES = 64 << 20
"""The same for other devices, which need more work per operation."""

MIN_CHUNK = 1024
"""Smallest number of vocabulary entries in a chunk; smaller products are inefficient."""


def token_log_likelihoods(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Tensor:
    """Log-softmax of ``linear(hidden, weight, bias)`` at the targets, without storing logits.

    Products are in the dtype in which ``torch.nn.functional.linear`` would compute (autocast's
    where it is on), the softmax in float32. Differentiable once, in the first three arguments.

    Args:
        hidden: (tokens, width).
        weight: (vocabulary, width).
        bias: (vocabulary,) or none.
        targets: (tokens,) int64, entries of the vocabulary.

    Returns:
        (tokens,) float32; float64 for float64.
    """
    device = hidden.device.type
    dtype = weight.dtype
    if torch.is_autocast_enabled(device) and dtype is not torch.float64:
        dtype = torch.get_autocast_dtype(device)
    if (
        weight.requires_grad
        and torch.is_grad_enabled()
        and 4 * len(hidden) * len(weight) <= _held(hidden.device)
    ):
        # A few logits are cheaper to store than to recompute for the weight's gradient.
        logits = F.linear(hidden, weight, bias)
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return -F.cross_entropy(wide, targets, reduction="none")
    keep = hidden.requires_grad and torch.is_grad_enabled()
    log_likelihoods: Tensor = _TokenLogLikelihoods.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, dtype, keep
    )
    return log_likelihoods


def _held(device: torch.device) -> int:
    return LOGIT_BYTES.get(device.type, OTHER_LOGIT_BYTES)


class _Parts:
    """Logits of chunks of the vocabulary, one after another in the same memory.

    Allocating memory for each chunk would cost more than the arithmetic: the system has to map and
    clear its pages.
    """

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: Any
    ) -> None:
        self.hidden = hidden.to(dtype)
        self.weight = weight
        self.bias = bias
        self.targets = targets
        self.dtype = dtype
        self.wide = torch.promote_types(dtype, torch.float32)
        tokens, vocabulary = len(hidden), len(weight)
        widest = _held(hidden.device) // (4 * max(1, tokens))
        parts = -(-vocabulary // max(MIN_CHUNK, widest))
        self.width = -(-vocabulary // parts)
        self._wide = hidden.new_empty(tokens * self.width, dtype=self.wide)
        self._narrow = self._wide
        if self.wide is not dtype:
            self._narrow = hidden.new_empty(tokens * self.width, dtype=dtype)

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield each chunk's slice, output vectors and logits, (tokens, chunk), to be modified."""
        for start in range(0, len(self.weight), self.width):
            part = slice(start, min(start + self.width, len(self.weight)))
            vectors = self.weight[part].to(self.dtype)
            shape = (len(self.hidden), len(vectors))
            logits = self._narrow[: shape[0] * shape[1]].view(shape)
            if self.bias is None:
                torch.mm(self.hidden, vectors.T, out=logits)
            else:
                torch.addmm(self.bias[part].to(self.dtype), self.hidden, vectors.T, out=logits)
            wide = self._wide[: shape[0] * shape[1]].view(shape)
            yield part, vectors, wide if wide.dtype == logits.dtype else wide.copy_(logits)

    def narrow(self, values: Tensor) -> Tensor:
        """A chunk's values in the dtype of products; valid until the next chunk."""
        if self.wide is self.dtype:
            return values
        return self._narrow[: values.numel()].view(values.shape).copy_(values)

    def at_targets(self, part: slice, width: int) -> tuple[Tensor, Tensor]:
        """Whether each target is in a chunk, and its index there; both (tokens, 1)."""
        index = (self.targets - part.start)[:, None]
        return (index >= 0) & (index < width), index.clamp(0, width - 1)


class _TokenLogLikelihoods(torch.autograd.Function):
    """See :func:`token_log_likelihoods`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        dtype: torch.dtype,
        keep: bool,
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            parts = _Parts(hidden, weight, bias, targets, dtype)
            tokens = len(hidden)
            # A finite start: a chunk whose logits are all minus infinity adds nothing.
            top = hidden.new_full((tokens, 1), torch.finfo(parts.wide).min, dtype=parts.wide)
            total = torch.zeros_like(top)
            target_logits = torch.zeros_like(top)
            mean = hidden.new_zeros(hidden.shape if keep else (0, 0), dtype=parts.wide)
            product = hidden.new_empty(mean.shape, dtype=dtype)
            for part, vectors, logits in parts:
                inside, index = parts.at_targets(part, len(vectors))
                target_logits = torch.where(inside, logits.gather(1, index), target_logits)
                higher = torch.maximum(top, logits.amax(1, keepdim=True))
                shrunk = (top - higher).exp_()
                top = higher
                logits.sub_(top).exp_()
                total.mul_(shrunk).add_(logits.sum(1, keepdim=True))
                if keep:
                    torch.mm(parts.narrow(logits), vectors, out=product)
                    mean.mul_(shrunk).add_(product)
            normaliser = top + total.log()
            slope = weight[targets].to(parts.wide).sub_(mean.div_(total)) if keep else None
        ctx.dtype = dtype
        kept = (hidden, weight, bias, targets, normaliser)
        others = weight.requires_grad or (bias is not None and bias.requires_grad)
        ctx.save_for_backward(slope, *(kept if others else ()))
        return (target_logits - normaliser)[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        slope, *others = ctx.saved_tensors
        of_hidden, of_weight, of_bias = ctx.needs_input_grad[:3]
        gradients: list[Tensor | None] = [None] * 6
        if of_hidden:
            gradients[0] = gradient[:, None] * slope
        if of_weight or of_bias:
            hidden, weight, bias, targets, normaliser = others
            with torch.autocast(gradient.device.type, enabled=False):
                parts = _Parts(hidden, weight, bias, targets, ctx.dtype)
                column = gradient[:, None].to(parts.wide)
                if of_weight:
                    gradients[1] = torch.empty_like(weight)
                if of_bias:
                    gradients[2] = torch.empty_like(bias)
                for part, vectors, logits in parts:
                    inside, index = parts.at_targets(part, len(vectors))
                    logits.sub_(normaliser).exp_().mul_(-column)
                    logits.scatter_add_(1, index, torch.where(inside, column, 0))
                    if gradients[2] is not None:
                        gradients[2][part] = logits.sum(0)
                    if gradients[1] is not None:
                        gradients[1][part] = parts.narrow(logits).T @ parts.hidden
        return tuple(gradients)
