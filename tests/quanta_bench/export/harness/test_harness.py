"""lm-evaluation-harness as a second scorer: same items, same prompts, same scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from finished_runs import FinishedRuns

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.export.folder import choose_form, export
from quanta_bench.export.harness import comparison
from quanta_bench.export.harness.subject import of_folder, of_run
from quanta_bench.export.stored import StoredRun

pytest.importorskip("lm_eval")

METHODS = ("lora", "prefix", "quanta", "series", "full", "none", "peft")
TASK = """
task: animal_noises
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: choices
doc_to_target: "{{{{choices.index(answer)}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""


def name_of(run: StoredRun) -> str:
    (task,) = run.result.tasks
    return task


def compare(
    run: StoredRun, *names: str, items: int | None = None, include: Path | None = None
) -> comparison.Comparison:
    return comparison.compare(of_run(run), names, items=items, include=include)


@pytest.mark.parametrize("method", METHODS)
def test_both_scorers_agree_on_a_runs_items(method: str, finished: FinishedRuns) -> None:
    run = finished(method)
    made = compare(run)
    (task,) = run.result.tasks.values()
    found = {row.metric: row for row in made.rows}
    assert found.keys() == {"acc", "acc_bytes"}
    # Ours are the stored scores, though they are summed up again from single items.
    assert found["acc"].ours == pytest.approx(task.metrics["accuracy/sum"])
    assert found["acc_bytes"].ours == pytest.approx(task.metrics["accuracy/byte_mean"])
    assert all(row.difference == pytest.approx(0) for row in made.rows)
    assert all(row.items == task.items for row in made.rows)
    (note,) = made.notes
    assert f"{3 * task.items} log-likelihoods of {task.items} items" in note
    assert float(note.split()[-2]) < 1e-4


def test_a_different_model_is_told_apart(finished: FinishedRuns) -> None:
    """The comparison would see it if the two scorers scored different models."""
    subject = of_run(finished("lora"))
    with torch.no_grad():
        subject.model.get_input_embeddings().weight.mul_(-1.5)
    made = comparison.compare(subject, (), items=None, include=None)
    assert float(made.notes[0].split()[-2]) > 1e-2


def test_generated_answers_agree(finished: FinishedRuns, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Count from {n}:", "target": f" {n} {n + 1}", "split": split}
        for split in ("train", "test")
        for n in range(4)
    ]
    data = tmp_path / "count.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    made = compare(finished("lora"), f"quanta_bench_jsonl:{data}", items=3)
    (row,) = made.rows
    assert (row.metric, row.difference, row.items) == ("accuracy", 0, 3)
    assert "3 of 3 generated answers are the same text" in made.notes[0]


def test_perplexities_of_texts_agree(finished: FinishedRuns, offline: None) -> None:
    made = compare(finished("lora"), "quanta_bench_gsm8k_rationales", items=2)
    (row,) = made.rows
    assert row.metric == "byte_perplexity"
    assert row.theirs == pytest.approx(row.ours, rel=1e-4)


def test_an_exported_folder_is_scored_like_its_run(finished: FinishedRuns, tmp_path: Path) -> None:
    run = finished("lora")
    stored = {row.metric: row for row in compare(run).rows}
    for form in ("adapter", "merged"):
        export(run, tmp_path / form, choose_form(run, merged=form == "merged"))
        subject = of_folder(tmp_path / form, run.result.evaluation.source)
        made = comparison.compare(
            subject, [f"quanta_bench_{name_of(run)}"], items=None, include=None
        )
        for row in made.rows:
            assert row.difference == pytest.approx(0)
            assert row.theirs == pytest.approx(stored[row.metric].theirs)


def test_an_adapter_of_ours_is_loaded_from_its_folder(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    run = finished("series")
    export(run, tmp_path / "ours", choose_form(run, unmerged=True))
    subject = of_folder(tmp_path / "ours", "embedded")
    made = comparison.compare(subject, [f"quanta_bench_{name_of(run)}"], items=4, include=None)
    assert {row.items for row in made.rows} == {4}
    assert all(row.difference == pytest.approx(0) for row in made.rows)


def test_a_task_of_lm_evals_own_kind_with_data_of_this_machine(
    finished: FinishedRuns, tmp_path: Path
) -> None:
    run = finished("lora")
    data = Path(name_of(run).partition(":")[2])
    kept = [row for line in data.read_text().splitlines()
            if (row := json.loads(line))["split"] == "test"]  # fmt: skip
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, kept)))
    (tmp_path / "animal.yaml").write_text(TASK.format(data=tmp_path / "test.jsonl"))
    made = compare(run, "animal_noises", f"quanta_bench_{name_of(run)}", include=tmp_path)
    found = {(row.task, row.metric): row for row in made.rows}
    theirs = found["animal_noises", "acc"]
    assert (theirs.ours, theirs.difference, theirs.same_items) == (None, None, False)
    # The same prompts and, by lm-eval's own delimiter, the same candidates.
    ours = next(row for (task, metric), row in found.items() if row.same_items and metric == "acc")
    assert theirs.theirs == ours.theirs
    assert theirs.items == run.result.tasks[name_of(run)].items
    assert "prompts and items of their own" in made.notes[-1]


@pytest.mark.slow  # lm-eval reads its 14,000 tasks to name the nearest: 8 s of processor time
def test_prompts_in_a_chat_template_are_not_compared(finished: FinishedRuns) -> None:
    subject = of_run(finished("lora"))
    chats = replace(subject, spec=subject.spec.model_copy(update={"chat_template": True}))
    with pytest.raises(UsageError, match="chat template here, and lm-evaluation-harness would"):
        comparison.compare(chats, [], items=2, include=None)


def test_a_misspelt_task_has_a_near_one(finished: FinishedRuns) -> None:
    with pytest.raises(UsageError, match=r"no task 'hellaswog'. Did you mean .*'hellaswag'"):
        compare(finished("lora"), "hellaswog")


def test_what_cannot_be_scored_says_why(
    finished: FinishedRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished("lora")
    (tmp_path / "missing.yaml").write_text(TASK.format(data=tmp_path / "nowhere.jsonl"))
    with pytest.raises(BenchError, match=r"lm-evaluation-harness ended with .*--include-path"):
        compare(run, "animal_noises", include=tmp_path)
    with pytest.raises(UsageError, match="neither a finished run nor a model"):
        of_folder(tmp_path, "embedded")
    export(run, tmp_path / "a", "adapter")
    with pytest.raises(UsageError, match="has no tasks of its own"):
        comparison.compare(of_folder(tmp_path / "a", "embedded"), (), items=None, include=None)
    monkeypatch.setattr(comparison, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'quanta-bench\[lm-eval\]'"):
        comparison.check_installed()
