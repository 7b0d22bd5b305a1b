"""A user's own data: what is accepted, what is put to the model, and every complaint."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quanta_bench.data.pools import Pools
from quanta_bench.plugins import find_protocol, find_task
from quanta_bench.sources import rows as sources
from quanta_bench.sources.rows import KeptRows, LocalData
from quanta_bench.task import Prompt, UsageError, UserRows, same_text
from tasks import jsonl
from tasks.jsonl import JsonLines, UserFile

CHOICE = {"prompt": "2 + 2 =", "choices": ["3", "4"], "answer": "4"}
TEXT = {"prompt": "Capital of France?", "target": "Paris"}

Make = Callable[..., JsonLines]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(*rows: Any, text: str | None = None) -> JsonLines:
        path = tmp_path / "mine.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)) if text is None else text, "utf-8")
        return JsonLines(str(path))

    return write


def items(task: JsonLines, stub: Any, rows: list[dict[str, Any]], split: Any = "test") -> Any:
    path = task.reference.removeprefix("jsonl:")
    return task.examples(stub("embedded", {UserRows(path): rows}), split)


def test_choices(make: Make, stub: Any) -> None:
    rows = [{**CHOICE, "split": "test"}, {**CHOICE, "answer": 0, "split": "test"}]
    task = make(*rows)
    assert (task.kind, task.protocols, task.title) == ("choice", ("choice-text",), "mine")
    found = items(task, stub, rows)
    assert [item.gold for item in found] == [1, 0]
    assert task.prompt(found[0], "choice-text") == Prompt("2 + 2 =", (" 3", " 4"), " 4")
    assert task.judge_choice(found[0], 1).scores == {"accuracy": 1.0}
    assert find_protocol("choice-text").chance(task, found) == 0.5


def test_text(make: Make, stub: Any) -> None:
    rows = [
        {**TEXT, "split": "test"},
        {"prompt": "Say", "answers": ["yes", "Yeah"], "split": "test"},
    ]
    task = make(*rows)
    assert (task.kind, task.protocols) == ("generate", ("generate",))
    paris, yes = items(task, stub, rows)
    assert task.prompt(paris, "generate") == Prompt("Capital of France?", target=" Paris")
    assert task.judge_text(paris, " paris\n").scores == {"accuracy": 1.0}
    assert task.judge_text(paris, "Paris!").scores == {"accuracy": 0.0}
    assert task.judge_text(yes, "yeah").scores == {"accuracy": 1.0}
    assert find_protocol("generate").chance(task, [paris]) is None


@pytest.mark.parametrize(
    ("prompt", "choice", "context", "candidate"),
    [
        ("Q:", "a", "Q:", " a"),
        ("Q: ", "a", "Q:", " a"),
        ("Q:", " a", "Q:", " a"),
        ("Q: ", " a", "Q:", " a"),
        ("Q:\n", "a", "Q:\n", "a"),
    ],
)
def test_one_space_between_prompt_and_answer_however_it_was_written(
    make: Make, stub: Any, prompt: str, choice: str, context: str, candidate: str
) -> None:
    rows = [{"prompt": prompt, "choices": [choice, "b"], "answer": 0, "split": "test"}]
    task = make(*rows)
    put = task.prompt(items(task, stub, rows)[0], "choice-text")
    assert (put.context, put.candidates[0]) == (context, candidate)


def test_groups_fall_into_one_split_and_ids_are_row_numbers(make: Make, stub: Any) -> None:
    rows = [{**CHOICE, "prompt": f"p{n}", "group": n // 3} for n in range(150)]
    task = make(*rows)
    found = {split: items(task, stub, rows, split) for split in ("train", "validation", "test")}
    groups = [{item.group for item in own} for own in found.values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 50
    ids = {item.id for own in found.values() for item in own}
    assert ids == {f"jsonl/{n}" for n in range(150)}


def test_rows_of_one_prompt_stay_together(make: Make, stub: Any) -> None:
    rows = [{**CHOICE, "answer": n % 2} for n in range(10)]
    task = make(*rows)
    assert len(items(task, stub, rows, "validation")) == 10
    for split in ("train", "test"):
        with pytest.raises(UsageError, match=f"none of its 10 rows falls into the {split} split"):
            items(task, stub, rows, split)


def test_json_lists_blank_lines_and_odd_line_ends_are_read(make: Make) -> None:
    assert make(text=json.dumps([CHOICE, CHOICE], indent=1)).kind == "choice"
    assert make(text=f"\n{json.dumps(TEXT)}\r\n\n").kind == "generate"
    odd = json.dumps({**TEXT, "prompt": "a\u2028b"}, ensure_ascii=False)
    assert make(text=f"\ufeff{odd}\n{odd}").kind == "generate"


WRONG: list[tuple[Any, str]] = [
    ({"choices": ["a", "b"], "answer": 0}, "line 2: the key 'prompt' is missing"),
    ({"prompt": "x", "choices": ["a", "b"]}, "line 2: the key 'answer' is missing"),
    ({"prompt": "x", "target": "a"}, "line 2: the key 'choices' is missing"),
    ({**CHOICE, "answer": 2}, "line 2: 'answer' is 2, which is neither"),
    ({**CHOICE, "answer": -1}, "line 2: 'answer' is -1"),
    ({**CHOICE, "answer": True}, "line 2: 'answer' is True"),
    ({**CHOICE, "answer": "5"}, "line 2: 'answer' is '5'"),
    ({**CHOICE, "answer": ["4"]}, "line 2: 'answer' is"),
    ({**CHOICE, "choices": ["4", " 4"]}, "line 2: 'choices' holds the same text twice"),
    ({**CHOICE, "choices": ["4"]}, "line 2: 'choices' holds one text"),
    ({**CHOICE, "choices": "34"}, "line 2: 'choices' has to be a list"),
    ({**CHOICE, "choices": [3, 4]}, "line 2: 'choices' has to be a text"),
    ({**CHOICE, "prompt": " "}, "line 2: 'prompt' has to be a text"),
    ({**CHOICE, "split": "test"}, "line 2: either all rows have the key 'split'"),
    ({**CHOICE, "group": [1]}, "line 2: 'group' has to be a text or a whole number"),
    ({**CHOICE, "group": True}, "line 2: 'group' has to be a text or a whole number"),
    ({**CHOICE, "group": "\ud800"}, "line 2: 'group' holds half of a surrogate pair"),
    ({**CHOICE, "prompt": "a \ud83d b"}, "line 2: 'prompt' holds half of a surrogate pair"),
    ({**CHOICE, "choices": ["\udc00", "4"]}, "line 2: 'choices' holds half of a surrogate pair"),
    ({**CHOICE, "answer": None}, "line 2: the key 'answer' is missing"),
    ({**CHOICE, "split": "tset"}, "line 2: 'split' is 'tset'. Did you mean 'test'"),
    (["prompt"], "line 2: not a JSON object"),
]


@pytest.mark.parametrize(("row", "message"), WRONG)
def test_a_wrong_row_is_named(make: Make, row: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(CHOICE, row)
    assert f"mine.jsonl, {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.jsonl holds no rows"),
        (" \n \n", "mine.jsonl holds no rows"),
        ("[]", "mine.jsonl holds no rows"),
        ('{"prompt": "x", "target": "y"}\n{"prompt": ', "mine.jsonl, line 2: "),
        ('[{"prompt": "x"},\n\n {"prompt": ]', "mine.jsonl, line 3: "),
        ('{"prompt": "x"}', "mine.jsonl, line 1: the key 'target' is missing"),
        ('[{"prompt": "x"}]', "mine.jsonl, row 1: the key 'target' is missing"),
        ('{"prompt": "x", "target": "a\\nb"}', "line 1: 'target' holds a line break"),
        ('{"prompt": "x", "answers": []}', "line 1: 'answers' has to be a list"),
    ],
)
def test_a_wrong_file_is_named(make: Make, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(text=text)
    assert message in str(caught.value)


@pytest.mark.parametrize("cell", ["9" * 5000, "2", "-1", "1.0", "[" * 5000])
def test_a_cell_that_is_no_choice_is_named(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"prompt,choices,answer\n1,a|b,0\n2,a|b,{cell}\n3,{cell},0\n")
    with pytest.raises(UsageError, match=r"mine\.csv, line 3: 'answer' is"):
        UserFile(str(path))


@pytest.mark.parametrize("cell", ["[" * 100_000, "[" + "1" * 5000 + "]", "[a|b]"])
def test_a_cell_that_is_no_list_is_named(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"prompt,choices,answer\n1,a|b,0\n2,{cell},0\n")
    with pytest.raises(UsageError, match=r"mine\.csv, line 3: 'choices' has to be"):
        UserFile(str(path))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="jsonl:PATH"):
        JsonLines()
    path = tmp_path / "none.jsonl"
    for task in (JsonLines, UserFile):
        with pytest.raises(UsageError) as said:
            task(str(path))
        assert str(said.value) == f"There is no file {path}."
    with pytest.raises(UsageError, match="is a folder; name a file"):
        JsonLines(str(tmp_path))


def test_a_null_counts_as_absent(make: Make, stub: Any) -> None:
    rows = [{**CHOICE, "prompt": f"p{n}", "group": None, "split": None} for n in range(60)]
    plain = [{**CHOICE, "prompt": f"p{n}"} for n in range(60)]
    for split in ("train", "validation", "test"):
        found = [[item.group for item in items(make(*r), stub, r, split)] for r in (rows, plain)]
        assert found[0] == found[1]
        assert len(found[0]) > 1


def test_a_csv_is_read_as_the_same_json(tmp_path: Path, stub: Any) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "prompt,choices,answer,split,group\n"
        "2 + 2 =,3|4,4,test,\n"
        "2 + 3 =,5|6,0,test,g\n"
        'Say,"[""a|b"", ""c""]",a|b,test,7\n'
    )
    task = UserFile(str(path))
    assert (task.reference, task.kind, task.title) == (f"file:{path}", "choice", "mine")
    from quanta_bench.utils.row_files import read_rows

    rows = [row for _, row in read_rows(str(path))]
    found = task.examples(stub("embedded", {UserRows(str(path)): rows}), "test")
    assert [item.gold for item in found] == [1, 0, 0]
    assert [item.group for item in found] == ["2 + 2 =", "g", "7"]
    assert found[2].fields["choices"] == ("a|b", "c")
    assert [item.id for item in found] == ["file/0", "file/1", "file/2"]


def test_unknown_protocol(make: Make, stub: Any) -> None:
    rows = [{**CHOICE, "split": "test"}]
    task = make(*rows)
    with pytest.raises(UsageError, match="does not support the protocol 'generate'"):
        task.prompt(items(task, stub, rows)[0], "generate")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
KEYS = ("prompt", "choices", "answer", "target", "answers", "split", "group")


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_row_is_accepted_or_refused_in_words(make: Make, row: dict[str, Any]) -> None:
    with contextlib.suppress(UsageError):
        make(row)


@pytest.mark.parametrize("group", [None, "", "  "])
def test_a_null_group_is_none(tmp_path, group):
    """Written as text, every such row would be of one group, and fall into one split."""
    rows = [{"prompt": f"{n}: pick", "choices": ["a", "b"], "answer": 0} for n in range(60)]
    splits = {}
    for name, made in (("absent", rows), ("null", [{**row, "group": group} for row in rows])):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, made)), encoding="utf-8")
        task = JsonLines(str(file))
        splits[name] = {
            split: [item.id for item in task.examples(LocalData(tmp_path), split)]
            for split in ("train", "validation", "test")
        }
    assert splits["null"] == splits["absent"]


@pytest.mark.parametrize("group", [True, 1.5, ["a"], {"a": 1}])
def test_a_group_is_a_name_or_a_number(tmp_path, group):
    file = tmp_path / "d.jsonl"
    file.write_text(json.dumps({"prompt": "p", "target": "a", "group": group}))
    with pytest.raises(UsageError, match=r"line 1: 'group' has to be"):
        JsonLines(str(file))


def test_a_null_split_is_none(tmp_path):
    file = tmp_path / "d.jsonl"
    rows = [{"prompt": f"{n}", "target": "a", "split": None} for n in range(40)]
    file.write_text("\n".join(map(json.dumps, rows)))
    source = LocalData(tmp_path)
    counts = [
        len(JsonLines(str(file)).examples(source, s)) for s in ("train", "validation", "test")
    ]
    assert sum(counts) == 40


@pytest.mark.parametrize(
    ("said", "reference", "right"),
    [
        ("cafe\u0301", "caf\u00e9", True),
        ("\uff21\uff22", "ab", True),
        ("\ufb01n", "FIN", True),
        (" STRASSE ", "straße", True),
        ("cafe", "café", False),
    ],
)
def test_how_unicode_composes_a_text_does_not_count(said, reference, right):
    assert same_text(said, reference) is right


def test_a_file_is_parsed_once_in_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the task is looked up, and however many splits and runs read it."""
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({**CHOICE, "prompt": f"p{n}"}) for n in range(40)))
    calls = {"task": 0, "source": 0}

    def counted(module: Any, who: str) -> None:
        read = module.read_rows

        def reading(name: str) -> Any:
            calls[who] += 1
            return read(name)

        monkeypatch.setattr(module, "read_rows", reading)

    counted(jsonl, "task")
    counted(sources, "source")
    pools = Pools()
    for _ in range(3):
        for split in ("train", "validation", "test"):
            assert find_task(f"jsonl:{path}").title == "mine"
            assert pools.get(f"jsonl:{path}", "embedded", split).examples  # type: ignore[arg-type]
    assert calls == {"task": 1, "source": 1}


def test_each_row_is_made_into_an_item_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the file stays as it is: items are those of the rows that a run is named by."""
    path = tmp_path / "mine.jsonl"
    rows = [{**CHOICE, "prompt": f"p{n}"} for n in range(40)]
    path.write_text("\n".join(map(json.dumps, rows)))
    made: list[str] = []
    example = JsonLines._example

    def counting(task: JsonLines, row: Any, place: str, name: str) -> Any:
        made.append(name)
        return example(task, row, place, name)

    monkeypatch.setattr(JsonLines, "_example", counting)
    task = JsonLines(str(path))

    def everything() -> list[Any]:
        source = KeptRows(LocalData(tmp_path))
        splits = ("train", "validation", "test")
        return [item for split in splits for item in task.examples(source, split)]  # type: ignore[arg-type]

    found = [everything(), everything()]
    assert made == [f"jsonl/{n}" for n in range(40)]
    assert found[0] == found[1]
    # A file that was changed since is read as it is now.
    path.write_text("\n".join(map(json.dumps, [*rows[1:], {**rows[0], "prompt": "new"}])))
    assert {item.fields["prompt"] for item in everything()} == {
        *(f"p{n}" for n in range(1, 40)),
        "new",
    }
