"""Run a causal language model's output layer only at the positions needed, or not at all.

The vocabulary projection is the widest layer of a small model, and most of its outputs would be
discarded. Both functions select positions in a hook on that layer instead of calling the decoder
directly, so the model still does whatever it does between the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn import functional as F

LARGE_LOGIT = 1000.0
"""Magnitude of the logits in the probe: above any soft cap in use."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_unchanged: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether a model returns its output layer's outputs unchanged, as observed on its first batch."""


def output_layer(model: Any) -> nn.Module | None:
    """The layer that computes a model's logits, or ``None`` if the model does not expose one."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return head if isinstance(head, nn.Module) else None


@contextmanager
def outputs_at(model: nn.Module, where: Tensor) -> Iterator[bool]:
    """Restrict the model's output layer to the given positions.

    Whatever else the model does to its logits (soft-capping, scaling) still applies.

    Args:
        model: the model.
        where: (tokens,) int64, positions in the flattened (rows, width).

    Yields:
        Whether the model exposes an output layer to restrict.
    """
    head = output_layer(model)
    if head is None:
        yield False
        return

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = inputs
        return (hidden.flatten(0, 1)[where], *rest)

    handle = head.register_forward_pre_hook(select)
    try:
        yield True
    finally:
        handle.remove()


def hidden_at(
    model: nn.Module, inputs: Mapping[str, Tensor], where: Tensor
) -> tuple[Tensor, nn.Linear] | None:
    """Run a model up to its output layer, which gets an empty input.

    Works only if the layer is plainly linear and the model returns its outputs unchanged. The
    latter is tested on a model's first batch: the layer gets two hidden vectors, one with logits so
    large that a soft cap would show, and the model's logits have to equal the layer's outputs.

    Args:
        model: the model.
        inputs: keyword arguments of its forward pass.
        where: (tokens,) int64, positions in the flattened (rows, width).

    Returns:
        The hidden vectors at ``where``, (tokens, width), and the layer; ``None`` for models to
        which this does not apply.
    """
    head = output_layer(model)
    if not _is_linear(head) or not _unchanged.get(model, True):
        return None
    # Fake tensors hold no values to compare.
    probing = model not in _unchanged and not isinstance(head.weight, FakeTensor)
    random_state = _random_state(head.weight.device) if probing else None
    captured: list[Tensor] = []
    expected: list[Tensor] = []

    def capture(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = arguments[0].flatten(0, 1)[where]
        captured.append(hidden)
        if not probing:
            return (hidden[:0],)
        with torch.no_grad():
            first = hidden[:1]
            size = F.linear(first, head.weight, head.bias).abs().max().clamp_min(1e-3)
            probes = torch.cat([first, first * (LARGE_LOGIT / size)])
            expected.append(F.linear(probes, head.weight, head.bias))
        return (probes,)

    handle = head.register_forward_pre_hook(capture)
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        handle.remove()
    if random_state is not None:
        _unchanged[model] = len(captured) == 1 and _agree(logits, expected[0])
        if not _unchanged[model]:
            # The caller runs the model again and must get the same dropout masks.
            torch.set_rng_state(random_state[0])
            if head.weight.is_cuda:
                torch.cuda.set_rng_state(random_state[1], head.weight.device)
            return None
    return captured[0], head


def _is_linear(head: nn.Module | None) -> TypeGuard[nn.Linear]:
    """Whether a layer is exactly ``torch.nn.Linear``, with plain weights and no hooks."""
    # A subclass, such as quantisation and parametrisation create, may compute anything.
    if type(head) is not nn.Linear or "forward" in vars(head):
        return False
    hooks = (
        head._forward_hooks,
        head._forward_pre_hooks,
        head._backward_hooks,
        head._backward_pre_hooks,
    )
    weights = [head.weight] if head.bias is None else [head.weight, head.bias]
    return not any(hooks) and all(
        type(value) in (nn.Parameter, Tensor, FakeTensor) and value.dtype in FLOATS
        for value in weights
    )


def _random_state(device: torch.device) -> tuple[Tensor, Tensor]:
    """States of the CPU's and the device's random generators; on a CPU, both are the CPU's."""
    host = torch.get_rng_state()
    return host, torch.cuda.get_rng_state(device) if device.type == "cuda" else host


def _agree(logits: Tensor, expected: Tensor) -> bool:
    """Whether logits are equal up to rounding."""
    if logits.shape != expected.shape:
        return False
    rounding = 8 * torch.finfo(expected.dtype).eps
    error = (logits.detach().to(expected.dtype) - expected).abs()
    return bool((error <= rounding * expected.abs().amax(1, keepdim=True)).all())
