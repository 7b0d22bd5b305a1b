"""What was computed once is taken from the cache while all that it depends on is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quanta_bench.utils.remembered import code_here, remembered


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(folder))
    return folder


class Counted:
    """Gives a value, and counts how often it was asked."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        return self.value


@pytest.mark.parametrize("value", [None, "", {"dims": [2, 3], "r": 0.1}])
def test_a_value_is_computed_once_whatever_it_is(cache: Path, value: Any) -> None:
    compute = Counted(value)
    assert [remembered("kind", ("a", "b"), compute) for _ in range(3)] == [value] * 3
    assert compute.calls == 1
    assert len(list((cache / "kind").iterdir())) == 1


def test_another_part_is_another_value(cache: Path) -> None:
    compute = Counted(0)
    for parts in (("a", "b"), ("ab",), ("a", "b", ""), ("b", "a")):
        remembered("kind", parts, compute)
    remembered("other kind", ("a", "b"), compute)
    assert compute.calls == 5


def test_the_first_answer_is_that_of_later_ones(cache: Path) -> None:
    """A tuple that is a list the next time would make a row look changed."""
    compute = Counted({"dims": (2, 3)})
    assert remembered("kind", ("a",), compute) == {"dims": [2, 3]}
    assert remembered("kind", ("a",), compute) == {"dims": [2, 3]}


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"null", b'["0", "1"]', b"[1, 2]", b'[["a"], "1"]']
)
def test_a_damaged_file_is_computed_again(cache: Path, content: bytes) -> None:
    compute = Counted([1])
    remembered("kind", ("a",), compute)
    (path,) = (cache / "kind").iterdir()
    whole = path.read_bytes()
    for damaged in (content, whole[:-1], whole.replace(b"[1]", b"[2]")):
        path.write_bytes(damaged)
        assert remembered("kind", ("a",), compute) == [1]
        assert path.read_bytes() == whole
    assert compute.calls == 4


def test_without_a_place_to_write_it_is_computed_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path / "file" / "cache"))
    compute = Counted(3)
    assert [remembered("kind", ("a",), compute) for _ in range(2)] == [3, 3]
    assert compute.calls == 2


def test_an_error_is_not_remembered(cache: Path) -> None:
    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        remembered("kind", ("a",), fail)
    assert remembered("kind", ("a",), lambda: 1) == 1


def test_another_release_of_a_package_is_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("a-1.0", "a-1.1"):
        (tmp_path / name / f"{name}.dist-info").mkdir(parents=True)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / name))
            found.append(code_here.__wrapped__())
    assert len({*found, code_here.__wrapped__()}) == 3
