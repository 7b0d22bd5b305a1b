from __future__ import annotations

import datetime
import hashlib
import os
from pathlib import Path

import pytest

from quanta_bench.utils import fingerprint
from quanta_bench.utils.fingerprint import file_digest, rows_digest, text_digest

LONG_AGO = 1_600_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "_MEMO_BYTES", 0)
    monkeypatch.setattr(fingerprint, "SETTLED_SECONDS", -1.0)
    return tmp_path / "cache"


def test_file_digest_is_sha256_and_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    assert file_digest(file) == hashlib.sha256(b"abc").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "_read", lambda path: "read again")
        assert file_digest(file) == hashlib.sha256(b"abc").hexdigest()


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    os.utime(file, (LONG_AGO, LONG_AGO))
    file_digest(file)
    file.write_bytes(b"xyz")
    os.utime(file, (LONG_AGO, LONG_AGO))
    assert file_digest(file) == hashlib.sha256(b"xyz").hexdigest()


def test_a_fresh_file_is_not_remembered(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_SECONDS", 2.0)
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    file_digest(file)
    assert not list(cache.glob("fingerprints/*"))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"stamp": 1}'])
def test_a_damaged_memo_is_passed_over(tmp_path: Path, cache: Path, damage: str) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    file_digest(file)
    (memo,) = cache.glob("fingerprints/*")
    memo.write_text(damage)
    assert file_digest(file) == hashlib.sha256(b"abc").hexdigest()


def test_a_cache_that_cannot_be_written_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(file / "not a folder"))
    assert file_digest(file) == hashlib.sha256(b"abc").hexdigest()


def test_rows_digest_follows_content_and_order_but_not_key_order() -> None:
    rows = [{"a": 1, "b": "é"}, {"a": None}]
    assert rows_digest(rows) == rows_digest([{"b": "é", "a": 1}, {"a": None}])
    assert rows_digest(rows) != rows_digest(rows[::-1])
    assert rows_digest([{"a": "1"}]) != rows_digest([{"a": 1}])
    assert rows_digest([{"a": datetime.date(2020, 1, 2), "b": b"\0"}])


def test_text_digest_tells_parts_apart() -> None:
    assert text_digest("ab", "c") != text_digest("a", "bc")
