"""`tune` on a tiny model: what it chooses, writes, refuses and computes only once."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Bench

from quanta_bench.plugins import find_task
from quanta_bench.report.page.charts import rate_curves
from quanta_bench.report.page.stored import read_folder
from quanta_bench.training import trainer

SUITE = """
name: sounds
title: Sounds
tasks: ["jsonl:{data}"]
profiles:
  embedded:
    model: .
    model_source: "local:{model}"
    seeds: [0, 1]
    training: {{batch_size: 4, validations: 2, precision: float32}}
    evaluation: {{forgetting: running_text, forgetting_source: "local:{text}", forgetting_items: 3}}
    rows:
      - none
      - {{method: lora, label: Small, settings: {{r: 2}}, training: {{learning_rate: 1.0e-3}}}}
      - {{method: lora, label: Large, settings: {{r: 4}}, training: {{learning_rate: 1.0e-3}}}}
"""


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_model: Path) -> Path:
    """A suite of a base and two rows that train, with running text of its own."""
    folder = tmp_path_factory.mktemp("sounds")
    lines = [{"text": f"Of {n} cows that said moo, {n} were right about it."} for n in range(3)]
    (folder / "lambada").mkdir()
    (folder / "lambada" / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    path = folder / "sounds.yaml"
    path.write_text(SUITE.format(data=data, model=tiny_model, text=folder))
    return path


@pytest.fixture
def test_split_raises(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    """The scored task refuses to give its test items."""
    kind = type(find_task(f"jsonl:{data}"))
    examples = kind.examples

    def guarded(self: Any, source: Any, split: str) -> Sequence[Any]:
        assert split != "test", "the test split was read"
        return examples(self, source, split)

    monkeypatch.setattr(kind, "examples", guarded)


def test_two_rows_on_validation_items_alone(
    bench: Bench, work: dict[str, int], test_split_raises: None, sounds: Path, tmp_path: Path
) -> None:
    words = ["tune", sounds, "--seeds", "0", "--rates", "3e-4,3e-3,3e-2", "--max-rates", "3"]
    said = bench(*words, "--results", tmp_path, "--json")
    assert said.status == 0, said.err
    study = json.loads(said.out)
    assert work["trained"] == 6
    assert [row["label"] for row in study["rows"]] == ["Small", "Large"]
    assert study["skipped"] == {"Base model": "does not train"}
    for row in study["rows"]:
        assert [trial["rate"] for trial in row["trials"]] == [3e-4, 3e-3, 3e-2]
        assert {trial["steps"] for trial in row["trials"]} == {4}
        for trial in row["trials"]:
            assert trial["ratio"] == pytest.approx(trial["perplexity"] / row["base_perplexity"])
            check_run(trial, tmp_path)
        scored = [trial for trial in row["trials"] if trial["state"] == "scored"]
        best = min(scored, key=lambda trial: (-trial["score"], trial["loss"], trial["rate"]))
        assert row["chosen"] == best["rate"]

    # Every form of the files holds the same numbers.
    names = {path.name for path in tmp_path.glob("tune*") if path.is_file()}
    assert names == {f"tune-sounds.{end}" for end in ("md", "csv", "json", "png", "svg")} | {
        "tuned-sounds.yaml"
    }
    assert json.loads((tmp_path / "tune-sounds.json").read_text()) == study
    # The page of results draws these very trials.
    (curves,) = rate_curves(read_folder(tmp_path).searches, [])
    assert [[trial["score"] for trial in curve["trials"]] for curve in curves["curves"]] == [
        [trial["score"] for trial in row["trials"]] for row in study["rows"]
    ]
    with (tmp_path / "tune-sounds.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [float(line["score"]) for line in lines] == [
        trial["score"] for row in study["rows"] for trial in row["trials"]
    ]
    markdown = (tmp_path / "tune-sounds.md").read_text()
    assert study["fingerprint"] in markdown
    assert "3 rates of Small, a run each (seed 0), 4 steps a seed." in markdown
    assert study["command"].startswith("quanta-bench tune ")

    # The same command finds all of it, and the other row alone is the same study's.
    again = bench(*words, "--results", tmp_path, "--json")
    assert again.status == 0
    assert work["trained"] == 6
    assert json.loads(again.out)["rows"] == study["rows"]
    assert json.loads(again.out)["fingerprint"] == study["fingerprint"]


def check_run(trial: dict[str, Any], folder: Path) -> None:
    """A trial's numbers are those of its run, on the items that selected its checkpoint."""
    (run,) = trial["runs"]
    result = json.loads((folder / "runs" / run / "result.json").read_text())
    (scored,) = result["tasks"].values()
    assert result["evaluation"]["split"] == "validation"
    assert scored["items"] == result["training"]["validation_items"] == 4
    assert trial["score"] == pytest.approx(100 * scored["metrics"]["accuracy"])
    assert trial["standard_error"] == pytest.approx(100 * scored["standard_error"])
    # The same items, judged in training and scored afterwards.
    assert scored["metrics"]["accuracy"] == pytest.approx(result["training"]["best_validation"])
    record = result["training"]
    (loss,) = [loss for step, _, loss in record["validations"] if step == record["best_step"]]
    assert trial["loss"] == loss


def test_a_stopped_search_resumes_and_the_table_uses_its_training(
    bench: Bench,
    work: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    sounds: Path,
    tmp_path: Path,
) -> None:
    words = ["tune", sounds, "--seeds", "0", "--rates", "3e-4,3e-3", "--max-rates", "2"]
    train = trainer.train
    with monkeypatch.context() as stopped:

        def interrupted(*args: Any, **kwargs: Any) -> Any:
            if work["trained"] == 3:
                raise KeyboardInterrupt
            return train(*args, **kwargs)

        stopped.setattr(trainer, "train", interrupted)
        assert bench(*words, "--results", tmp_path).status == 130
    assert not list(tmp_path.glob("tune-*"))
    assert work["trained"] == 3
    said = bench(*words, "--results", tmp_path)
    assert said.status == 0, said.err
    assert work["trained"] == 4
    assert "tuned-sounds.yaml" in said.err

    tuned = tmp_path / "tuned-sounds.yaml"
    rows = yaml.safe_load(tuned.read_text())["profiles"]["embedded"]["rows"]
    for row in rows[1:]:
        assert row["origin"]["learning_rate"].startswith("compared on validation items")
    # The plan accepts the suite; the table trains nothing and scores the test items.
    plan = bench("table", tuned, "--dry-run")
    assert plan.status == 0, plan.err
    assert "compared on validation items by quanta-bench tune" in plan.both
    table = bench("table", tuned, "--seeds", "0", "--results", tmp_path, "--json")
    assert table.status == 0, table.err
    assert work["trained"] == 4
    made = json.loads(table.out)
    assert {column["items"] for column in made["columns"]} == {8}
    assert [row["marks"] for row in made["rows"] if row["method"] == "lora"] == ["§", "§"]
    # The suite's own rates were not tuned for it.
    before = bench("table", sounds, "--seeds", "0", "--results", tmp_path / "b", "--json")
    marks = [row["marks"] for row in json.loads(before.out)["rows"] if row["method"] == "lora"]
    assert marks == ["‡§", "‡§"]


def test_rates_that_spoil_the_model_are_refused_and_the_range_grows(
    bench: Bench, work: dict[str, int], test_split_raises: None, sounds: Path, tmp_path: Path
) -> None:
    full = yaml.safe_load(sounds.read_text())
    full["profiles"]["embedded"]["rows"] = [{"method": "full", "label": "Full"}]
    suite = tmp_path / "full.yaml"
    suite.write_text(yaml.safe_dump(full))
    words = [
        "tune", suite, "--seeds", "0", "--rates", "1e-4,1,1e30", "--max-rates", "4",
        "--results", tmp_path,
    ]  # fmt: skip
    said = bench(*words)
    assert said.status == 0, said.err
    study = json.loads((tmp_path / "tune-sounds.json").read_text())
    (row,) = study["rows"]
    states = {trial["rate"]: trial["state"] for trial in row["trials"]}
    # The best of what is left is at the lower edge, so that the range grows there.
    assert states == {3e-5: "scored", 1e-4: "scored", 1.0: "refused", 1e30: "diverged"}
    refused = row["trials"][2]
    assert refused["ratio"] > 1.5
    assert "times the base's" in refused["why"]
    assert "diverged at step" in row["trials"][3]["why"]
    assert row["chosen"] in (3e-5, 1e-4)
    for words_on_screen in ("refused: 1e0 (perplexity of running text", "1e30 (Training full"):
        assert words_on_screen in said.both
    if row["at_edge"]:
        assert "stopped at 4 rates (--max-rates)" in (tmp_path / "tune-sounds.md").read_text()

    # A run that diverged has no result, and is not computed again all the same.
    trained = work["trained"]
    assert trained == 4
    assert bench(*words).status == 0
    assert work["trained"] == trained


def test_a_run_that_fails_otherwise_is_tried_again(
    bench: Bench,
    work: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    sounds: Path,
    tmp_path: Path,
) -> None:
    words = ["tune", sounds, "--seeds", "0", "--rates", "3e-4,3e-3", "--max-rates", "2"]
    train = trainer.train
    with monkeypatch.context() as broken:

        def fails(*args: Any, **kwargs: Any) -> Any:
            if args[2].settings == {"r": 4} and args[2].learning_rate == 3e-3:
                raise RuntimeError("out of memory")
            return train(*args, **kwargs)

        broken.setattr(trainer, "train", fails)
        said = bench(*words, "--results", tmp_path)
    assert said.status == 1
    assert "rerun the command" in said.err
    assert "out of memory" in said.err
    study = json.loads((tmp_path / "tune-sounds.json").read_text())
    small, large = study["rows"]
    assert small["chosen"] is not None
    assert large["chosen"] is None
    notes = (tmp_path / "tune-sounds.md").read_text()
    assert "Large has no rate chosen, because runs failed at 3e-3." in notes
    rows = yaml.safe_load((tmp_path / "tuned-sounds.yaml").read_text())
    small_row, large_row = rows["profiles"]["embedded"]["rows"][1:]
    assert "by quanta-bench tune" in small_row["origin"]["learning_rate"]
    assert large_row["training"]["learning_rate"] == 1e-3
    assert "by quanta-bench tune" not in large_row["origin"]["learning_rate"]
    assert bench(*words, "--results", tmp_path).status == 0
    assert work["trained"] == 4


def test_a_plan_names_the_rates_and_computes_nothing(
    bench: Bench, work: dict[str, int], sounds: Path, tmp_path: Path
) -> None:
    said = bench("tune", sounds, "--dry-run", "--results", tmp_path / "r")
    assert said.status == 0, said.err
    assert "1e-4 3e-4 1e-3 3e-3 1e-2" in said.both
    assert "split validation" in said.both
    assert "Base model: does not train." in said.both
    assert not (tmp_path / "r").exists()
    plan = json.loads(bench("tune", sounds, "--dry-run", "--json").out)
    # LoRA's class declares 1e-4 to 2e-3, which five rates around 1e-3 cover.
    assert plan["rows"][0] == {
        "label": "Small",
        "first_rates": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
        "most_rates": 9,
    }
    assert work == {"loaded": 0, "trained": 0}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["3", "--rates", "1e-3"], "at least two"),
        (["3", "--rates", "1e-3,1e-4"], "write the smallest first"),
        (["3", "--rates", "1e-3,1e-2,1e-1", "--max-rates", "2"], "3 rates at least"),
        (["3", "--max-rates", "1"], "give at least 2"),
        (["3", "--methods", "none"], "table3 has nothing to tune. Base model: does not train."),
        (["3", "--stored"], "--stored does not apply to tune"),
        (["3", "--launcher", "ray"], "--launcher does not apply to tune"),
        (["D1"], "Table D1 trains nothing to tune."),
        (["figure4"], "figure4 is a figure"),
        (["33"], "There is no table '33'."),
        (["nowhere.yaml"], "There is no file nowhere.yaml."),
        (["3", "--methods", "loar"], "Did you mean 'lora'"),
        (["3", "--set", "training.epoch=1"], "Did you mean 'epochs'?"),
    ],
)
def test_what_cannot_be_tuned_is_said_in_one_message(
    bench: Bench, words: list[str], said: str
) -> None:
    found = bench("tune", *words)
    assert found.status == 2
    assert said in found.both
    assert found.err.removeprefix("Loading packages.\n").startswith("quanta-bench: ")


def test_a_missing_task_is_said_as_a_table_says_it(bench: Bench, tmp_path: Path) -> None:
    found = bench("tune", "3", "--source", f"local:{tmp_path}", "--results", tmp_path / "r")
    assert found.status != 0
    assert str(tmp_path) in found.both.replace(" ", "")
