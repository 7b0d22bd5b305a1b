"""Leases: one owner at a time, which ends with its process or its heartbeat."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from clocks import Clock

from quanta_bench.errors import BenchError, RunInProgressError
from quanta_bench.results import leases as module
from quanta_bench.results.leases import Leases, Owner

NAME = "0123abcd4567"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "monotonic", made)
    return made


def write(folder: Path, owner: Owner) -> Path:
    path = folder / f"{NAME}.json"
    path.write_text(owner.model_dump_json())
    return path


def elsewhere(seconds: float = 60.0) -> Owner:
    return Owner(token="t", host="far", machine="another", process=os.getpid(), seconds=seconds)


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lease_has_one_owner_until_it_is_released(tmp_path: Path) -> None:
    here, there = Leases(tmp_path / "leases"), Leases(tmp_path / "leases")
    with here.hold(NAME):
        assert not there.is_free(NAME)
        with (
            pytest.raises(RunInProgressError, match=f"Process {os.getpid()} on .* is computing"),
            there.hold(NAME),
        ):
            pytest.fail("held twice")
        with there.hold("another"):
            assert there.names() == sorted(["another", NAME])
    assert there.is_free(NAME)
    with there.hold(NAME):
        pass
    assert list((tmp_path / "leases").iterdir()) == []


def test_a_lease_ends_with_an_error_too(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    with pytest.raises(KeyError), leases.hold(NAME):
        raise KeyError(1)
    assert leases.is_free(NAME)


def test_the_lease_of_a_process_that_is_gone_has_ended(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    gone = Owner.here().model_copy(update={"process": ended_process()})
    path = write(tmp_path, gone)
    assert leases.is_free(NAME)
    assert not path.exists()
    # On another machine the same number says nothing.
    write(tmp_path, gone.model_copy(update={"machine": "another"}))
    assert not leases.is_free(NAME)


def test_a_lease_of_another_machine_ends_without_heartbeat(tmp_path: Path, clock: Clock) -> None:
    leases = Leases(tmp_path)
    path = write(tmp_path, elsewhere(seconds=30))
    # However old the file is: what counts is how long it was watched.
    os.utime(path, (0, 0))
    assert not leases.is_free(NAME)
    clock.now += 29
    assert not leases.is_free(NAME)
    os.utime(path)  # a heartbeat
    clock.now += 29
    assert not leases.is_free(NAME)
    clock.now += 31
    assert leases.is_free(NAME)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe garbage", b"[1]", b'{"token": 1}'])
def test_a_damaged_lease_ends_like_one_without_heartbeat(
    tmp_path: Path, clock: Clock, content: bytes
) -> None:
    leases = Leases(tmp_path)
    (tmp_path / f"{NAME}.json").write_bytes(content)
    with pytest.raises(RunInProgressError, match="Another process"), leases.hold(NAME):
        pass
    clock.now += module.EXPIRY_SECONDS + 1
    with leases.hold(NAME):
        assert not Leases(tmp_path).is_free(NAME)


def test_the_heart_beats_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    leases = Leases(tmp_path)
    before = threading.active_count()
    with leases.hold(NAME):
        path = tmp_path / f"{NAME}.json"
        os.utime(path, (1, 1))
        end = time.monotonic() + 20
        while path.stat().st_mtime < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > 2
    assert threading.active_count() == before


def test_an_owner_whose_lease_was_taken_stops_and_leaves_it_alone(tmp_path: Path) -> None:
    leases = Leases(tmp_path)

    def be_robbed() -> None:
        with leases.hold(NAME):
            leases.confirm(NAME)
            write(tmp_path, elsewhere())
            leases.check(NAME)  # not known before the next heartbeat
            leases.confirm(NAME)

    with pytest.raises(RunInProgressError, match="taken 0123abcd4567 over"):
        be_robbed()
    assert not leases.is_free(NAME)


def test_errors_of_an_owner_who_was_robbed_are_the_others_success(tmp_path: Path) -> None:
    leases = Leases(tmp_path)

    def be_robbed() -> None:
        with leases.hold(NAME):
            (tmp_path / f"{NAME}.json").unlink()
            leases._held[NAME]._renew()
            raise BenchError("a checkpoint is missing")

    with pytest.raises(RunInProgressError, match="taken 0123abcd4567 over"):
        be_robbed()


def test_the_successor_of_an_ended_lease_stays(tmp_path: Path) -> None:
    """Two watchers see the same ended lease; the slower one must not remove the faster's own."""
    ended = write(tmp_path, elsewhere())
    seen = module._read(ended)
    assert seen is not None
    ended.unlink()
    with Leases(tmp_path).hold(NAME):
        content = ended.read_bytes()
        module._remove(ended, seen, {})
        assert ended.read_bytes() == content
    module._remove(ended, seen, {})  # gone by now
    assert list(tmp_path.iterdir()) == []


def test_a_process_killed_while_it_removed_a_lease_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Owner.here().model_copy(update={"process": ended_process()})
    path = write(tmp_path, gone)
    right = tmp_path / f".{path.name}.part-{gone.token}-removed"
    right.touch()
    leases = Leases(tmp_path)
    os.utime(right, (0, 0))  # by a server whose clock is far behind
    assert not leases.is_free(NAME)  # another process seems to be at it
    assert not leases.is_free(NAME)
    monkeypatch.setattr(module, "EXPIRY_SECONDS", -1.0)
    assert not leases.is_free(NAME)
    assert leases.is_free(NAME)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("links", [True, False])
def test_of_many_who_want_a_lease_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    if not links:
        monkeypatch.setattr(module.os, "link", refuse)
    gone = Owner.here().model_copy(update={"process": ended_process()})
    for round_ in range(20):
        folder = tmp_path / str(round_)
        folder.mkdir()
        if links:
            write(folder, gone)
        start, got, lost = threading.Barrier(6), list[int](), list[int]()
        done = threading.Barrier(6, timeout=20)

        def contend(
            folder: Path = folder,
            start: threading.Barrier = start,
            got: list[int] = got,
            lost: list[int] = lost,
            done: threading.Barrier = done,
        ) -> None:
            leases = Leases(folder)
            start.wait()
            try:
                with leases.hold(NAME):
                    got.append(1)
                    done.wait()
                    leases.confirm(NAME)
                    got.append(2)
            except RunInProgressError:
                lost.append(1)
                done.wait()

        threads = [threading.Thread(target=contend) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [1, 2]
        assert len(lost) == 5
        assert list(folder.iterdir()) == []
