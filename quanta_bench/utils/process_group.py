"""Processes that compute one thing together, and what they tell each other.

Every process of a group makes the same calls in the same order. A group of one, the default
everywhere, makes none: its methods return what they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from quanta_bench.errors import RunKilledError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

CHUNK_ELEMENTS = 1 << 24
"""Elements that are added up in one message, which small tensors share; bounds what is copied."""

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others, which may load data or score longer than it does."""


@dataclass(frozen=True)
class Group:
    """A process's place in its group.

    Attributes:
        rank: its number, from 0.
        size: how many processes there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process decides and writes for the group."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """The items that fall to this process: each item to one, neighbours to different ones."""
        return list(items[self.rank :: self.size])

    def collect(self, own: Sequence[T]) -> list[T]:
        """What all processes made of their shares, an element an item, in the items' order."""
        if self.size == 1:
            return list(own)
        parts = self.gather(list(own))
        whole: list[Any] = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    def agree(self, decide: Callable[[], T]) -> T:
        """What the leading process decides; only there is ``decide`` called."""
        if self.size == 1:
            return decide()
        import torch.distributed as dist

        told: list[Any] = [decide() if self.leads else None]
        with _lost():
            dist.broadcast_object_list(told, src=0)
        return told[0]  # type: ignore[no-any-return]

    def totals(self, numbers: Sequence[int]) -> list[int]:
        """The sum over all processes of each of some whole numbers."""
        return self._reduced(numbers, "SUM")

    def largest(self, number: int) -> int:
        """The largest over all processes of a whole number."""
        return self._reduced([number], "MAX")[0]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, which hold tensors of one shape."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        for message in _messages(tensors):
            whole = torch.cat([tensor.detach().reshape(-1) for tensor in message])
            with _lost():
                dist.all_reduce(whole)
            parts = torch.split(whole, [tensor.numel() for tensor in message])
            for tensor, part in zip(message, parts, strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def copy_from_leader(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by the leading process's."""
        if self.size == 1:
            return
        import torch.distributed as dist

        with _lost():
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def gather(self, own: T) -> list[T]:
        """The value of each process, by rank."""
        if self.size == 1:
            return [own]
        import torch.distributed as dist

        parts: list[Any] = [None] * self.size
        with _lost():
            dist.all_gather_object(parts, own)
        return parts

    def _reduced(self, numbers: Sequence[int], operation: str) -> list[int]:
        if self.size == 1:
            return list(numbers)
        import torch
        import torch.distributed as dist

        # On the host, so that a GPU is not waited for.
        reduced = torch.tensor(numbers, dtype=torch.int64)
        with _lost():
            dist.all_reduce(reduced, op=getattr(dist.ReduceOp, operation))
        return [int(number) for number in reduced.tolist()]


ALONE = Group()
"""A process by itself."""


def joined(rank: int, size: int, meeting: Path) -> Group:
    """Join a group of processes of this machine, until this process ends.

    Args:
        rank: this process's number.
        size: how many take part; all have to join before this returns.
        meeting: a file by which they find each other; it must not exist before.
    """
    import torch
    import torch.distributed as dist

    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
    )
    return Group(rank, size)


@contextmanager
def _lost() -> Iterator[None]:
    """Say that another process is gone, which libraries report in many ways.

    Raises:
        RunKilledError: it is.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RunKilledError(f"Another process of its group ended: {reason}") from error


def _messages(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one dtype and device, in order, that are sent together."""
    kinds = groupby(tensors, key=lambda tensor: (tensor.dtype, tensor.device))
    for _, group in kinds:
        message: list[Tensor] = []
        for tensor in group:
            if message and sum(t.numel() for t in message) + tensor.numel() > CHUNK_ELEMENTS:
                yield message
                message = []
            message.append(tensor)
        if message:
            yield message
