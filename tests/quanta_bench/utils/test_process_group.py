"""Shares of a group: each item once, in order; sums over processes, for tensors of every size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quanta_bench.utils import process_group
from quanta_bench.utils.process_group import ALONE, Group, _messages


@given(st.integers(0, 40), st.integers(1, 9))
def test_every_item_falls_to_one_process_and_comes_back_in_its_place(count: int, size: int) -> None:
    items = list(range(count))
    parts = [Group(rank, size).share(items) for rank in range(size)]
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1

    class Gathered(Group):
        def gather(self, own: Any) -> Any:
            assert own == parts[self.rank]
            return parts

    for rank in range(size):
        assert Gathered(rank, size).collect(parts[rank]) == items


def test_a_process_by_itself_talks_to_nobody() -> None:
    assert ALONE.share("abc") == ["a", "b", "c"]
    assert ALONE.collect([1, 2]) == [1, 2]
    assert ALONE.agree(lambda: 5) == 5
    assert ALONE.totals([3, 4]) == [3, 4]
    assert ALONE.largest(-2) == -2
    assert ALONE.gather("x") == ["x"]
    tensor = torch.ones(2)
    ALONE.add_up([tensor])
    ALONE.copy_from_leader([tensor])
    assert tensor.tolist() == [1, 1]


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=12))
def test_messages_hold_every_tensor_once_and_one_dtype_each(shapes: Any) -> None:
    tensors = [torch.zeros(n, dtype=torch.float64 if wide else torch.float32) for n, wide in shapes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process_group, "CHUNK_ELEMENTS", 10)
        messages = list(_messages(tensors))
    assert [id(t) for message in messages for t in message] == [id(t) for t in tensors]
    for message in messages:
        assert len({tensor.dtype for tensor in message}) == 1
        assert len(message) == 1 or sum(tensor.numel() for tensor in message) <= 10


def work(rank: int, meeting: str, found: Any) -> None:
    torch.set_num_threads(1)
    group = process_group.joined(rank, 2, Path(meeting))
    process_group.CHUNK_ELEMENTS = 4
    tensors = [torch.full((n,), float(10**n * (rank + 1))) for n in (1, 3, 6)]
    tensors.append(torch.tensor(0.5, dtype=torch.float64) * (rank + 1))
    group.add_up(tensors)
    start = torch.full((2,), float(rank))
    group.copy_from_leader([start])
    found[rank] = (
        [tensor.reshape(-1)[-1].item() for tensor in tensors],
        start.tolist(),
        group.totals([rank + 1, 10]),
        group.largest(-rank),
        group.collect(group.share(range(5))),
        group.agree(lambda: f"by {rank}"),
    )


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_agree(tmp_path: Path) -> None:
    """Forked, because importing torch anew would take seconds."""
    context = torch.multiprocessing.get_context("fork")
    with context.Manager() as manager:
        found = manager.dict()
        processes = [
            context.Process(target=work, args=(rank, str(tmp_path / "meeting"), found))
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        expected = ([30, 3000, 3000000, 1.5], [0, 0], [3, 20], 0, [0, 1, 2, 3, 4], "by 0")
        assert [found[0], found[1]] == [expected, expected]
