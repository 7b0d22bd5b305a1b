"""Columns that cannot be filled are refused before anything runs; a profile may have its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from results_by_hand import Bench, items

from quanta_bench.errors import UsageError
from quanta_bench.plugins import TASKS, find_task
from quanta_bench.report.tables import make_table
from quanta_bench.runs.cells import Cells
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.compatibility import metrics_of
from quanta_bench.suites.grid import grid
from quanta_bench.suites.request import Request, make_request
from quanta_bench.suites.schema import Suite
from quanta_bench.task import Answer, Example


def content(columns: Any, protocol: str = "choice-text", **profile: Any) -> dict[str, Any]:
    evaluation = {"protocol": protocol}
    profile = {"rows": ["lora"], "evaluation": evaluation, **profile}
    tasks = ["drop"] if protocol == "generate" else ["boolq", "mrpc"]
    return {"name": "t", "tasks": tasks, "columns": columns, "profiles": {"embedded": profile}}


def ask(tmp_path: Path, made: dict[str, Any]) -> Any:
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(made))
    return make_request(str(path), "table", "embedded", Choice(), check=True)


@pytest.mark.parametrize(
    ("task", "metric", "protocol", "near"),
    [
        ("mrpc", "acuracy", "choice-text", "accuracy"),
        ("boolq", "accuracy/sums", "choice-text", "accuracy/sum"),
        ("boolq", "f1", "choice-text", "Known: accuracy, "),
        ("drop", "exat", "generate", "exact"),
    ],
)
def test_a_misspelt_metric_is_refused_with_the_nearest(
    tmp_path: Path, task: str, metric: str, protocol: str, near: str
) -> None:
    with pytest.raises(UsageError, match=f"'{task}' has no metric '{metric}'.*{near}"):
        ask(tmp_path, content([{"task": task, "metric": metric}], protocol))


def test_metrics_that_are_there_pass(tmp_path: Path) -> None:
    for task, metric in (("mrpc", "accuracy"), ("mrpc", "f1"), ("boolq", "accuracy/byte_mean")):
        ask(tmp_path, content([{"task": task, "metric": metric}]))
    ask(tmp_path, content([{"task": "drop", "metric": "drop_em"}, "drop"], "generate"))


@pytest.mark.parametrize(
    ("columns", "averages"),
    [
        (["boolq", "mrpc"], ["Avg."]),
        (["boolq", {"task": "mrpc", "metric": "f1"}], ["Avg."]),
        (["boolq", {"task": "boolq", "metric": "training_loss"}], []),
        (["boolq", "wikitext2"], []),
        (["wikitext2", "wikipedia_text"], ["Avg."]),
    ],
)
def test_an_average_that_nobody_named_has_columns_of_one_unit(
    tmp_path: Path, columns: list[Any], averages: list[str]
) -> None:
    made = content(columns) | {"tasks": ["boolq", "mrpc", "wikitext2", "wikipedia_text"]}
    assert [one.title for one in ask(tmp_path, made).suite.shown_averages] == averages


def test_a_named_average_of_several_units_is_refused(tmp_path: Path) -> None:
    made = content(["boolq", "mrpc", "wikitext2"]) | {
        "tasks": ["boolq", "mrpc", "wikitext2"],
        "averages": [{"title": "All"}],
    }
    message = r"'All' of t mixes units: boolq \(score\), mrpc \(score\), wikitext2 \(perplexity\)"
    with pytest.raises(UsageError, match=message):
        ask(tmp_path, made)
    made["averages"] = [{"title": "Choices", "columns": ["boolq", "mrpc"]}]
    assert len(ask(tmp_path, made).suite.shown_averages) == 1


def answers(name: str) -> list[Answer]:
    """Some judged answers of a task."""
    task = find_task(name)
    if task.kind == "perplexity":
        return [Answer(None, "", {"nats_per_token": 1.0})]
    if task.chooses:
        fields = {"score": 1.0, "choices": ("a", "b"), "sentences": ("a", "b")}
        made = [Example(str(n), str(n), fields, gold=n % 2) for n in range(4)]
        return [task.judge_choice(one, n // 2) for n, one in enumerate(made)]
    item = Example("1", "1", {"answers": (("4",),)}, references=("4",))
    return [task.judge_text(item, "4"), task.judge_text(item, "5")]


@pytest.mark.parametrize("name", sorted(set(TASKS.names()) - {"file", "jsonl"}))
def test_tasks_name_the_metrics_that_they_aggregate(name: str) -> None:
    task = find_task(name)
    if task.kind == "perplexity":
        return  # what it has is made by the suite; see the tests of windows
    found = task.aggregate(answers(name))
    assert set(found) == {task.metric, *task.metrics}
    assert set(found) <= set(metrics_of(task, task.protocols[0]))


# --- columns of a profile -----------------------------------------------------------------------

OWN = {
    "tasks": ["boolq", "piqa", "siqa"],
    "columns": ["piqa", {"task": "boolq", "title": "B"}],
    "averages": [{"title": "Both", "columns": ["piqa", "boolq"]}],
}


def test_a_profile_has_columns_of_its_own_and_the_others_keep_the_suites(bench: Bench) -> None:
    rows = {"rows": ["lora"]}
    made = Suite.model_validate(
        {
            "name": "t",
            "tasks": ["boolq", "siqa"],
            "profiles": {"embedded": {**rows, **OWN}, "paper": rows},
        }
    )
    titles = {}
    for profile, tasks in (("embedded", ("boolq", "piqa", "siqa")), ("paper", ("boolq", "siqa"))):
        (row,) = grid(made, profile)
        assert {e.tasks for _, e in row.jobs} == {tasks}
        result = bench.result({task: items([1, 0]) for task in tasks})
        cells = [Cells(row, {0: [result]})]
        found = make_table(Request.of(made, profile), cells, bench.store)
        titles[profile] = [[column.title for column in found.columns], found.averages]
        assert set(found.rows[1].averages) == set(found.averages)
    assert titles == {
        "embedded": [["PIQA", "B"], ["Both"]],
        "paper": [["BOOLQ", "SIQA"], ["Avg."]],
    }


@pytest.mark.parametrize(
    "over",
    [
        {"columns": ["rte"]},
        {"tasks": ["piqa"], "columns": ["boolq"]},
        {"averages": [{"title": "A", "columns": ["piqa"]}]},
        {"columns": ["boolq", "boolq"]},
        {"tasks": ["piqa"], "trained": "apart", "by_task": {"boolq": {}}},
    ],
)
def test_a_profiles_columns_are_of_its_tasks(over: dict[str, Any]) -> None:
    profile = {"rows": ["lora"], **over}
    with pytest.raises(ValidationError, match=r"not among|appears twice"):
        Suite.model_validate({"name": "t", "tasks": ["boolq"], "profiles": {"embedded": profile}})


def test_table_4_shows_what_its_small_profile_trains_on_and_the_papers_columns() -> None:
    small = make_request("4", "table", "embedded", Choice(), check=True)
    keys = [column.key for column in small.suite.shown_columns]
    paper = make_request("4", "table", "paper", Choice(), check=True)
    printed = [column.key for column in paper.suite.shown_columns]
    assert printed == ["aqua", "gsm8k", "mawps", "svamp"]
    assert set(keys) == {*printed, "basic_arithmetic"}
    trained = {task for row in small.grid for t, _ in row.jobs for task in t.tasks}
    assert trained <= set(keys)
    assert [average.title for average in paper.suite.shown_averages] == [
        "Avg. without AQuA",
        "Avg.",
    ]
