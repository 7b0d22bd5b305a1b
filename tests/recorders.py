"""Recorders of decoding steps for a processor, where there are no graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx


def computed_again(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A step is computed again, with what its tensors hold by then."""
    return step


def traced(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """As a graph does, repeats operations and no Python.

    What is not in a tensor stays as it was when the step was recorded.
    """
    step()
    unused = torch.zeros(())
    graph = make_fx(lambda _: step())(unused)
    return lambda: graph(unused)


def not_recorded(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """What a step that waits for the device meets."""
    raise RuntimeError("operation not permitted when stream is capturing")
