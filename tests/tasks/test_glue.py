"""GLUE's tasks: what a model sees, how rows are grouped, and the metrics by their definitions."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanta_bench.plugins import find_protocol
from quanta_bench.sources.rows import DataSource, parse_source
from quanta_bench.task import Answer, Example, HubRows, LineRows, SourceError, TsvRows, UsageError
from tasks.glue import MRPC, RTE, SST2, STSB, CoLA, GlueTask

SST2_ROW = {"sentence": "a fine film . ", "label": 1, "idx": 0}
PAIR = {"sentence1": "Rain fell.", "sentence2": "It was wet.", "idx": 0}
MRPC_FILE = {"Quality": "0", "#1 ID": "1", "#2 ID": "2", "#1 String": "Rain.", "#2 String": "Sun."}

TEXT: list[tuple[GlueTask, dict[str, Any], str, str, int]] = [
    (
        SST2(),
        SST2_ROW,
        "a fine film .\nQuestion: Is this sentence positive or negative?\nAnswer:",
        " positive",
        2,
    ),
    (
        RTE(),
        {**PAIR, "label": 0},
        "Rain fell.\nQuestion: It was wet. True or False?\nAnswer:",
        " True",
        2,
    ),
    (
        RTE(),
        {**PAIR, "label": "not_entailment"},
        "Rain fell.\nQuestion: It was wet. True or False?\nAnswer:",
        " False",
        2,
    ),
    (
        MRPC(),
        {**PAIR, "label": 1},
        "Sentence 1: Rain fell.\nSentence 2: It was wet.\n"
        "Question: Do both sentences mean the same thing?\nAnswer:",
        " yes",
        2,
    ),
    (
        MRPC(),
        MRPC_FILE,
        "Sentence 1: Rain.\nSentence 2: Sun.\n"
        "Question: Do both sentences mean the same thing?\nAnswer:",
        " no",
        2,
    ),
    (
        CoLA(),
        {"sentence": "He goed.", "label": "0", "source": "x", "mark": "*"},
        "He goed.\nQuestion: Is this sentence grammatical?\nAnswer:",
        " no",
        2,
    ),
    (
        STSB(),
        {**PAIR, "score": "3.500"},
        "Sentence 1: Rain fell.\nSentence 2: It was wet.\nQuestion: How similar is their meaning, "
        "from 0 (nothing in common) to 5 (the same)?\nAnswer:",
        " 4",
        6,
    ),
]


@pytest.mark.parametrize(("task", "row", "context", "target", "count"), TEXT)
def test_the_text_that_a_model_sees(
    task: GlueTask, row: dict[str, Any], context: str, target: str, count: int
) -> None:
    prompt = task.prompt(task.example(row, "x"), "choice-text")
    assert (prompt.context, prompt.target) == (context, target)
    assert len(prompt.candidates) == count
    assert task.kind == "classify"


@pytest.mark.parametrize(
    ("score", "nearest"), [(0.0, 0), (0.49, 0), (0.5, 1), (2.5, 3), (4.4, 4), (4.5, 5), (5.0, 5)]
)
def test_a_score_between_two_whole_ones_is_trained_towards_the_nearer(
    score: float, nearest: int
) -> None:
    item = STSB().example({**PAIR, "label": score}, "x")
    assert item.gold == nearest
    assert STSB().judge_choice(item, nearest) == Answer(nearest, str(score), {"accuracy": 1.0})
    assert STSB().judge_choice(item, 5 - nearest).scores == {"accuracy": 0.0}


@pytest.mark.parametrize("task", [SST2(), RTE(), MRPC(), CoLA(), STSB()])
def test_hidden_labels_are_not_taken_for_an_index_from_the_end(task: GlueTask) -> None:
    with pytest.raises(ValueError, match="no label"):
        task.example({**PAIR, "sentence": "x", "label": -1}, "x")


def test_pairs_that_ask_the_same_either_way_round_are_one_group() -> None:
    there = {"sentence1": "A dog runs.", "sentence2": "The dog is running.", "label": 1}
    back = {**there, "sentence1": there["sentence2"], "sentence2": there["sentence1"]}
    for task in (MRPC(), STSB()):
        assert task.example(there, "1").group == task.example(back, "2").group
    assert RTE().example(there, "1").group != RTE().example(back, "2").group
    other = {**there, "sentence2": "A cat."}
    assert RTE().example(there, "1").group == RTE().example(other, "2").group


def test_words_that_a_task_does_not_know(stub: Any) -> None:
    with pytest.raises(UsageError, match="choice-text"):
        SST2().prompt(SST2().example(SST2_ROW, "x"), "choice-label")
    with pytest.raises(Exception, match="no label"):
        SST2().prompt(Example("x", "x", {"sentences": ("a",)}), "choice-text")
    for task in (CoLA(), STSB()):
        with pytest.raises(SourceError, match=rf"no rows of {task.title}.*--source hub.*local:DIR"):
            task.examples(stub("embedded", {}), "test")


# --- splits -------------------------------------------------------------------------------------


def test_validation_rows_are_the_test_split_and_their_groups_leave_training(stub: Any) -> None:
    train = [{"sentence": f"film {n} is fine", "label": n % 2} for n in range(60)]
    dev = [{"sentence": text, "label": 0} for text in ("Film 7 is fine!", "new", "newer")]
    hub = [HubRows("nyu-mll/glue", "sst2", split) for split in ("train", "validation")]
    source = stub("hub", dict(zip(hub, (train, dev), strict=True)))
    found = {split: SST2().examples(source, split) for split in ("train", "validation", "test")}
    assert [item.id for item in found["test"]] == [f"sst2/test/{n}" for n in range(3)]
    assert len(found["train"]) + len(found["validation"]) == 59
    assert found["validation"]


# --- metrics ------------------------------------------------------------------------------------


def answers(gold: list[Any], said: list[int]) -> list[Answer]:
    return [Answer(b, a, {"accuracy": float(a == b)}) for a, b in zip(gold, said, strict=True)]


PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


@settings(deadline=None)  # the first call imports the library
@given(PAIRS)
def test_f1_and_matthews_are_those_of_the_counts(pairs: list[tuple[int, int]]) -> None:
    gold, said = [a for a, _ in pairs], [b for _, b in pairs]
    tp, tn = pairs.count((1, 1)), pairs.count((0, 0))
    fp, fn = pairs.count((0, 1)), pairs.count((1, 0))
    f1 = 2 * tp / (2 * tp + fp + fn) if tp else 0.0
    accuracy = (tp + tn) / len(pairs)
    found = MRPC().aggregate(answers(gold, said))
    assert found == pytest.approx({"f1": f1, "accuracy": accuracy})
    spread = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    matthews = (tp * tn - fp * fn) / math.sqrt(spread) if spread else 0.0
    found = CoLA().aggregate(answers(gold, said))
    assert found == pytest.approx({"matthews": matthews, "accuracy": accuracy})


def ranks(values: list[float]) -> list[float]:
    """Places from 1, equals sharing the mean of theirs."""
    return [
        sum(other < value for other in values) + (1 + values.count(value)) / 2 for value in values
    ]


SCORES = st.lists(
    st.tuples(st.integers(0, 50).map(lambda n: n / 10), st.integers(0, 5)), min_size=1, max_size=30
)


@settings(deadline=None)
@given(SCORES)
def test_correlations_are_those_with_the_published_scores(pairs: list[tuple[float, int]]) -> None:
    gold, said = [a for a, _ in pairs], [b for _, b in pairs]
    found = STSB().aggregate(answers([str(score) for score in gold], said))
    expected = [0.0, 0.0]
    if len(set(gold)) > 1 and len(set(said)) > 1:
        expected = [
            np.corrcoef(gold, said)[0, 1],
            np.corrcoef(ranks(gold), ranks([float(score) for score in said]))[0, 1],
        ]
    assert [found["pearson"], found["spearman"]] == pytest.approx(expected, abs=1e-9)


def test_a_main_metric_of_all_answers_is_no_score_of_a_single_one() -> None:
    for task in (MRPC(), CoLA(), STSB()):
        item = task.example({**PAIR, "sentence": "x", "label": 1}, "x")
        assert task.judge_choice(item, 1).scores == {"accuracy": 1.0}
        assert task.metric in task.aggregate([task.judge_choice(item, 1)])


def test_the_level_of_guessing() -> None:
    same = [Example(str(n), str(n), {"sentences": ("a", "b")}, int(n < 280)) for n in range(400)]
    rng = random.Random(0)
    runs = [
        MRPC().aggregate([MRPC().judge_choice(item, rng.randrange(2)) for item in same])["f1"]
        for _ in range(60)
    ]
    level = find_protocol("choice-text").chance(MRPC(), same)
    assert level == pytest.approx(sum(runs) / len(runs), abs=0.01)
    text = find_protocol("choice-text")
    assert text.chance(CoLA(), same) == text.chance(STSB(), same) == 0
    assert text.chance(SST2(), same) == text.chance(RTE(), same) == 0.5
    assert find_protocol("head").chance(RTE(), same) == 0.5
    assert find_protocol("head").chance(STSB(), same) == 0
    assert all(text.chance(task, []) is None for task in (MRPC(), CoLA(), STSB()))


# --- files --------------------------------------------------------------------------------------


def folder(path: Path, text: str) -> DataSource:
    """A local source that holds one file."""
    (path / "rows.tsv").write_bytes(text.encode())
    return parse_source(f"local:{path}")


def test_a_tab_separated_file_is_read_without_quotes(tmp_path: Path) -> None:
    text = '\ufefflabel\tsentence\r\n1\t"He said so.\r\n0\ta\u2028b ""\r\n'
    source = folder(tmp_path, text)
    rows = [{"label": "1", "sentence": '"He said so.'}, {"label": "0", "sentence": 'a\u2028b ""'}]
    assert source.rows(TsvRows("rows.tsv")) == rows
    assert source.read.keys() == {"tsv:rows.tsv"}


def test_a_file_without_a_line_of_names_takes_those_given(tmp_path: Path) -> None:
    # The last line may lack its end, and the last cell may be empty.
    source = folder(tmp_path, "x\t1\ny\t")
    rows = source.rows(TsvRows("rows.tsv", ("source", "label")))
    assert rows == [{"source": "x", "label": "1"}, {"source": "y", "label": ""}]


def test_a_line_of_another_width_is_named(tmp_path: Path) -> None:
    source = folder(tmp_path, "a\tb\n1\n")
    with pytest.raises(SourceError, match=r"rows\.tsv, line 2: 1 cells instead of 2 \(a, b\)"):
        source.rows(TsvRows("rows.tsv"))


def test_lines_are_rows(tmp_path: Path) -> None:
    source = folder(tmp_path, " one \n\n\x0ctwo\u2028x\n")
    rows = source.rows(LineRows("rows.tsv"))
    assert [row["text"] for row in rows] == [" one ", "", "\x0ctwo\u2028x"]
    assert source.read.keys() == {"lines:rows.tsv"}


@pytest.mark.parametrize("location", [TsvRows("a.tsv"), LineRows("a.txt")])
def test_such_files_are_a_folders(location: Any, tmp_path: Path) -> None:
    for kind in ("embedded", "hub"):
        with pytest.raises(SourceError, match=r"does not serve .*--source local:DIR"):
            parse_source(kind).rows(location)
    with pytest.raises(SourceError, match="There is no file"):
        parse_source(f"local:{tmp_path}").rows(location)
