"""Commands that compute: runs of the whole suite on a tiny model."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from animals import write_data
from command_line import STOPPED, Bench, command, start


def test_run_on_a_users_own_data_and_model(
    bench: Bench, work: dict[str, int], data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [
        "run", "--method", "lora", "--task", f"jsonl:{data}", "--model", f"local:{tiny_model}",
        "--set", "r=2", "--set", "training.batch_size=8", "--set", "training.validations=1",
        "--set", "training.precision=float32", "--results", str(tmp_path),
    ]  # fmt: skip
    said = bench(*words, "--json")
    assert said.status == 0
    result = json.loads(said.out)
    (score,) = result["tasks"].values()
    assert score["items"] == 8
    assert score["chance"] == pytest.approx(1 / 3)
    # r (in + out) on q (64 to 64) and v (64 to 32) of two layers.
    assert result["training"]["trainable_parameters"] == 2 * 2 * (64 + 64 + 64 + 32)
    assert result["training"]["steps"] == 2
    folder = tmp_path / "runs" / result["run"]
    assert json.loads((folder / "result.json").read_text()) == result
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert sum(line["accuracy"] for line in lines) / 8 == score["metrics"]["accuracy"]
    assert (folder / "adapter" / "adapter_config.json").is_file()

    again = bench(*words)
    assert again.status == 0
    assert work["trained"] == 1
    assert str(folder.name) in again.both.replace(" ", "")


def test_a_table_is_computed_once_and_fresh_computes_it_again(
    bench: Bench, work: dict[str, int], suite: Path, tmp_path: Path
) -> None:
    words = ["table", str(suite), "--results", str(tmp_path)]
    first = bench(*words, "--json")
    assert first.status == 0
    assert work == {"loaded": 3, "trained": 2}
    table = json.loads(first.out)
    lora = next(row for row in table["rows"] if row["label"] == "LoRA")
    assert lora["done_seeds"] == [0, 1]
    assert json.loads((tmp_path / "animals.json").read_text()) == table
    assert {path.name for path in tmp_path.glob("animals.*")} == {
        f"animals.{ending}" for ending in ("md", "csv", "tex", "json")
    }
    assert not list((tmp_path / "unfinished").glob("*"))

    # Nothing is computed a second time, and the table is the same.
    second = bench(*words, "--json")
    assert json.loads(second.out) == table
    assert ": done;" in first.err
    assert ": done;" not in second.err
    assert work == {"loaded": 3, "trained": 2}

    # A new evaluation scores again but does not train again.
    scored = bench(*words, "--set", "evaluation.items=4", "--json")
    assert json.loads(scored.out)["columns"][0]["items"] == 4
    assert work == {"loaded": 6, "trained": 2}

    # A further seed is trained; the ones before are found.
    bench(*words, "--seeds", "0,1,2", "--methods", "lora")
    assert work == {"loaded": 7, "trained": 3}

    fresh = bench(*words, "--fresh", "--methods", "lora", "--json")
    assert work == {"loaded": 9, "trained": 5}
    # The same seed on the same machine gives the same numbers.
    again = {row["label"]: row for row in json.loads(fresh.out)["rows"]}
    # Letters and intervals also depend on the other rows.
    (cell,), (before,) = again["LoRA"]["cells"].values(), lora["cells"].values()
    assert (cell["mean"], cell["seeds"]) == (before["mean"], before["seeds"])


def test_the_papers_profile_on_a_tiny_model_and_files_of_llm_adapters(
    bench: Bench, tiny_model: Path, llm_adapters: Path, tmp_path: Path
) -> None:
    """The paper's rows for one model; QuanTA's axes are cut to a model 64 wide."""
    from quanta_bench.suites.loading import shipped

    content = yaml.safe_load(shipped()["table3"].read_text())
    paper = content["profiles"]["paper"]
    paper["rows"] = [row for row in paper["rows"] if row["model"] == "llama2-7b"]
    for row in paper["rows"]:
        if row["method"] == "quanta":
            row["settings"]["dims"] = [4, 4, 4]
    suite = tmp_path / "paper.yaml"
    suite.write_text(yaml.safe_dump(content))
    said = bench(
        "table", suite, "--profile", "paper", "--seeds", "0", "--results", tmp_path / "r",
        "--model", f"local:{tiny_model}", "--source", f"local:{llm_adapters}", "--json",
        "--set", "training.epochs=1", "--set", "training.validations=1",
        "--set", "training.precision=float32", "--set", "training.train_items=32",
        "--set", "evaluation.items=4",
    )  # fmt: skip
    assert said.status == 0, said.err
    table = json.loads(said.out)
    assert [row["label"] for row in table["rows"]] == [
        "Chance", "Best constant", "FT", "LoRA r=32", "DoRA r=16", "DoRA r=32", "QuanTA 16-8-8-4",
    ]  # fmt: skip
    assert [column["items"] for column in table["columns"]] == [4] * 8
    for row in table["rows"][2:]:
        assert len(row["cells"]) == 8
        assert row["averages"]
        assert row["denominator"] == "base+added"
    # Three gates of 16 x 16, on q and v of two layers.
    assert table["rows"][6]["trainable"] == 2 * 2 * 3 * 16 * 16
    notes = [note for under_heading in table["notes"].values() for note in under_heading]
    assert any("choice-label" in note and "token_mean" in note for note in notes)
    for path in (tmp_path / "r" / "runs").glob("*/result.json"):
        data = json.loads(path.read_text())["training"]["data"]
        assert set(data) == {"commonsense170k/train", "commonsense170k/validation"}


def test_a_failing_run_is_named_and_finished_ones_stay(
    bench: Bench, work: dict[str, int], suite: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.yaml"
    row = "      - {method: quanta, label: Bad, settings: {dims: [7, 7]}}\n"
    bad.write_text(suite.read_text() + row)
    said = bench("table", bad, "--seeds", "0", "--results", tmp_path / "r")
    assert said.status == 2
    assert "Bad: " in said.err
    assert "49" in said.err or "[7, 7]" in said.err or "(7, 7)" in said.err
    assert work["trained"] == 1
    assert len(list((tmp_path / "r" / "runs").glob("*/result.json"))) == 2


def _wait(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait while a process runs; the test's own timeout ends a wait for nothing."""
    while not ready():
        if process.poll() is not None:
            raise AssertionError(f"it ended: {process.communicate()}")
        time.sleep(0.02)


def test_ctrl_c_then_the_same_command_goes_on(
    bench: Bench, work: dict[str, int], suite: Path, tmp_path: Path
) -> None:
    words = ["table", str(suite), "--methods", "lora", "--seeds", "0", "--set"]
    words += ["training.epochs=50", "--set", "training.validations=50"]
    stopped = [*words, "--results", str(tmp_path / "stopped")]
    process = start(command(*stopped))
    unfinished = tmp_path / "stopped" / "unfinished"
    _wait(lambda: bool(list(unfinished.glob("*/last.ckpt"))), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode in STOPPED
    assert "rerun the command to resume" in err
    assert "Traceback" not in out + err
    assert not list((tmp_path / "stopped").glob("runs/*"))
    (last,) = unfinished.glob("*/last.ckpt")

    import torch

    before = torch.load(last, map_location="cpu", weights_only=True)["global_step"]
    assert 0 < before < 200

    assert bench(*stopped).status == 0
    assert not list(unfinished.glob("*"))
    straight = [*words, "--results", str(tmp_path / "straight")]
    assert bench(*straight).status == 0
    assert work["trained"] == 2

    records = [
        json.loads(next((tmp_path / name).glob("runs/*/result.json")).read_text())
        for name in ("stopped", "straight")
    ]
    assert [record["training"]["steps"] for record in records] == [200, 200]
    # What was computed before the stop was not computed again, and it ends where it would have.
    assert [len(record["training"]["losses"]) for record in records] == [200, 200]
    assert records[0]["training"]["losses"] == pytest.approx(
        records[1]["training"]["losses"], rel=1e-3
    )
    assert records[0]["tasks"].keys() == records[1]["tasks"].keys()


def test_test_items_in_the_training_data_are_refused_or_stated(
    bench: Bench, work: dict[str, int], data: Path, suite: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows += [{**row, "split": "train"} for row in rows if row["split"] == "test"][:3]
    copied = tmp_path / "copied.jsonl"
    copied.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made = tmp_path / "copied.yaml"
    made.write_text(suite.read_text().replace(str(data), str(copied)))
    words = ["table", str(made), "--results", str(tmp_path), "--methods", "lora", "--seeds", "0"]
    refused = bench(*words)
    assert refused.status != 0
    assert "3 of the 8 test items" in " ".join(refused.both.split())
    assert "--allow-overlap" in refused.both
    assert work["trained"] == 0
    assert bench(*words, "--allow-overlap").status == 0
    assert "3 of 8 of" in (tmp_path / "animals.md").read_text()


def test_the_geometry_of_finished_runs(
    bench: Bench, work: dict[str, int], suite: Path, tmp_path: Path
) -> None:
    results = ["--results", str(tmp_path)]
    nothing = bench("geometry", "--table", str(suite), *results)
    assert nothing.status == 1
    assert "no finished run" in nothing.both
    assert bench("table", str(suite), "--methods", "lora", "--seeds", "0", *results).status == 0
    words = ["geometry", "--table", str(suite), "--seeds", "0", *results]
    found = bench(*words, "--json")
    assert found.status == 0
    (row,) = json.loads(found.out)["rows"]
    # q and v of two layers.
    assert row["modules"] == 4
    assert 0 < row["rank"] <= 8
    assert row["drift"] > 0
    assert len((tmp_path / "animals-geometry.csv").read_text().splitlines()) == 5
    refused = bench(*words, "--modules", "nothing_like_it")
    assert refused.status != 0
    assert "--modules 'nothing_like_it'" in refused.both


def test_the_geometry_of_a_training_is_measured_once_whatever_it_is_scored_on(
    bench: Bench, suite: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(suite.read_text())
    other = write_data(tmp_path).rename(tmp_path / "others.jsonl")
    content["profiles"]["embedded"]["untouched"] = {"tasks": [f"jsonl:{other}"]}
    made = tmp_path / "untouched.yaml"
    made.write_text(yaml.safe_dump(content))
    words = ["--table", made, "--methods", "lora", "--seeds", "0", "--results", tmp_path]
    assert bench("table", made, *words[2:], "--allow-overlap").status == 0
    assert len(list(tmp_path.glob("runs/lora-*"))) == 2
    assert bench("geometry", *words).status == 0
    assert len((tmp_path / "animals-geometry.csv").read_text().splitlines()) == 5
