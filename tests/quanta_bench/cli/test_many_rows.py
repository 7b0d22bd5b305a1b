"""A table of few items of a file of many rows: each row is looked at once, and compared with few.

What is drawn depends on the names and groups of all rows, and whether test items are among the
training data on the texts of all.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command_line import Bench, command

from quanta_bench.data import overlap
from tasks import jsonl, mapping

TEAMS = ["billing", "delivery", "account"]
MAPPING = """
data: rows.jsonl
prompt: "Which team should read this message: billing, delivery or account?\\n{{ message }}"
choices: [billing, delivery, account]
answer: "{{ team }}"
"""
SUITE = """
name: own
title: Own data
tasks: ["file:{mapping}"]
profiles:
  embedded:
    model: .
    model_source: "local:{model}"
    seeds: [0]
    training: {{train_items: 16, validation_items: 8, batch_size: 4, validations: 1,
               precision: float32}}
    evaluation: {{items: 20}}
    rows:
      - none
      - {{method: lora, label: LoRA, settings: {{r: 2}}, training: {{learning_rate: 0.001}}}}
"""


def write(folder: Path, model: Path, count: int) -> Path:
    """Write rows, a mapping that puts one instruction before each, and a suite."""
    folder.mkdir()
    draw = random.Random(count)
    vocabulary = [f"word{n}" for n in range(2000)]
    with (folder / "rows.jsonl").open("w") as stream:
        for number in range(count):
            text = " ".join(draw.choices(vocabulary, k=draw.randint(6, 20)))
            row = {"message": f"{text} in case {number}", "team": draw.choice(TEAMS)}
            stream.write(f"{json.dumps(row)}\n")
    (folder / "own.yaml").write_text(MAPPING)
    path = folder / "suite.yaml"
    path.write_text(SUITE.format(mapping=folder / "own.yaml", model=model))
    return path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often items are made, templates filled and texts taken apart."""
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counting(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(owner, name, counting)

    count(jsonl.JsonLines, "_example")
    count(mapping.RowMapping, "item")
    count(overlap, "_shingles")
    return counts


def test_each_row_is_made_into_an_item_once_and_compared_with_few(
    tmp_path: Path, tiny_model: Path, counted: Counter[str], bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Not what an earlier test has found.
    monkeypatch.setattr(overlap, "remembered", lambda kind, parts, compute: compute())
    count = 5000
    suite = write(tmp_path / "own", tiny_model, count)
    said = bench("table", suite, "--results", tmp_path / "r", "--jobs", "1")
    assert said.status == 0, said.err
    assert counted["_example"] == counted["item"] == count
    # Every text but a test text is taken apart once, a test text four times; the instruction, which
    # each of them has, makes no text a match of each other.
    assert counted["_shingles"] < 5 * count


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_rows_cost_seconds(tmp_path: Path, tiny_model: Path) -> None:
    """Of the user's processor, in all processes that the command starts."""
    seconds = []
    for count in (1000, 100_000):
        suite = write(tmp_path / str(count), tiny_model, count)
        call = command("table", suite, "--results", tmp_path / str(count) / "r", "--jobs", "1")
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run(call, check=True, capture_output=True)
        seconds.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    assert seconds[1] - seconds[0] < 20
