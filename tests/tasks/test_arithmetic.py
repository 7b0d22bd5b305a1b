"""Word problems: the text that a model sees and learns, the splits, and what sources lack."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quanta_bench.plugins import find_protocol
from quanta_bench.task import HubRows, JsonRows, RequestRows, Source, SourceError, UsageError
from tasks.answers import judge, read_gold
from tasks.arithmetic import (
    GSM8K,
    MAWPS,
    SVAMP,
    AQuA,
    ArithmeticTask,
    BasicArithmetic,
    conclude,
    one_line,
)
from tasks.math10k import Math10K

MATH10K = JsonRows("ft-training_set/math_10k.json")
TESTS: list[type[ArithmeticTask]] = [GSM8K, AQuA, MAWPS, SVAMP]
SPLITS: tuple[Any, ...] = ("train", "validation", "test")

GSM = {
    "question": "Ann has 2 boxes.\nHow many?",
    "answer": "Each has 1/2=<<1/2=.5>>0.5 kg\n\nSo 2,000*<<2000*1=2000>>1 is it.\n#### 2,000",
}
AQUA = {
    "question": "How far is it?",
    "options": ["A)21", "B) 21.5 km", "C)23", "D)24", "E)none"],
    "rationale": "Answer is 23\nCorrect",
    "correct": "C",
}
SVAMP_ROW = {"question_concat": "How many?", "Answer": "145.0", "Equation": "( 1.0 + 2.0 )"}
SUM = {
    "id": "q",
    "question": "Calculate 23 - 5 =",
    "choices": {"text": ["17", "18"], "label": ["A", "B"]},
    "answerKey": "B",
}
ADAPTERS = {
    "instruction": "How many? ",
    "input": "",
    "output": "\nA: Two and two are 4. The answer is 4.",
    "answer": "4.0",
}


@pytest.mark.parametrize(
    ("task", "row", "text"),
    [
        (
            GSM8K(),
            GSM,
            "Question: Ann has 2 boxes. How many?\nAnswer: Each has 1/2=0.5 kg. So 2,000*1 is it. "
            "The answer is 2000.",
        ),
        (
            AQuA(),
            AQUA,
            "Question: How far is it? Answer Choices: (A) 21 (B)  21.5 km (C) 23 (D) 24 (E) none"
            "\nAnswer: Answer is 23. Correct. The answer is C.",
        ),
        (SVAMP(), SVAMP_ROW, "Question: How many?\nAnswer: The answer is 145."),
        (BasicArithmetic(), SUM, "Question: Calculate 23 - 5 =\nAnswer: 18"),
        (
            MAWPS(),
            ADAPTERS,
            "Question: How many?\nAnswer: A: Two and two are 4. The answer is 4.",
        ),
        (
            Math10K("paper"),
            ADAPTERS,
            "How many?\nAnswer: A: Two and two are 4. The answer is 4.",
        ),
        (
            GSM8K("adapters"),
            ADAPTERS,
            "Below is an instruction that describes a task. Write a response that appropriately "
            "completes the request. \n"
            "\n"
            "                ### Instruction:\n"
            "                How many?\n"
            "\n"
            "                ### Response:\n"
            "                A: Two and two are 4. The answer is 4.",
        ),
    ],
)
def test_prompts(task: ArithmeticTask, row: dict[str, Any], text: str) -> None:
    item = task.example(row, "x")
    prompt = task.prompt(item, "generate")
    assert prompt.context + prompt.target == text
    # The space before an answer goes with its first word, in training as in generation.
    assert re.match(r" \S", prompt.target)
    assert not prompt.candidates
    assert task.judge_text(item, prompt.target).scores == {"accuracy": 1.0}


def test_options_are_listed_as_llm_adapters_lists_them(checkout: Source) -> None:
    for row in checkout.rows(JsonRows("dataset/AQuA/test.json")):
        question, listed = row["instruction"].split(" Answer Choices: (A) ")
        parts = re.split(r" \(([B-E])\) ", f"A){listed}")
        options = [parts[0], *(f"{a}){b}" for a, b in zip(parts[1::2], parts[2::2], strict=True))]
        published = {"question": question, "options": options, "rationale": "", "correct": "A"}
        ours = AQuA().example(published, "x").fields["question"]
        assert ours == AQuA().example(row, "x").fields["question"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("\n\nOne.\nTwo\n\n Three \nFour!\nFive:\nSix", "One. Two. Three. Four! Five: Six"),
    ],
)
def test_line_breaks_become_full_stops(text: str, line: str) -> None:
    assert one_line(text) == line


@given(st.text(), st.sampled_from(["12", "-3", "0.25", "B"]))
def test_every_solution_is_one_line_that_ends_in_its_answer(text: str, gold: str) -> None:
    solution = conclude(text, gold)
    assert judge(solution, gold)[1]
    assert len(solution.splitlines()) == 1
    assert conclude(solution, gold) == solution


def test_a_generated_text_is_judged_by_the_kind_of_its_answer() -> None:
    number = Math10K().example(ADAPTERS, "x")
    letter = Math10K().example({**ADAPTERS, "answer": "B"}, "x")
    assert Math10K().judge_text(number, "so it is 4 (B)").scores == {"accuracy": 1.0}
    assert Math10K().judge_text(letter, "so it is 4 (B)").scores == {"accuracy": 1.0}
    wrong = Math10K().judge_text(number, "5")
    assert (wrong.prediction, wrong.gold, wrong.scores) == ("5", "4", {"accuracy": 0.0})
    silent = Math10K().judge_text(letter, "it is 4")
    assert (silent.prediction, silent.gold, silent.scores) == (None, "B", {"accuracy": 0.0})
    assert find_protocol("generate").chance(Math10K(), [number]) is None


def test_bounds_and_stops() -> None:
    for task in (*TESTS, Math10K, BasicArithmetic):
        assert task.stop == ("\n",)
        assert task.max_new_tokens == (16 if task is BasicArithmetic else 256)


def test_references_and_refusals() -> None:
    assert GSM8K("paper").reference == "gsm8k:paper"
    assert GSM8K().reference == "gsm8k"
    with pytest.raises(UsageError, match="Did you mean 'paper'"):
        GSM8K("papper")
    with pytest.raises(UsageError, match="generate"):
        GSM8K("paper").prompt(GSM8K().example(GSM, "x"), "choice-text")


# --- splits -----------------------------------------------------------------------------------


def test_titles_are_the_papers_column_headings() -> None:
    assert [task.title for task in TESTS] == ["GSM8K", "AQuA", "MAWPS", "SVAMP"]


def test_hub_rows(stub: Any) -> None:
    gsm = [{**GSM, "question": f"How many {n}?"} for n in range(200)]
    aqua = [{**AQUA, "question": f"How far {n}?"} for n in range(9)]
    source = stub(
        "hub",
        {
            HubRows("openai/gsm8k", "main", "train"): gsm,
            HubRows("openai/gsm8k", "main", "test"): gsm[:7],
            HubRows("deepmind/aqua_rat", "raw", "train"): aqua,
            HubRows("deepmind/aqua_rat", "raw", "validation"): aqua[:2],
            HubRows("deepmind/aqua_rat", "raw", "test"): aqua[:3],
            HubRows("ChilleD/SVAMP", None, "train"): [SVAMP_ROW] * 8,
            HubRows("ChilleD/SVAMP", None, "test"): [SVAMP_ROW] * 3,
        },
    )
    found = {split: GSM8K().examples(source, split) for split in SPLITS}
    assert len(found["train"]) + len(found["validation"]) == 200
    assert 5 < len(found["validation"]) < 40
    assert [item.id for item in found["test"]] == [f"gsm8k/test/{n}" for n in range(7)]
    assert [len(AQuA().examples(source, split)) for split in SPLITS] == [9, 2, 3]
    assert len(SVAMP().examples(source, "test")) == 3


def test_what_a_source_lacks_is_said(stub: Any) -> None:
    with pytest.raises(SourceError, match=r"MAWPS is not in the source 'hub'; it is in local"):
        MAWPS().examples(stub("hub", {}), "test")
    with pytest.raises(SourceError, match=r"AQuA is not.*it is in hub and local"):
        AQuA().examples(stub("embedded", {}), "test")
    with pytest.raises(SourceError, match=r"not in the embedded data.*work offline"):
        Math10K().examples(stub("embedded", {}), "train")
    with pytest.raises(SourceError, match="no test rows"):
        Math10K().examples(stub("local", {}), "test")


@pytest.mark.parametrize(
    ("task", "row", "words"),
    [
        (GSM8K(), {"question": "Q", "answer": "12"}, "####"),
        (GSM8K(), {"question": "Q", "answer": "#### many"}, "many"),
        (MAWPS(), {"Question": "Q"}, "instruction"),
        (MAWPS(), {**ADAPTERS, "answer": 4.0}, "strip"),
        (AQuA(), {**AQUA, "options": ["21", "22", "23", "24", "25"]}, "does not start"),
        (AQuA(), {**AQUA, "options": ["A)21"]}, "zip"),
    ],
)
def test_a_row_that_does_not_fit_is_named(
    task: ArithmeticTask, row: dict[str, Any], words: str, stub: Any
) -> None:
    place = task.places["local"]
    assert place.test is not None
    with pytest.raises(
        SourceError, match=rf"Row 1 of dataset/.*/test.json.*{task.title} row.*{words}"
    ):
        task.examples(stub("local", {place.test: [row]}), "test")


def test_math10k_holds_400_rows_out_and_keeps_twins_together(stub: Any) -> None:
    rows = [{**ADAPTERS, "instruction": f"How many is {n // 2}?"} for n in range(9919)]
    # Twins differ in case and spaces alone.
    rows[1]["instruction"] = "how  MANY is 0 ?"
    source = stub("local", {MATH10K: rows})
    train, validation = (Math10K().examples(source, split) for split in SPLITS[:2])
    assert (len(train), len(validation)) == (9519, 400)
    assert not {item.group for item in train} & {item.group for item in validation}
    assert len({item.id for item in (*train, *validation)}) == 9919


def test_sums_with_exchanged_operands_are_twins_and_others_are_not() -> None:
    twin = BasicArithmetic().twin
    assert twin("Calculate 5 + 91 =") == twin("Calculate 91 + 5 =")
    assert twin("Calculate 5 * 91 =") == twin("Calculate 91 * 5 =")
    sums = ["5 + 91", "59 + 1", "5 - 91", "91 - 5", "5 / 91", "91 / 5", "5 * 91"]
    assert len({twin(f"Calculate {sum_} =") for sum_ in sums}) == len(sums)


# --- real rows --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "sizes"), [(GSM8K(), (652, 121, 546)), (BasicArithmetic(), (1512, 293, 1195))]
)
def test_embedded_rows(task: ArithmeticTask, sizes: tuple[int, ...], embedded: Source) -> None:
    found = {split: task.examples(embedded, split) for split in SPLITS}
    assert tuple(map(len, found.values())) == sizes
    items = [item for own in found.values() for item in own]
    assert len({item.id for item in items}) == len(items)
    groups = [{item.group for item in own} for own in found.values()]
    assert sum(map(len, groups)) == len(set().union(*groups))
    for item in items:
        target = task.prompt(item, "generate").target
        assert "\n" not in target
        assert task.judge_text(item, target).scores == {"accuracy": 1.0}


def test_embedded_gold_answers_are_those_of_another_reading(embedded: Source) -> None:
    for row in embedded.rows(RequestRows("gsm8k/gold_bpb_5shot")):
        item = GSM8K().example(row, "x")
        assert item.references[0] == row["short_answer"].replace(",", "")
        assert "<<" not in item.fields["solution"]
    for item in BasicArithmetic().examples(embedded, "test"):
        one, sign, other = item.fields["question"].split()[1:4]
        results = {"+": int(one) + int(other), "-": int(one) - int(other)}
        results |= {"*": int(one) * int(other)}
        if sign == "/":
            assert int(one) == int(other) * int(item.references[0])
        else:
            assert results[sign] == int(item.references[0])


@pytest.mark.parametrize(("task", "size"), [(GSM8K(), 1319), (AQuA(), 254), (MAWPS(), 238)])
def test_rows_of_a_checkout(task: ArithmeticTask, size: int, checkout: Source) -> None:
    items = task.examples(checkout, "test")
    assert len(items) == size
    for item in items:
        gold = item.references[0]
        assert read_gold(gold) == gold
        assert judge(gold, gold)[1]
        assert task.judge_text(item, task.prompt(item, "generate").target).scores["accuracy"] == 1


def test_gsm8k_of_a_checkout_is_the_published_one(checkout: Source, embedded: Source) -> None:
    published = {
        task.group: task.references
        for row in embedded.rows(RequestRows("gsm8k/gold_bpb_5shot"))
        for task in [GSM8K().example(row, "x")]
    }
    theirs = {item.group: item.references for item in GSM8K().examples(checkout, "test")}
    shared = published.keys() & theirs.keys()
    assert len(shared) > 1250
    assert all(published[group] == theirs[group] for group in shared)


def test_training_rows_of_a_checkout(checkout: Source, stub: Any) -> None:
    # An older training set of LLM-Adapters in the same form; MATH10K itself is not at hand.
    rows = checkout.rows(JsonRows("ft-training_set/math_data.json"))
    source = stub("local", {MATH10K: rows})
    items = [item for split in SPLITS[:2] for item in Math10K().examples(source, split)]
    assert len(items) == len(rows)
    for item in items:
        target = Math10K().prompt(item, "generate").target
        assert Math10K().judge_text(item, target).scores == {"accuracy": 1.0}
