"""Every operation on a file of a results folder fails in turn: one message, and the same goes on.

Python tells its audit hooks of each operation before it happens, and a hook may refuse it.
"""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from animals import write_data, write_suite
from rich.console import Console

from quanta_bench.errors import StorageError
from quanta_bench.report import render
from quanta_bench.report.tables import make_table
from quanta_bench.results.store import Store
from quanta_bench.runs.sweep import sweep
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.request import Request, make_request

CHANGES = {"os.mkdir", "os.rename", "os.link", "os.utime", "os.truncate", "shutil.copyfile"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVERY = 12
"""Of each so many operations one is failed: a sweep has some hundred of them."""


class FailingDisk:
    """Counts the operations that need room below a folder, and refuses one.

    Attributes:
        count: how many there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._root = ""
        self._place: int | None = None
        self._error = 0
        sys.addaudithook(self._hook)  # for as long as the process lives, so it is idle by default

    @contextmanager
    def failing(self, root: Path, place: int | None, error: int) -> Iterator[None]:
        """Refuse the operation of this number, and all that follow as long as the block runs."""
        self.count = 0
        self._root, self._place, self._error = str(root), place, error
        try:
            yield
        finally:
            self._root = ""

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._root:
            return
        writes = event in CHANGES or (event == "open" and bool(arguments[2] & WRITING))
        paths = [str(one) for one in arguments[:2] if isinstance(one, str | os.PathLike)]
        if not writes or not any(path.startswith(self._root) for path in paths):
            return
        self.count += 1
        if self._place is not None and self.count > self._place:
            raise OSError(self._error, os.strerror(self._error), paths[0])


@pytest.fixture(scope="module")
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture(scope="module")
def request_(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("failing")
    data = write_data(folder, train=8, validation=4, test=8)
    suite = write_suite(folder, data, tiny_model)
    choice = Choice(methods=("lora",), seeds=(0,))
    return make_request(str(suite), "table", "embedded", choice, check=True)


def compute(request: Request, root: Path) -> str:
    """Compute and write the table; its numbers."""
    store = Store(root)
    cells, failed = sweep(request.grid, store, Console(file=io.StringIO()), lambda _: "")
    assert failed == []
    table = make_table(request, cells, store)
    render.write(table, root)
    return render.as_csv(table)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_each_operation_that_fails_is_one_message_and_the_same_command_goes_on(
    disk: FailingDisk, request_: Request, tmp_path: Path, error: int
) -> None:
    with disk.failing(tmp_path / "whole", None, error):
        expected = compute(request_, tmp_path / "whole")
    count = disk.count
    assert count > 20
    kinds = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
    # Each kind of error takes other places; all together take one in EVERY.
    for place in range(EVERY * kinds.index(error), count, EVERY * len(kinds)):
        root = tmp_path / str(place)
        with disk.failing(root, place, error), pytest.raises(StorageError) as raised:
            compute(request_, root)
        message = str(raised.value).replace(str(root), "FOLDER")
        assert message.startswith(f"FOLDER cannot be written: {os.strerror(error)}. Free space")
        assert compute(request_, root) == expected
        assert not list(root.glob("set-aside/*"))
        assert not list(root.glob("*/.*"))


def mounted(folder: Path, *options: str) -> bool:
    """Mount a file system in memory; false where this user may not."""
    words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_a_disk_that_is_too_small_is_one_message_until_there_is_room(
    request_: Request, tmp_path: Path
) -> None:
    """Libraries that write by themselves meet a real full disk, wherever it becomes full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    expected = compute(request_, tmp_path / "whole")
    messages: list[str] = []
    for kilobytes in (16, 40, 60, 90, 120):
        if not mounted(disk, f"size={kilobytes}k"):
            pytest.skip("file systems can be mounted by root alone")
        try:
            try:
                compute(request_, disk / "r")
            except StorageError as error:
                messages.append(str(error))
            assert mounted(disk, "remount", "size=64m")
            assert compute(request_, disk / "r") == expected
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    assert len(messages) >= 2
    start = f"{disk / 'r'} cannot be written: No space left on device. Free space"
    assert all(message.startswith(start) for message in messages)
