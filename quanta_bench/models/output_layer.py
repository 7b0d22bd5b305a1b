"""The layer that makes a causal language model's logits: run where it is needed, or not at all.

The vocabulary projection is the widest layer of a small model, and most of what it makes would be
thrown away. Both functions choose in front of it, by a hook, rather than call the decoder alone:
what lies between is then the model's own affair.
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
"""Size of the logits in the probe: larger than any cap on them that is in use."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_alone: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether what a model's output layer says are the model's logits, as found at its first batch."""


def output_layer(model: Any) -> nn.Module | None:
    """The layer that makes a model's logits, if the model tells."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return head if isinstance(head, nn.Module) else None


@contextmanager
def outputs_at(model: nn.Module, where: Tensor) -> Iterator[bool]:
    """Let the model's output layer see only the positions that are read.

    Whatever else the model does to its logits (soft-capping, scaling) stays.

    Args:
        model: the model.
        where: (tokens,) int64, positions in the flattened (rows, width).

    Yields:
        Whether the model has an output layer where this could be done.
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
    """Run a model up to its output layer, which is given nothing to do.

    Only where the layer is linear and nothing besides, and the model does nothing to what the layer
    says. The second is found out at a model's first batch: the layer is given two hidden vectors,
    one of them with logits so large that a cap would show, and the model's logits have to be those
    of the layer.

    Args:
        model: the model.
        inputs: what it takes.
        where: (tokens,) int64, positions in the flattened (rows, width).

    Returns:
        The hidden vectors at ``where``, (tokens, width), and the layer; none for other models.
    """
    head = output_layer(model)
    if not _is_linear(head) or not _alone.get(model, True):
        return None
    # A tensor without content has nothing to compare.
    probing = model not in _alone and not isinstance(head.weight, FakeTensor)
    before = _random_state(head.weight.device) if probing else None
    captured: list[Tensor] = []
    expected: list[Tensor] = []

    def capture(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = given[0].flatten(0, 1)[where]
        captured.append(hidden)
        if not probing:
            return (hidden[:0],)
        with torch.no_grad():
            one = hidden[:1]
            size = F.linear(one, head.weight, head.bias).abs().max().clamp_min(1e-3)
            probes = torch.cat([one, one * (LARGE_LOGIT / size)])
            expected.append(F.linear(probes, head.weight, head.bias))
        return (probes,)

    handle = head.register_forward_pre_hook(capture)
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        handle.remove()
    if before is not None:
        _alone[model] = len(captured) == 1 and _agree(logits, expected[0])
        if not _alone[model]:
            # The caller runs the model again, which has to draw the same dropout.
            torch.set_rng_state(before[0])
            if head.weight.is_cuda:
                torch.cuda.set_rng_state(before[1], head.weight.device)
            return None
    return captured[0], head


def _is_linear(head: nn.Module | None) -> TypeGuard[nn.Linear]:
    """Whether a layer is ``torch.nn.Linear`` with plain weights, and calling it does no more."""
    # A subclass, as quantisation and parametrisation make it, may compute anything.
    if type(head) is not nn.Linear or "forward" in vars(head):
        return False
    hooks = (
        head._forward_hooks,
        head._forward_pre_hooks,
        head._backward_hooks,
        head._backward_pre_hooks,
    )
    values = [head.weight] if head.bias is None else [head.weight, head.bias]
    return not any(hooks) and all(
        type(value) in (nn.Parameter, Tensor, FakeTensor) and value.dtype in FLOATS
        for value in values
    )


def _random_state(device: torch.device) -> tuple[Tensor, Tensor]:
    """States of the generators that a model on a device draws from; twice the same on a CPU."""
    host = torch.get_rng_state()
    return host, torch.cuda.get_rng_state(device) if device.type == "cuda" else host


def _agree(found: Tensor, expected: Tensor) -> bool:
    """Whether logits are equal, but for some roundings."""
    if found.shape != expected.shape:
        return False
    rounding = 8 * torch.finfo(expected.dtype).eps
    error = (found.detach().to(expected.dtype) - expected).abs()
    return bool((error <= rounding * expected.abs().amax(1, keepdim=True)).all())
