"""Test items in the training data: found across tasks, counted, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quanta_bench.data import overlap
from quanta_bench.data.overlap import Overlaps, Words, words
from quanta_bench.data.pools import Pools
from quanta_bench.errors import UsageError
from quanta_bench.spec import EvaluationSpec, TrainingSpec
from quanta_bench.task import Example, Prompt, Task


class Questions(Task):
    """Questions in fields; the prompt wraps them in a template."""

    name = "questions"
    title = "Questions"
    kind = "generate"

    def examples(self, source, split):
        raise NotImplementedError

    def prompt(self, example: Example, protocol: str) -> Prompt:
        return Prompt(f"Read this.\n{example.fields['question'].replace('[x]', '')}\nAnswer:")

    def judge_text(self, example: Example, text: str):
        raise NotImplementedError


def item(name: str, question: str, **fields: str) -> Example:
    return Example(name, name, {"question": question, **fields})


TASK = Questions()
LONG = "Natalia sold clips to 48 of her friends in April, and then half as many clips in May"


def found(train: list[Example], test: list[Example]) -> list[str]:
    made = overlap.overlapping([(TASK, train)], "generate", {"t": (TASK, test)}, "generate")
    return made["t"]


@pytest.mark.parametrize(
    "copy",
    [
        LONG,
        LONG.upper(),
        LONG.replace(",", " ; ").replace(" ", "  "),
        f"A word problem. {LONG}. How many did she sell?",
        LONG.replace("sold clips", "sold [x]clips"),
        LONG.replace("in May", "in June"),
        LONG.replace("a", "\N{FULLWIDTH LATIN SMALL LETTER A}"),
    ],
)
def test_copies_are_found(copy: str) -> None:
    assert found([item("a", "another question"), item("b", copy)], [item("c", LONG)]) == ["c"]


def test_a_text_under_another_field_of_another_task_is_found() -> None:
    train = [Example("a", "a", {"instruction": LONG, "question": "short"})]
    assert found(train, [item("c", LONG)]) == ["c"]


@pytest.mark.parametrize(
    "other",
    [
        "Weng earns 12 dollars an hour for babysitting; yesterday she did 50 minutes of it",
        LONG.replace("48", "13").replace("half", "twice").replace("friends", "sisters"),
        LONG[: len(LONG) // 2],
    ],
)
def test_other_texts_are_not(other: str) -> None:
    assert found([item("b", other)], [item("c", LONG)]) == []


def test_short_items_are_compared_as_a_whole_with_their_operators() -> None:
    train = [item("a", "68 * 7 ="), item("b", "3 + 4 =")]
    assert found(train, [item("c", "68 + 7 ="), item("d", "3 + 4 =")]) == ["d"]


def test_answers_that_items_share_do_not_count() -> None:
    answer = "the answer is none of those that have been given in the list above"
    train = [item("a", "who was the first to cross the sea in a small boat alone", choice=answer)]
    assert found(train, [item("c", LONG, choice=answer)]) == []


@given(st.lists(st.text(max_size=60), max_size=5))
def test_every_text_is_found_in_itself(texts: list[str]) -> None:
    items = [item(str(n), text) for n, text in enumerate(texts)]
    assert found(items, items) == sorted(one.id for one in items)


def held(test: Words, train: Words) -> bool:
    """The definition, without an index: the share of a text's sequences that another one holds."""
    sequences = [
        {text[n : n + overlap.SHINGLE] for n in range(len(text) - overlap.SHINGLE + 1)}
        for text in (test, train)
    ]
    return len(sequences[0] & sequences[1]) >= overlap.NEAR * len(sequences[0])


letters = st.text(alphabet="abc", min_size=overlap.LONG, max_size=24)


@given(
    st.lists(letters, min_size=1, max_size=8),
    st.lists(letters, min_size=1, max_size=8),
    st.text(alphabet="abc", max_size=24),
)
def test_the_same_texts_are_found_as_by_comparing_all(
    train: list[str], test: list[str], common: str
) -> None:
    """Of few words, so that parts repeat, and with one beginning, as of an instruction."""
    train, test = ([" ".join(common + text) for text in texts] for texts in (train, test))
    index = overlap._Index(map(words, test))
    for text in train:
        index.add([text])
    expected = {
        one for one in map(words, test) if any(held(one, other) for other in map(words, train))
    }
    assert index.again == expected


@pytest.mark.parametrize("share", [0, 30, 74, 76, 90])
def test_what_all_items_share_is_not_compared_item_by_item(
    share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items of a hundred words of which so many are an instruction, or nearly all of it."""
    instruction = " ".join(f"i{n}" for n in range(share))

    def texts(name: str, count: int) -> list[str]:
        return [
            f"{instruction} " + " ".join(f"{name}{k}w{n}" for n in range(100 - share))
            for k in range(count)
        ]

    index = overlap._Index(map(words, texts("test", 200)))
    calls = 0
    shingles = overlap._shingles

    def count(text: Words) -> frozenset[Words]:
        nonlocal calls
        calls += 1
        return shingles(text)

    monkeypatch.setattr(overlap, "_shingles", count)
    index.add(texts("train", 200))
    assert len(index.again) == (200 if share > 80 else 0)
    # Each training text once, and a test text until it is found; all pairs would be 40,000.
    assert calls <= 400


@given(st.text(), st.text())
def test_words_do_not_depend_on_case_and_spacing(one: str, other: str) -> None:
    assert words(f"{one} {other}") == words(f"  {one}\n\t{other} ")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    lines = []
    for split, count in (("train", 40), ("validation", 4), ("test", 40)):
        for n in range(count):
            text = f"How many apples does number {n} of {split} have after {n + 7} more came in"
            lines.append({"prompt": text, "target": str(n), "split": split})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def specs(rows: Path) -> tuple[TrainingSpec, EvaluationSpec]:
    task = f"file:{rows}"
    return (
        TrainingSpec(
            method="lora", tasks=(task,), protocol="generate", loss="answer", learning_rate=0.1
        ),
        EvaluationSpec(tasks=(task,), protocol="generate"),
    )


def copy_test_rows(rows: Path, count: int) -> None:
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    test = [line for line in lines if line["split"] == "test"]
    lines += [{**line, "split": "train"} for line in test[:count]]
    rows.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_copied_rows_are_counted_and_too_many_are_refused(rows: Path) -> None:
    training, evaluation = specs(rows)
    clean = Overlaps(Pools())
    assert clean.of(training, evaluation) == {evaluation.tasks[0]: []}
    clean.check(training, evaluation)
    copy_test_rows(rows, 10)
    copied = Overlaps(Pools())
    assert len(copied.of(training, evaluation)[evaluation.tasks[0]]) == 10
    with pytest.raises(UsageError, match=r"10 of the 40 test items of .* are in the training data"):
        copied.check(training, evaluation)


def test_scored_validation_items_are_compared_with_what_is_trained_on_alone(rows: Path) -> None:
    training, evaluation = specs(rows)
    scored = evaluation.model_copy(update={"split": "validation"})
    assert Overlaps(Pools()).of(training, scored) == {scored.tasks[0]: []}
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    copies = [{**line, "split": "train"} for line in lines if line["split"] == "validation"]
    rows.write_text("".join(f"{json.dumps(line)}\n" for line in lines + copies))
    assert len(Overlaps(Pools()).of(training, scored)[scored.tasks[0]]) == 4


def test_damage_in_the_cache_is_computed_again(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path / "cache"))
    copy_test_rows(rows, 3)
    expected = Overlaps(Pools()).of(*specs(rows))
    (path,) = (tmp_path / "cache" / overlap.FOLDER).iterdir()
    whole = path.read_bytes()
    calls = []
    compute = overlap.overlapping
    monkeypatch.setattr(overlap, "overlapping", lambda *a: calls.append(1) or compute(*a))
    assert Overlaps(Pools()).of(*specs(rows)) == expected
    assert not calls
    for damaged in (b"", whole[: len(whole) // 2], whole.replace(b"rows", b"r0ws"), b"[]"):
        path.write_bytes(damaged)
        assert Overlaps(Pools()).of(*specs(rows)) == expected
    assert len(calls) == 4
