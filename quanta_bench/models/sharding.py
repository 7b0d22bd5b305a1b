"""A model whose frozen weights are spread over the processes of a group (FSDP2).

Each process holds a part of every block's frozen weights; they are gathered for the block's passes
and dropped after them. What trains, what stands outside of the blocks (embeddings, the output
layer) and weights that are not floating-point numbers are whole in every process. All processes
therefore have to make the same passes through the model, in the same order.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from quanta_bench.utils.process_group import Group


def shard(model: nn.Module, trained: Collection[nn.Parameter], group: Group) -> None:
    """Spread a model's frozen weights over a group, in place.

    Args:
        model: an adapted model, the same in each process.
        trained: its parameters that train.
        group: the processes.
    """
    # Takes a second to import, and finding finished runs needs none of it.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(kind, (group.size,))
    whole = {id(parameter) for parameter in trained}
    kept = {
        parameter
        for parameter in model.parameters()
        if id(parameter) in whole or not parameter.is_floating_point()
    }
    for block in blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=kept)
    # The root has no weights of its own to spread; it tells the blocks of a pass's begin and end.
    outside = {value for value in model.parameters() if not hasattr(value, "placements")}
    fully_shard(model, mesh=mesh, ignored_params=outside)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The layers that a model repeats: the members of its outermost lists of modules."""
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    return [block for name in outermost for block in model.get_submodule(name).children()]


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`shard` has been here."""
    # FSDP2 makes a subclass of a model's class.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(model, fsdp.FSDPModule)


@contextmanager
def in_step(model: nn.Module, group: Group) -> Iterator[None]:
    """Let the processes of a group make different numbers of passes through a sharded model.

    Inside, a pass without gradients waits until every other process makes one too; at its end, a
    process joins the passes of those that are not there yet, with a token of its own.

    Args:
        model: the model; one that is not sharded needs none of this.
        group: the processes.
    """
    if not is_sharded(model):
        yield
        return

    def count(module: nn.Module, arguments: Any) -> None:
        group.totals([1])

    handle = model.register_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()
    device = next(model.parameters()).device
    token = torch.zeros((1, 1), dtype=torch.int64, device=device)
    # Under autocast any dtypes of base and adapters go together; what comes out is not used.
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        while group.totals([0])[0]:
            model(input_ids=token)
