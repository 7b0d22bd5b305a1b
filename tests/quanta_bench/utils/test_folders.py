"""Files and folders are complete or absent, and a disk that cannot be written is one message."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from quanta_bench.errors import StorageError
from quanta_bench.utils import folders
from quanta_bench.utils.folders import check_writable, storage_errors, whole_file, whole_folder

ADVICE = "Make room."


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_half_way(path: Path) -> None:
    with whole_file(path) as stream:
        stream.write(b"half of anoth")
        raise RuntimeError


def like_torch() -> None:
    """An error of a library's own, raised while it handles the system's."""
    try:
        full()
    finally:
        raise RuntimeError("unexpected pos 64 vs 0")


def test_a_file_takes_its_place_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with whole_file(path) as stream:
        stream.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    with pytest.raises(RuntimeError):
        fail_half_way(path)
    assert path.read_bytes() == b"one"
    assert [child.name for child in path.parent.iterdir()] == ["file"]


def test_a_file_may_be_read_by_whom_the_user_allows(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with whole_file(tmp_path / "file"):
            pass
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_everything_is_on_the_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename must not find an empty file under the final name."""
    events: list[str] = []
    sync, move = os.fsync, Path.replace
    rename = Path.rename

    def synced(handle: int) -> None:
        events.append(Path(f"/proc/self/fd/{handle}").readlink().name.partition(".part-")[0])
        sync(handle)

    def moved(plain: object) -> object:
        def method(self: Path, target: Path) -> Path:
            events.append("renamed")
            return plain(self, target)  # type: ignore[operator]

        return method

    monkeypatch.setattr(folders.os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", moved(move))
    monkeypatch.setattr(Path, "rename", moved(rename))
    with whole_file(tmp_path / "file") as stream:
        stream.write(b"x")
    assert events == [".file", "renamed", tmp_path.name]
    events.clear()
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "deep").write_text("x")
        (folder / "flat").write_text("x")
    place = events.index("renamed")
    assert set(events[:place]) == {"inner", "deep", "flat", "folder"}
    assert events[place + 1 :] == [tmp_path.name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_cannot_be_written_is_one_message(tmp_path: Path, number: int) -> None:
    reason = os.strerror(number)
    with (
        pytest.raises(StorageError, match=rf"cannot be written: {reason}\. Make room\."),
        storage_errors(tmp_path, ADVICE),
    ):
        raise OSError(number, reason, str(tmp_path / "file"))


def test_what_libraries_make_of_a_full_disk_is_understood(tmp_path: Path) -> None:
    """torch raises its own error while it handles the system's; safetensors quotes it."""
    with pytest.raises(StorageError, match="No space left"), storage_errors(tmp_path, ADVICE):
        like_torch()
    with pytest.raises(StorageError, match="No space left"), storage_errors(tmp_path, ADVICE):
        raise Exception("I/O error: No space left on device (os error 28)")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broken"), storage_errors(tmp_path, ADVICE):
        raise RuntimeError("broken")
    # Of a model that may not be read, the results folder is not to blame.
    with pytest.raises(PermissionError), storage_errors(tmp_path / "results", ADVICE):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "model" / "x"))


def test_a_folder_is_tried_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_writable(tmp_path / "a" / "b", ADVICE)
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match=rf"{path} cannot be written: Not a directory"):
            check_writable(path, ADVICE)
    monkeypatch.setattr(folders.tempfile, "TemporaryFile", full)
    with pytest.raises(StorageError, match="No space left"):
        check_writable(tmp_path, ADVICE)
