"""Scores in a card of the hub: its own client reads them, and what was there stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_runs import FinishedRuns
from huggingface_hub import EvalResult, ModelCard

from quanta_bench.errors import UsageError
from quanta_bench.export.formats import hub_card
from quanta_bench.export.formats.options import Options

CARD = """---
license: mit
model-index:
- name: mine
  results:
  - task: {type: text-generation}
    dataset: {name: Others, type: others/data}
    metrics: [{type: accuracy, value: 0.5}]
---
# Mine

Words of my own.
"""


def scores(path: Path) -> list[EvalResult]:
    return ModelCard.load(path).data.eval_results or []


def test_a_new_card_has_the_scores(finished: FinishedRuns, tmp_path: Path) -> None:
    run = finished("lora")
    (path,) = hub_card.write([run], tmp_path, Options())
    (found,) = scores(path)
    (task,) = run.result.tasks.values()
    assert found.metric_value == task.metrics["accuracy"]
    assert found.metric_args["items"] == task.items


def test_a_card_that_is_there_keeps_its_words_and_the_scores_of_others(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    path = tmp_path / "README.md"
    path.write_text(CARD)
    hub_card.write([finished("lora")], tmp_path, Options())
    # Another run's scores on the same task take the place of the first one's.
    hub_card.write([finished("quanta")], tmp_path, Options())
    card = ModelCard.load(path)
    assert "Words of my own." in card.text
    assert (card.data.license, card.data.model_name) == ("mit", "mine")
    others, ours = scores(path)
    assert (others.dataset_name, others.metric_value) == ("Others", 0.5)
    (task,) = finished("quanta").result.tasks.values()
    assert ours.metric_value == task.metrics["accuracy"]


def test_a_card_is_about_one_model(finished: FinishedRuns, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="these are 2 runs"):
        hub_card.write([finished("lora"), finished("quanta")], tmp_path, Options())
    with pytest.raises(UsageError, match="holds no items"):
        hub_card.write([finished("lora")], tmp_path, Options(items=True))


def test_metadata_that_cannot_be_read_are_left_as_they_are(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    path = tmp_path / "README.md"
    path.write_text("---\nlicense: [mit\n---\nWords\n")
    with pytest.raises(UsageError, match=r"README\.md cannot be read"):
        hub_card.write([finished("lora")], tmp_path, Options())
    assert path.read_text().endswith("Words\n")
