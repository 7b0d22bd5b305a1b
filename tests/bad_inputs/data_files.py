"""Files of rows with something wrong in them."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from typing import Any

from bad_inputs.cases import Case, Material

CHOICE: dict[str, Any] = {"prompt": "One and one is", "choices": ["two", "three"], "answer": "two"}
ANSWERED: dict[str, Any] = {"prompt": "One and one is", "target": "two"}
JUNK: tuple[Any, ...] = (
    5,
    True,
    1.5,
    [],
    {},
    [[]],
    [1],
    [True],
    {"a": 1},
    "",
    "  ",
    "\ud800",
    "a\ud83d",
)
LONG = "9" * 5000


def cases(made: Material) -> Iterator[Case]:
    """Every kind of bad file of rows."""
    for number, (name, ending, content) in enumerate([*_json(), *_tables(), *_parquet(made)]):
        path = made.written("rows", f"{number}{ending}", content)
        yield Case(name, _words(made, f"{path}"))
    for name, path in _not_files(made):
        yield Case(name, _words(made, path))
        yield Case(f"{name}, as jsonl", _words(made, path, "jsonl"))


def _words(made: Material, path: str, kind: str = "file") -> tuple[str, ...]:
    return (
        *("run", "--method", "lora", "--task", f"{kind}:{path}"),
        *("--model", f"local:{made.model}", "--results", f"{made.root / 'results'}"),
    )


def _lines(*rows: Any, good: int = 30) -> str:
    first = [{**CHOICE, "prompt": f"{n} and one is"} for n in range(good)]
    return "\n".join(json.dumps(row) for row in [*first, *rows])


def _json() -> Iterator[tuple[str, str, str | bytes]]:
    for key in CHOICE:
        for junk in JUNK:
            if key == "choices" or not (key == "prompt" and junk == ""):
                yield f"rows: {key} is {junk!a}", ".jsonl", _lines({**CHOICE, key: junk})
        less = {name: value for name, value in CHOICE.items() if name != key}
        yield f"rows: no {key}", ".jsonl", _lines(less)
    for junk in JUNK:
        for key in ("target", "answers"):
            row = {"prompt": "One and one is", key: junk}
            rows = [{**ANSWERED, "prompt": f"{n} and"} for n in range(20)]
            yield f"rows: {key} is {junk!a}", ".jsonl", "\n".join(map(json.dumps, [*rows, row]))
        for key in ("group", "split"):
            if key == "group" and junk in (5, "", "  ") and junk is not True:
                continue
            yield f"rows: {key} is {junk!a}", ".jsonl", _lines({**CHOICE, key: junk})
    wrong: dict[str, Any] = {
        "a choice alone": {**CHOICE, "choices": ["two"]},
        "a choice twice": {**CHOICE, "choices": ["two", "two "]},
        "a choice that is null": {**CHOICE, "choices": ["two", None]},
        "half a surrogate as a choice": {**CHOICE, "choices": ["two", "\udc00"]},
        "an answer of no choice": {**CHOICE, "answer": "four"},
        "an answer out of range": {**CHOICE, "answer": 2},
        "an answer below zero": {**CHOICE, "answer": -1},
        "an answer of 5,000 digits": {**CHOICE, "answer": 10**4000},
        "a target of two lines": {"prompt": "x", "target": "a\nb"},
        "a split of no name": {**CHOICE, "split": "dev"},
        "an array as a row": [CHOICE],
        "a text as a row": "a",
        "a number as a row": 5,
        "null as a row": None,
        "an empty row": {},
        "a row of another kind": ANSWERED,
        "a choice and a target": {**CHOICE, "target": "two", "answer": None},
    }
    for name, row in wrong.items():
        yield f"rows: {name}", ".jsonl", _lines(row)
    for number, text in enumerate(_not_json()):
        yield f"rows: not JSON {number}", ".jsonl", text
        if text.strip() and not text.lstrip().startswith(b"["):
            yield (
                f"rows: not JSON after good ones {number}",
                ".jsonl",
                _lines().encode() + b"\n" + text,
            )
    yield "rows: a list that ends", ".json", b"[" + json.dumps(CHOICE).encode()
    yield "rows: a list of numbers", ".json", b"[1, 2]"
    yield "rows: an empty list", ".json", b"[]"
    yield "rows: one row, so no test split", ".jsonl", json.dumps(CHOICE)
    yield (
        "rows: training rows alone",
        ".jsonl",
        "\n".join(json.dumps({**CHOICE, "prompt": f"{n}", "split": "train"}) for n in range(9)),
    )


def _not_json() -> Iterator[bytes]:
    yield from (b"", b" \n\n", b"{", b"nonsense", b"\0", b"\xff\xfe", b"{}{}", b"{'a': 1}")
    yield b"[" * 200_000
    yield b'{"a":' * 200_000
    yield b'{"prompt": ' + b"9" * 5000 + b"}"
    yield b'{"prompt": NaN, "target": Infinity}'
    yield b'{"prompt": "a", "prompt": "b", "target": "c"}'
    yield json.dumps(CHOICE).encode("utf-16")
    yield json.dumps(CHOICE).encode("utf-32")
    yield gzip.compress(json.dumps(CHOICE).encode())
    yield b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94"  # the start of a pickle
    yield b'{"prompt": "\x01", "target": "a"}'


def _tables() -> Iterator[tuple[str, str, str | bytes]]:
    header = "prompt,choices,answer\n"
    good = "".join(f"{n} and,two|three,two\n" for n in range(30))
    wrong = {
        "nothing": "",
        "a header alone": header,
        "a column twice": "prompt,prompt,target\na,b,c\n",
        "a column without a name": "prompt,,target\na,b,c\n",
        "no prompt": "question,target\na,b\n",
        "a row too short": header + good + "a,b\n",
        "a row too long": header + good + "a,b|c,b,d\n",
        "a quote that stays open": header + good + '"a,b|c,b\n',
        "a quote in a cell": header + good + 'a "b" c"d",b|c,b\n"x"y,b|c,b\n',
        "a cell of 200,000 letters": header + good + "x" * 200_000 + ",b|c,b\n",
        "an answer of no choice": header + good + "a,b|c,d\n",
        "an answer out of range": header + good + "a,b|c,7\n",
        "an answer of many digits": header + good + f"a,b|c,{LONG}\n",
        "a choice alone": header + good + "a,b,b\n",
        "a blank prompt": header + good + ",b|c,b\n",
        "choices that are no list": header + good + "a,[b|c,b\n",
        "choices of numbers": header + good + 'a,"[1, 2]",1\n',
        "choices nested deeply": header + good + f"a,{'[' * 5000},b\n",
        "an infinite answer": header + good + "a,b|c,inf\n",
        "a superscript as an index": header + good + "a,b|c,²\n",
        "a split of no name": "prompt,target,split\na,b,trian\n",
    }
    for name, text in wrong.items():
        yield f"CSV: {name}", ".csv", text
        yield f"TSV: {name}", ".tsv", text.replace(",", "\t")
    yield "CSV: not UTF-8", ".csv", (header + good).encode() + b"\xff\xff,b|c,b\n"
    yield "CSV: UTF-16", ".csv", (header + good).encode("utf-16")
    for ending in (
        ".xlsx",
        ".xls",
        ".ods",
        ".gz",
        ".zip",
        ".pkl",
        ".pt",
        ".npy",
        ".arrow",
        ".feather",
    ):
        yield f"a file ending in {ending}", ending, b"PK\x03\x04" + bytes(range(256))


def _parquet(made: Material) -> Iterator[tuple[str, str, bytes]]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    def table(**columns: Any) -> bytes:
        path = made.root / "made.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return path.read_bytes()

    good = table(prompt=[f"{n}" for n in range(30)], target=["a"] * 30)
    yield "Parquet: nothing", ".parquet", b""
    yield "Parquet: text", ".parquet", b"prompt,target"
    yield "Parquet: half a file", ".parquet", good[: len(good) // 2]
    yield "Parquet: without its end", ".parquet", good[:-3]
    yield "Parquet: its end alone", ".parquet", good[-40:]
    for place in range(8, len(good) - 8, max(1, len(good) // 12)):
        # Bits that are not covered by a check may still make rows: this one is always in the end.
        damaged = good[:-8] + (2**31 - 1 - place).to_bytes(4, "little") + good[-4:]
        yield f"Parquet: an end {place} bytes long", ".parquet", damaged
    yield (
        "Parquet: no rows",
        ".parquet",
        table(prompt=pyarrow.array([], "string"), target=pyarrow.array([], "string")),
    )
    yield "Parquet: bytes as prompts", ".parquet", table(prompt=[b"a"] * 30, target=["a"] * 30)
    yield "Parquet: numbers as targets", ".parquet", table(prompt=["a"] * 30, target=[1.5] * 30)
    yield "Parquet: nulls as prompts", ".parquet", table(prompt=[None] * 30, target=["a"] * 30)
    yield "Parquet: no prompt", ".parquet", table(question=["a"] * 30)


def _not_files(made: Material) -> Iterator[tuple[str, str]]:
    folder = made.root / "rows.jsonl"
    folder.mkdir(exist_ok=True)
    loop, lost, pipe = (made.root / f"{name}.jsonl" for name in ("loop", "lost", "pipe"))
    if not loop.is_symlink():
        loop.symlink_to(loop)
        lost.symlink_to(made.root / "nowhere.jsonl")
        os.mkfifo(pipe)
    for name, path in (
        ("a folder", f"{folder}"),
        ("a link to itself", f"{loop}"),
        ("a link to nowhere", f"{lost}"),
        ("a pipe", f"{pipe}"),
        ("zeros without end", "/dev/zero"),
        ("nothing without end", "/dev/null"),
        ("a terminal", "/dev/tty"),
        ("no file", "nowhere.jsonl"),
        ("below a file", f"{made.data}/x.jsonl"),
        ("a name of 300 letters", "x" * 300),
        ("another user's home", "~nobody-such/x.jsonl"),
        ("an address", "https://example.org/x.jsonl"),
        ("a memory", "/proc/self/mem"),
    ):
        yield f"rows: {name}", path
