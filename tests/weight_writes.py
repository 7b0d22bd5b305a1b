"""Ways to write to weights, of which several leave a tensor's version counter as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

Write = Callable[[Sequence[nn.Parameter]], None]

FACTOR = 0.5


def _by_data(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.data.mul_(FACTOR)


def _by_new_data(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.data = parameter.data * FACTOR


def _by_copy(parameters: Sequence[nn.Parameter]) -> None:
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(parameter * FACTOR)


def _by_foreach(parameters: Sequence[nn.Parameter]) -> None:
    torch._foreach_mul_([parameter.data for parameter in parameters], FACTOR)


def _by_dlpack(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        torch.from_dlpack(parameter.detach()).mul_(FACTOR)


def _by_swap(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        other = nn.Parameter(parameter.detach() * FACTOR, parameter.requires_grad)
        torch.utils.swap_tensors(parameter, other)


def _by_set(parameters: Sequence[nn.Parameter]) -> None:
    with torch.no_grad():
        for parameter in parameters:
            parameter.set_((parameter * FACTOR).clone())


def _by_average(parameters: Sequence[nn.Parameter]) -> None:
    zeros = [torch.zeros_like(parameter) for parameter in parameters]
    for parameter, zero in zip(parameters, zeros, strict=True):
        parameter.data.lerp_(zero, 1 - FACTOR)


def _by_inference(parameters: Sequence[nn.Parameter]) -> None:
    with torch.inference_mode():
        for parameter in parameters:
            parameter.mul_(FACTOR)


def _optimizer(**options: bool) -> Write:
    def write(parameters: Sequence[nn.Parameter]) -> None:
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        torch.optim.AdamW(parameters, lr=0.1, **options).step()
        for parameter in parameters:
            parameter.grad = None

    return write


WRITES: dict[str, Write] = {
    "data": _by_data,
    "new data": _by_new_data,
    "copy_": _by_copy,
    "foreach": _by_foreach,
    "DLPack": _by_dlpack,
    "swap_tensors": _by_swap,
    "set_": _by_set,
    "lerp_": _by_average,
    "inference mode": _by_inference,
    "AdamW": _optimizer(),
    "AdamW, foreach": _optimizer(foreach=True),
    "AdamW, fused": _optimizer(fused=True),
}
