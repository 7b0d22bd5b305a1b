"""Answers that a model writes: their items are the perplexity tasks', their scores sacreBLEU's."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from paths import SHARED_DATA
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_bleu

from quanta_bench.sources.rows import parse_source
from quanta_bench.task import Example, JsonRows, RequestRows, Split
from tasks.written import CPsyCounDWritten, GSM8KWritten, WrittenAnswer

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
ANSWER = "There are 3-1=2 left.\n#### 2"
REPLY = "请讲，您现在感觉怎么样？"
DIALOGUE = {
    "instruction": "我很累。",
    "input": "",
    "output": REPLY,
    "history": [["您好。", "请讲。"]],
}


def item(reference: str) -> Example:
    return Example("1", "1", {"prompt": "", "answer": reference}, references=(reference,))


def score(task: WrittenAnswer, text: str, reference: str) -> dict[str, float]:
    return dict(task.judge_text(item(reference), text).scores)


@pytest.mark.parametrize(
    ("task", "place", "row"),
    [
        (
            GSM8KWritten(),
            RequestRows("gsm8k/gold_bpb_5shot"),
            {"question": "Ann has {} eggs. And 2 more?", "answer": "It is <<2+{}=9>>9.\n#### 9"},
        ),
        (CPsyCounDWritten(), JsonRows("cpsycoun/train.json"), DIALOGUE),
    ],
)
def test_items_are_those_of_the_perplexity_task(
    task: WrittenAnswer, place: Any, row: dict[str, Any], stub: Any
) -> None:
    """So a training on the one is scored by the other without a test item among its own."""

    def numbered(n: int) -> dict[str, Any]:
        if "question" in row:
            return {name: text.replace("{}", str(n)) for name, text in row.items()}
        return row | {"history": [[f"您好。{n}", "请讲。"]]}

    rows = {place: [numbered(n) for n in range(60)]}
    kind = "embedded" if isinstance(place, RequestRows) else "local"
    if kind == "local":
        rows[JsonRows("cpsycoun/test.json")] = [numbered(n) for n in range(100, 104)]
    source = stub(kind, rows)
    for split in SPLITS:
        ours, theirs = task.examples(source, split), task.instructions.examples(source, split)
        assert [(one.id, one.group) for one in ours] == [(one.id, one.group) for one in theirs]
        assert ours
        for one in ours:
            prompt = task.prompt(one, "generate")
            assert prompt == task.instructions.prompt(one, "generate")
            assert prompt.target.strip() == one.references[0]
            # The right answer, generated, is not cut short.
            assert not any(mark in prompt.target for mark in task.stop)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("There are 2 left.\n#### 2", ANSWER),
        ("3-1=2 left. There are", ANSWER),
        ("#### 2", ANSWER),
        ("two", ANSWER),
        ("", ANSWER),
        (ANSWER, ANSWER),
    ],
)
def test_scores_of_english_answers_are_those_of_the_libraries(text: str, reference: str) -> None:
    found = score(GSM8KWritten(), text, reference)
    bleu = sentence_bleu(text, [reference], use_effective_order=True).score / 100
    assert found["bleu"] == pytest.approx(bleu)
    rouge = RougeScorer(["rougeL"], use_stemmer=False).score(reference, text)["rougeL"].fmeasure
    assert found["rouge_l"] == pytest.approx(rouge)
    assert all(0 <= value <= 1 for value in found.values())


def test_chinese_characters_are_words() -> None:
    """Chinese has no spaces: by them a reply would be one word, right or wrong as a whole."""
    text = "您现在感觉如何？"
    found = score(CPsyCounDWritten(), text, REPLY)
    spaced = [" ".join(character for character in one) for one in (text, REPLY)]
    bleu = sentence_bleu(spaced[0], [spaced[1]], tokenize="none", use_effective_order=True).score
    assert found["bleu"] == pytest.approx(bleu / 100)
    # Of 7 and 10 characters without punctuation, 您现在感觉 is common.
    assert found["rouge_l"] == pytest.approx(2 * 5 / (7 + 10))
    assert score(CPsyCounDWritten(), REPLY, REPLY) == {"rouge_l": 1.0, "bleu": 1.0}


def test_no_answer_is_no_prediction() -> None:
    judged = GSM8KWritten().judge_text(item(ANSWER), " \n")
    assert judged.prediction is None
    assert judged.gold == ANSWER
    assert judged.scores == {"rouge_l": 0.0, "bleu": 0.0}


def test_counselling_replies() -> None:
    if not (SHARED_DATA / "cpsycoun").is_dir():
        pytest.skip(f"no dialogues at {SHARED_DATA}")
    task = CPsyCounDWritten()
    items = task.examples(parse_source(f"local:{SHARED_DATA}"), "test")
    assert len(items) == 60
    right = [task.judge_text(one, one.references[0]).scores for one in items]
    other = [task.judge_text(one, two.references[0]).scores for one, two in pairwise(items)]
    assert task.aggregate([task.judge_text(one, one.references[0]) for one in items]) == {
        "bleu": pytest.approx(1.0),
        "rouge_l": 1.0,
    }
    assert all(one["rouge_l"] == 1.0 for one in right)
    assert sum(one["rouge_l"] for one in other) / len(other) < 0.3
