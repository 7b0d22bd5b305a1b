"""Rows of a user's file in every format, against the libraries that write them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from quanta_bench.errors import UsageError
from quanta_bench.utils import row_files
from quanta_bench.utils.row_files import read_rows

ROWS = [
    {"prompt": 'a, "b"\nc', "target": "007"},
    {"prompt": "d\u2028e", "target": "x|y"},
]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"my.{ending}"
    frame = pd.DataFrame(ROWS)
    match ending:
        case "jsonl":
            path.write_text("\n".join(map(json.dumps, ROWS)))
        case "json":
            path.write_text(json.dumps(ROWS))
        case "parquet":
            frame.to_parquet(path)
        case _:
            separator = "," if ending == "csv" else "\t"
            frame.to_csv(path, sep=separator, index=False, encoding="utf-8-sig")
    assert [row for _, row in read_rows(str(path))] == ROWS


def test_a_row_of_several_lines_is_named_by_its_first(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    assert [place for place, _ in read_rows(str(path))] == [f"{path}, line 2", f"{path}, line 4"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"prompt,target\nx", "a.csv, line 2: 1 cells instead of 2"),
        ("a.csv", b"prompt,prompt\nx,y", "a.csv, line 1: it names the columns, each once"),
        ("a.csv", b"prompt,target\n", "a.csv holds no rows"),
        ("a.csv", b'prompt,target\n"x', "a.csv, line 2: "),
        ("a.csv", b"", "a.csv holds no rows"),
        ("a.csv", b"prompt\n\xff", "a.csv is not in UTF-8"),
        ("a.parquet", b"PAR1", "a.parquet is not Parquet"),
        ("a.xlsx", b"PK", "a file of rows is JSON lines (.jsonl)"),
        ("a.txt", b"prompt,target\nx,y", "a.txt, line 1: Expecting value. A file of rows is JSON"),
        ("a.jsonl", b"[" * 100_000, "nested too deeply"),
        ("a.jsonl", b'{"answer": ' + b"1" * 5000 + b"}", "a.jsonl, line 1: a number has too many"),
        ("a.json", b'[\n{"answer": 0, "answer": 1}]', "the key 'answer' appears twice"),
        ("a.jsonl", b'{}\n{"a": {"b": 1, "b": 1}}', "a.jsonl, line 2: the key 'b' appears twice"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_rows(str(path))
    assert message in str(caught.value)


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_rows(str(tmp_path / name))


def test_sources_read_the_same_rows(tmp_path: Path) -> None:
    from quanta_bench.sources.rows import LocalData
    from quanta_bench.task import UserRows

    path = tmp_path / "my.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    found: list[dict[str, Any]] = LocalData(tmp_path).rows(UserRows(str(path)))
    assert found == ROWS


def settled(path: Path, text: str) -> str:
    """Write a file as if long ago; its name."""
    path.write_text(text)
    os.utime(path, (time.time() - 60,) * 2)
    return str(path)


def test_a_file_is_parsed_once_and_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []

    def count(file: Path, path: str, read: Any = row_files._read) -> Any:
        parsed.append(path)
        return read(file, path)

    monkeypatch.setattr(row_files, "_read", count)
    # The time of the last change of an inode cannot be set back.
    monkeypatch.setattr(row_files, "SETTLED_SECONDS", -1.0)
    path = settled(tmp_path / "my.jsonl", '{"prompt": "1"}\n')
    first, second = read_rows(path), read_rows(path)
    assert first == second
    assert first[0][1] is second[0][1]
    first.clear()  # a caller's own list
    assert len(read_rows(path)) == 1
    assert len(parsed) == 1
    (tmp_path / "my.jsonl").write_text('{"prompt": "2"}\n')
    assert read_rows(path)[0][1] == {"prompt": "2"}
    assert len(parsed) == 2
    (tmp_path / "my.jsonl").unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        read_rows(path)


def test_a_file_that_changed_just_now_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    for number in range(20):
        # Of one size, within the resolution of the file system's clock.
        path.write_text(f'{{"prompt": "{number % 10}"}}\n')
        assert read_rows(str(path))[0][1] == {"prompt": str(number % 10)}


def test_one_name_is_another_file_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "SETTLED_SECONDS", -1.0)
    for name in "ab":
        (tmp_path / name).mkdir()
        settled(tmp_path / name / "my.jsonl", f'{{"prompt": "{name}"}}\n')
        monkeypatch.chdir(tmp_path / name)
        assert read_rows("my.jsonl")[0][1] == {"prompt": name}


def test_a_table_in_another_encoding_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_bytes("prompt,target\ncaf\u00e9,coffee\n".encode("cp1252"))
    with pytest.raises(UsageError, match=r"not in UTF-8 \(byte 17 is 0xe9\). Save it as UTF-8"):
        read_rows(str(tmp_path / "my.csv"))


def test_a_long_text_is_one_cell(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text(f"prompt\n{'long ' * 100_000}\n")
    ((_, row),) = read_rows(str(tmp_path / "my.csv"))
    assert len(row["prompt"]) == 500_000
