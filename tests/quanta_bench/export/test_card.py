"""Model cards: what the hub's own reader finds in them, and what is pushed only on request."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_runs import FinishedRuns
from huggingface_hub import ModelCard, parse_eval_result_entries
from scipy import stats

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.export import card, hub
from quanta_bench.export.folder import export
from quanta_bench.export.stored import StoredRun
from quanta_bench.utils.escaping import markdown


def test_the_hubs_reader_finds_scores_base_and_library(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    run = finished("quanta")
    export(run, tmp_path / "my-model", "merged")
    text = (tmp_path / "my-model" / "README.md").read_text()
    read = ModelCard(text)
    assert read.data.library_name == "transformers"
    assert read.data.model_name == "my-model"
    (found,) = read.data.eval_results or []
    (task,) = run.result.tasks.values()
    assert found.metric_value == task.metrics["accuracy"]
    assert found.dataset_split == "test"
    assert task.standard_error is not None
    half = stats.t(task.groups - 1).ppf(0.975) * task.standard_error
    low, high = found.metric_args["interval"]
    assert math.isclose(high - low, 2 * half)
    assert f"{task.metrics['accuracy']:.3f} ± {half:.3f}" in text
    assert text.count("| 8 |") == 1  # the items of the test split
    assert "<built-in" not in text
    assert run.portable_command in text
    # A merged model needs nothing of this machine, whose folders are not in its card.
    assert "--task jsonl:animals.jsonl --model local:" in text
    (reference,) = run.result.tasks
    assert str(Path(reference.removeprefix("jsonl:")).parent) not in text
    assert "QuanTA" in text
    assert 'AutoModelForCausalLM.from_pretrained("my-model")' in text
    assert "PeftModel" not in text
    assert "{{" not in text


def test_an_adapters_card_names_its_base(
    finished: FinishedRuns, tiny_model: Path, tmp_path: Path
) -> None:
    export(finished("lora"), tmp_path / "a", "adapter")
    text = (tmp_path / "a" / "README.md").read_text()
    assert ModelCard(text).data.library_name == "peft"
    assert f'from_pretrained("{tiny_model}")' in text
    assert "quanta_bench" not in text


@pytest.mark.parametrize("name", ["my__model", 'a "b" \\n', "größe|*x*"])
def test_the_code_has_the_name_as_it_is_and_the_heading_its_markdown(
    name: str, finished: FinishedRuns, tmp_path: Path
) -> None:
    card.write(finished("lora"), tmp_path, "adapter", name, "C:\\new base")
    text = (tmp_path / "README.md").read_text()
    assert f"\n# {markdown(name)}\n" in text
    code = ast.parse(text.partition("```python\n")[2].partition("```")[0])
    literals = {node.value for node in ast.walk(code) if isinstance(node, ast.Constant)}
    assert literals == {name, "C:\\new base"}


def test_an_adapter_without_a_head_is_exported_where_its_data_are_gone(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    stored = finished("lora")
    training = stored.result.training
    spec = training.spec.model_copy(update={"tasks": ("jsonl:/gone/animals.jsonl",)})
    training = training.model_copy(update={"spec": spec})
    run = StoredRun(stored.store, stored.result.model_copy(update={"training": training}))
    export(run, tmp_path / "a", "adapter")
    assert "Data: jsonl:animals.jsonl" in (tmp_path / "a" / "README.md").read_text()


def from_hub(run: StoredRun, items: int | None) -> Any:
    """The run as if its task had been read from the hub."""
    ((name, task),) = run.result.tasks.items()
    read = task.model_copy(update={"data": {"content": {"hub:google/boolq/default/test": "0"}}})
    evaluation = run.result.evaluation.model_copy(update={"items": items})
    return run.result.model_copy(update={"tasks": {name: read}, "evaluation": evaluation})


def test_only_whole_data_sets_of_the_hub_are_entered_there(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    run = finished("lora")
    assert card.hub_entries(run.result) == []
    assert card.hub_entries(from_hub(run, 200)) == []
    whole = StoredRun(run.store, from_hub(run, None))
    card.write(whole, tmp_path, "adapter", "m", "base")
    (path,) = (tmp_path / ".eval_results").iterdir()
    (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert entry.dataset_id == "google/boolq"
    (task,) = run.result.tasks.values()
    assert entry.value == task.metrics[task.metric]


def test_a_push_that_fails_keeps_the_folder_and_says_why(
    finished: FinishedRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished("lora")
    with pytest.raises(UsageError, match="OWNER/NAME"):
        hub.check_push(run, "a/b/c", "merged")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE"):
        hub.check_push(run, "me/model", "merged")
    # Nothing listens at this port.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        BenchError, match=r"is written, but me/model could not be pushed to http://127"
    ):
        hub.push(tmp_path, "me/model")
