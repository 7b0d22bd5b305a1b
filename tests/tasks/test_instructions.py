"""Instruction data: the prompts word by word, what is scored, and which rows stay together."""

from __future__ import annotations

import re
from typing import Any

import pytest
from paths import SHARED_DATA

from quanta_bench.sources.rows import parse_source
from quanta_bench.task import Example, HubRows, JsonRows, Prompt, RequestRows, SourceError
from tasks.instructions import CPsyCounD, GSM8KRationales, InstructionTask, R1DistillSFT

SPLITS = ("train", "validation", "test")
R1_ROW = {
    "problem": "What is 1 + 1?\n",
    "reannotated_assistant_content": "<think>\nOne and one.\n</think>\n\n2",
    "solution": "It is 2.",
}
GSM8K_ROW = {
    "question": "Ann has 3 eggs and eats 1. How many are left?",
    "answer": "There are 3-1=<<3-1=2>>2 left.\n#### 2",
    "choices": ["not this"],
}
FIRST_TURN = {"instruction": "您好。", "input": "", "output": "请讲。", "history": []}
SECOND_TURN = {
    "instruction": "我很累。 ",
    "input": "",
    "output": "为什么？",
    "history": [["您好。", "请讲。"]],
}

TEXT: list[tuple[InstructionTask, dict[str, Any], Prompt]] = [
    (
        R1DistillSFT(),
        R1_ROW,
        Prompt(
            "Problem: What is 1 + 1?\nSolution:", target=" <think>\nOne and one.\n</think>\n\n2"
        ),
    ),
    (
        GSM8KRationales(),
        GSM8K_ROW,
        Prompt(
            "Question: Ann has 3 eggs and eats 1. How many are left?\nAnswer:",
            target=" There are 3-1=2 left.\n#### 2",
        ),
    ),
    (CPsyCounD(), FIRST_TURN, Prompt("来访者：您好。\n咨询师：", target="请讲。")),
    (
        CPsyCounD(),
        {**FIRST_TURN, "history": None},
        Prompt("来访者：您好。\n咨询师：", target="请讲。"),
    ),
    (
        CPsyCounD(),
        SECOND_TURN,
        Prompt("来访者：您好。\n咨询师：请讲。\n来访者：我很累。\n咨询师：", target="为什么？"),
    ),
]


@pytest.mark.parametrize(("task", "row", "prompt"), TEXT)
def test_the_text_that_a_model_sees(
    task: InstructionTask, row: dict[str, Any], prompt: Prompt
) -> None:
    assert task.kind == "perplexity"
    assert task.prompt(task.example(row, "x"), "choice-text") == prompt


def test_the_turns_of_a_dialogue_stay_together() -> None:
    task = CPsyCounD()
    assert task.example(FIRST_TURN, "1").group == task.example(SECOND_TURN, "2").group
    other = {**SECOND_TURN, "history": [["早上好。", "请讲。"]]}
    assert task.example(other, "3").group != task.example(SECOND_TURN, "2").group


def test_a_row_without_an_answer_is_named(stub: Any) -> None:
    bad = {**R1_ROW, "reannotated_assistant_content": " \n"}
    place = R1DistillSFT.places["hub"].pool
    source = stub("hub", {place: [R1_ROW, bad]})
    with pytest.raises(SourceError, match=r"Row 2 of .*R1-Distill-SFT row.*answer is empty"):
        R1DistillSFT().examples(source, "train")


@pytest.mark.parametrize("task", [R1DistillSFT(), CPsyCounD()])
def test_embedded_data_point_elsewhere(task: InstructionTask, stub: Any) -> None:
    with pytest.raises(SourceError, match=rf"no rows of {task.title}.*gsm8k_rationales"):
        task.examples(stub("embedded", {}), "train")


def test_the_one_split_of_the_hub_is_cut_by_problem_and_a_copy_of_it_alike(stub: Any) -> None:
    place = HubRows("ServiceNow-AI/R1-Distill-SFT", "v0", "train")
    rows = [{**R1_ROW, "problem": f"What is {n // 2} + 1?"} for n in range(400)]
    sizes = {}
    for kind in ("hub", "local"):
        found = splits(R1DistillSFT(), stub(kind, {place: rows}))
        sizes[kind] = [len(found[split]) for split in SPLITS]
    assert sizes["hub"] == sizes["local"]
    assert sum(sizes["hub"]) == 400
    assert all(size and size % 2 == 0 for size in sizes["hub"])  # both answers on one side


def test_published_test_rows_of_gsm8k_are_the_test_split_and_leave_training(stub: Any) -> None:
    rows = [{**GSM8K_ROW, "question": f"{n}?"} for n in range(50)]
    source = stub(
        "local", {JsonRows("gsm8k/train.jsonl"): rows, JsonRows("gsm8k/test.jsonl"): rows[:3]}
    )
    found = splits(GSM8KRationales(), source)
    assert [item.id for item in found["test"]] == [f"gsm8k_rationales/test/{n}" for n in range(3)]
    assert len(found["train"]) + len(found["validation"]) == 47


def splits(task: InstructionTask, source: Any) -> dict[str, list[Example]]:
    found = {split: task.examples(source, split) for split in SPLITS}  # type: ignore[arg-type]
    ids = [item.id for items in found.values() for item in items]
    assert len(ids) == len(set(ids))
    groups = [{item.group for item in items} for items in found.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    return found


# --- real rows ----------------------------------------------------------------------------------


def test_embedded_rationales(embedded: Any) -> None:
    found = splits(GSM8KRationales(), embedded)
    assert [len(found[split]) for split in SPLITS] == [645, 146, 528]
    numbers = {
        row["question"].strip(): row["short_answer"]
        for row in embedded.rows(RequestRows("gsm8k/gold_bpb_5shot"))
    }
    for item in (item for items in found.values() for item in items):
        answer = item.fields["answer"]
        assert "<<" not in answer
        assert ">>" not in answer
        question = item.fields["prompt"].removeprefix("Question: ").removesuffix("\nAnswer:")
        assert re.fullmatch(rf".+\n#### {re.escape(numbers[question])}", answer, re.DOTALL)


def test_counselling_dialogues() -> None:
    if not (SHARED_DATA / "cpsycoun").is_dir():
        pytest.skip(f"no dialogues at {SHARED_DATA}")
    found = splits(CPsyCounD(), parse_source(f"local:{SHARED_DATA}"))
    assert len(found["train"]) + len(found["validation"]) == 600
    assert len(found["test"]) == 60
    assert 30 < len(found["validation"]) < 90
    for items in found.values():
        for item in items:
            lines = item.fields["prompt"].split("\n")
            assert lines[-1] == "咨询师："
            assert len(lines) >= 2 * (3 + 1)  # every one has three earlier turns or more
