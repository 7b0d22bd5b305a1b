"""The exact text that a model sees, written out by hand, for each task and protocol."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from quanta_bench.models.embedded import converted_folder
from quanta_bench.plugins import find_protocol
from quanta_bench.task import Example, Prompt, UsageError
from tasks.arc import ArcChallenge, ArcEasy
from tasks.boolq import BoolQ
from tasks.commonsense import CommonsenseTask
from tasks.hellaswag import HellaSwag, clean
from tasks.openbookqa import OpenBookQA
from tasks.piqa import PIQA
from tasks.siqa import SIQA
from tasks.winogrande import WinoGrande

BOOLQ = {"question": "is rain wet", "passage": "Rain is water.", "answer": True}
PIQA_ROW = {"goal": "Dry a cup", "sol1": "use a towel", "sol2": "use soup", "label": 0}
SIQA_ROW = {
    "context": "Kim fell.",
    "question": "How would Kim feel?",
    "answerA": "glad",
    "answerB": "hurt",
    "answerC": "rich",
    "label": "2",
}
ACTIVITYNET = {
    "activity_label": "Surfing",
    "ctx_a": "A man  paddles out.",
    "ctx_b": "the man McCoy",
    "endings": ["stands up.", "eats.", "sings.", "reads."],
    "source_id": "activitynet~1",
    "label": "0",
}
WIKIHOW = {
    "activity_label": "Health",
    "ctx_a": "[header] How to rest [title] Sit down. [step] Find a chair.",
    "ctx_b": "",
    "endings": ["Sit. [substeps] Wait. [title] Rise", "Run.", "Hop.", "Fly."],
    "source_id": "wikihow~1",
    "label": "0",
}
WINOGRANDE = {
    "sentence": "The cup missed the box because the _ was small.",
    "option1": "cup",
    "option2": "box",
    "answer": "2",
}
ARC = {
    "id": "1",
    "question": "What is ice?",
    "choices": {"text": ["fire", "water", "air", "oil", "tin"], "label": list("12345")},
    "answerKey": "2",
}
OBQA = {
    "id": "1",
    "question_stem": "The sun",
    "choices": {"text": ["shines", "sinks"], "label": ["A", "B"]},
    "answerKey": "A",
}


def put(task: CommonsenseTask, row: dict[str, Any], protocol: str) -> Prompt:
    return task.prompt(task.example(row, "x"), protocol)


TEXT: list[tuple[CommonsenseTask, dict[str, Any], str, tuple[str, ...], int]] = [
    (BoolQ(), BOOLQ, "Question: is rain wet?\nAnswer:", (" no", " yes"), 1),
    (
        BoolQ("with_passage"),
        BOOLQ,
        "Rain is water.\nQuestion: is rain wet?\nAnswer:",
        (" no", " yes"),
        1,
    ),
    (PIQA(), PIQA_ROW, "Question: Dry a cup\nAnswer:", (" use a towel", " use soup"), 0),
    (
        SIQA(),
        SIQA_ROW,
        "Kim fell.\nQuestion: How would Kim feel?\nAnswer:",
        (" glad", " hurt", " rich"),
        1,
    ),
    (
        HellaSwag(),
        ACTIVITYNET,
        "Surfing: A man paddles out. The man McCoy",
        (" stands up.", " eats.", " sings.", " reads."),
        0,
    ),
    (
        HellaSwag(),
        WIKIHOW,
        "Health: How to rest. Sit down. Find a chair.",
        (" Sit. Wait.. Rise", " Run.", " Hop.", " Fly."),
        0,
    ),
    (
        WinoGrande(),
        WINOGRANDE,
        "The cup missed the box because the",
        (" cup was small.", " box was small."),
        1,
    ),
    (
        ArcEasy(),
        ARC,
        "Question: What is ice?\nAnswer:",
        (" fire", " water", " air", " oil", " tin"),
        1,
    ),
    (OpenBookQA(), OBQA, "Question: The sun\nAnswer:", (" shines", " sinks"), 0),
]


@pytest.mark.parametrize(("task", "row", "context", "candidates", "gold"), TEXT)
def test_choice_text(
    task: CommonsenseTask,
    row: dict[str, Any],
    context: str,
    candidates: tuple[str, ...],
    gold: int,
) -> None:
    assert task.protocols[0] == "choice-text"
    assert put(task, row, "choice-text") == Prompt(context, candidates, candidates[gold])


LABEL: list[tuple[CommonsenseTask, dict[str, Any], str]] = [
    (
        BoolQ(),
        BOOLQ,
        "Please answer the following question with true or false, question: is rain wet?\n\n"
        "Answer format: true/false\nAnswer: the correct answer is true.",
    ),
    (
        PIQA(),
        PIQA_ROW,
        "Please choose the correct solution to the question: Dry a cup\n\n"
        "Solution1: use a towel\n\nSolution2: use soup\n\n"
        "Answer format: solution1/solution2\nAnswer: the correct answer is solution1.",
    ),
    (
        SIQA(),
        SIQA_ROW,
        "Please choose the correct answer to the question: Kim fell. How would Kim feel?\n\n"
        "Answer1: glad Answer2: hurt Answer3: rich\n\n"
        "Answer format: answer1/answer2/answer3\nAnswer: the correct answer is answer2.",
    ),
    (
        HellaSwag(),
        ACTIVITYNET,
        "Please choose the correct ending to complete the given sentence: "
        "Surfing: A man  paddles out. the man McCoy\n\n"
        "Ending1: stands up. Ending2: eats. Ending3: sings. Ending4: reads.\n\n"
        "Answer format: ending1/ending2/ending3/ending4\nAnswer: the correct answer is ending1.",
    ),
    (
        WinoGrande(),
        WINOGRANDE,
        "Please choose the correct answer to fill in the blank to complete the given sentence: "
        "The cup missed the box because the _ was small.\n\n"
        "Option1: cup Option2: box Answer format: option1/option2\n"
        "Answer: the correct answer is option2.",
    ),
    (
        ArcChallenge(),
        ARC,
        "Please choose the correct answer to the question: What is ice?\n\n"
        "Answer1: fire Answer2: water Answer3: air Answer4: oil Answer5: tin\n\n"
        "Answer format: answer1/answer2/answer3/answer4/answer5\n"
        "Answer: the correct answer is answer2.",
    ),
]


@pytest.mark.parametrize(("task", "row", "text"), LABEL)
def test_choice_label(task: CommonsenseTask, row: dict[str, Any], text: str) -> None:
    prompt = put(task, row, "choice-label")
    assert prompt.context + prompt.target == text
    assert prompt.context.endswith("\nAnswer:")
    assert prompt.target == prompt.candidates[task.example(row, "x").gold or 0]


def test_generate_writes_the_indented_prompt_of_llm_adapters() -> None:
    prompt = put(BoolQ(), BOOLQ, "generate")
    assert not prompt.candidates
    assert prompt.context + prompt.target == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request. \n"
        "\n"
        "                ### Instruction:\n"
        "                Please answer the following question with true or false, question: "
        "is rain wet?\n"
        "\n"
        "Answer format: true/false\n"
        "\n"
        "                ### Response:\n"
        "                the correct answer is true"
    )
    # The last space goes with the word that follows it, in training as in generation.
    assert prompt.target == " the correct answer is true"


@pytest.mark.parametrize(
    ("sentence", "context", "candidate"),
    [
        ("_ was small.", "", "cup was small."),
        ("The _'s lid", "The", " cup's lid"),
        ("Take the  _", "Take the", " cup"),
        ('He said "_ is small"', 'He said "', 'cup is small"'),
    ],
)
def test_winogrande_puts_the_space_before_the_blank_into_the_candidate(
    sentence: str, context: str, candidate: str
) -> None:
    prompt = put(WinoGrande(), {**WINOGRANDE, "sentence": sentence}, "choice-text")
    assert (prompt.context, prompt.candidates[0]) == (context, candidate)


def test_candidates_start_with_a_token_of_their_own(offline: None) -> None:
    """ " A" and "A" are different tokens: a context that kept the space would hide the first."""
    tokenizer = Tokenizer.from_file(str(converted_folder() / "tokenizer.json"))
    for task, row, *_ in TEXT:
        prompt = put(task, row, "choice-text")
        for candidate in prompt.candidates:
            whole = tokenizer.encode(prompt.context + candidate).ids
            apart = tokenizer.encode(prompt.context).ids, tokenizer.encode(candidate).ids
            assert whole == [*apart[0], *apart[1]]
            late = tokenizer.encode(candidate.removeprefix(" ")).ids
            assert late[0] != apart[1][0]


def test_clean_leaves_plain_text_alone() -> None:
    assert clean("A cup [of] tea.") == "A cup tea."
    assert clean("[title] Tea") == "Tea"
    assert clean("plain text") == "plain text"


@pytest.mark.parametrize("row", [{**PIQA_ROW, "label": -1}, {**PIQA_ROW, "label": 2}])
def test_hidden_labels_are_not_taken_for_an_index_from_the_end(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no choice"):
        PIQA().example(row, "x")


def test_unknown_protocol_and_argument() -> None:
    item = PIQA().example(PIQA_ROW, "x")
    with pytest.raises(UsageError, match="choice-text"):
        PIQA().prompt(item, "choice-test")
    with pytest.raises(UsageError, match="with_passage"):
        BoolQ("with_pasage")
    with pytest.raises(UsageError, match="no argument"):
        PIQA("with_passage")
    with pytest.raises(UsageError, match="boolq:with_passage"):
        BoolQ("with_passage").prompt(BoolQ().example(BOOLQ, "x"), "choice-label")


SAID = [
    (PIQA(), PIQA_ROW, "the correct answer is solution1", "solution1", 1.0),
    (PIQA(), PIQA_ROW, "solution2, not solution1", "solution2", 0.0),
    (PIQA(), PIQA_ROW, "Solution1", None, 0.0),
    (PIQA(), PIQA_ROW, "", None, 0.0),
    (BoolQ(), BOOLQ, "\n\nuntrue? true", "true", 1.0),
    (BoolQ(), BOOLQ, "yes", None, 0.0),
    (PIQA(), PIQA_ROW, "solution3, I mean solution1", "solution1", 1.0),
    (HellaSwag(), WIKIHOW, "ending5, ending1", "ending1", 1.0),
    (WinoGrande(), WINOGRANDE, "option3, option2", "option2", 1.0),
    (SIQA(), SIQA_ROW, "answer5 answer2", "answer5", 0.0),
    (SIQA(), SIQA_ROW, "the answer is answer2.", "answer2", 1.0),
    (SIQA(), SIQA_ROW, "answer7 or answer2", "answer2", 1.0),
    (HellaSwag(), WIKIHOW, "ending4 ending1", "ending4", 0.0),
    (WinoGrande(), WINOGRANDE, "option2", "option2", 1.0),
]


@pytest.mark.parametrize(("task", "row", "text", "said", "score"), SAID)
def test_the_first_label_in_a_generated_text_counts(
    task: CommonsenseTask, row: dict[str, Any], text: str, said: str | None, score: float
) -> None:
    answer = task.judge_text(task.example(row, "x"), text)
    assert (answer.prediction, answer.scores) == (said, {"accuracy": score})


def test_chance() -> None:
    items = [ArcEasy().example(ARC, "x")]
    assert find_protocol("choice-text").chance(ArcEasy(), items) == pytest.approx(0.2)
    assert find_protocol("choice-label").chance(ArcEasy(), items) == pytest.approx(0.2)
    assert find_protocol("generate").chance(ArcEasy(), items) is None
    assert find_protocol("choice-text").chance(ArcEasy(), []) is None


def test_titles_are_the_papers_column_headings() -> None:
    tasks = (BoolQ, PIQA, SIQA, HellaSwag, WinoGrande, ArcEasy, ArcChallenge, OpenBookQA)
    assert " ".join(task.title for task in tasks) == (
        "BoolQ PIQA SIQA HellaS. WinoG. ARC-e ARC-c OBQA"
    )


def test_judge_choice_of_an_item_without_answer_is_refused() -> None:
    item = Example("x", "x", {"choices": ("a", "b"), "question": "q"})
    with pytest.raises(Exception, match="has no correct choice"):
        PIQA().prompt(item, "choice-text")
