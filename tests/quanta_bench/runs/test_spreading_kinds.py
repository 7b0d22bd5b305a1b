"""Runs over two processes of every kind, and killed ones: each is that of one process.

Each test starts two processes that import torch, which takes 15 s of a processor.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from animals import write_data, write_suite
from command_line import start
from glue_files import write_glue
from spread_runs import FLOAT32, Stored, assert_same, compute
from tiny_models import save_llama

from quanta_bench.cli.single_run import job
from quanta_bench.results.store import Store
from quanta_bench.runs.claims import compute_or_wait
from quanta_bench.runs.devices import ONE, Devices
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.spreading import runner_for
from quanta_bench.spec import Job

pytestmark = pytest.mark.slow

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {"r": 2}),
    "recomputed": (
        "quanta",
        {"dims": {"q_proj": [4, 4, 4], "v_proj": [8, 8]}, "training.gradient_checkpointing": True},
    ),
    "prefix": ("prefix", {"num_virtual_tokens": 3}),
    "text": ("lora", {"r": 2, "training.loss": "answer", "training.accumulate": 2}),
    "4 bits": ("lora", {"r": 2, "training.quantization": "nf4"}),
    "full": ("full", {"training.learning_rate": 1e-3}),
}


@pytest.fixture(scope="module")
def even_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model all of whose widths are multiples of 64, as 4 bits need."""
    folder = tmp_path_factory.mktemp("even_model")
    save_llama(folder, intermediate_size=128)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), train=21, validation=5, test=9)


def asked(model: Path, data: Path, kind: str, **changes: Any) -> Job:
    method, settings = KINDS[kind]
    return job(
        method,
        [f"jsonl:{data}"],
        {**FLOAT32, **settings, **changes},
        0,
        f"local:{model}",
        "embedded",
    )


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_is_that_of_one_process(
    kind: str, strategy: str, even_model: Path, data: Path, tmp_path: Path
) -> None:
    wanted = asked(even_model, data, kind)
    spread = compute(wanted, tmp_path / "spread", Devices.of(2, strategy))
    assert_same(spread, compute(wanted, tmp_path / "alone", ONE))
    assert spread.result.training.environment.strategy == strategy
    assert spread.store.notices == []


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_classification_head_is_that_of_one_process(
    strategy: str, tiny_roberta: Path, tmp_path: Path
) -> None:
    write_glue(tmp_path, 21)
    # Each process drops other numbers than one alone does.
    model = shutil.copytree(tiny_roberta, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config))
    settings = {**FLOAT32, "r": 2, "target_modules": ["query", "value"]}
    settings["training.protocol"] = "head"
    wanted = job("lora", ["mrpc"], settings, 0, f"local:{model}", f"local:{tmp_path}")
    spread = compute(wanted, tmp_path / "spread", Devices.of(2, strategy))
    assert_same(spread, compute(wanted, tmp_path / "alone", ONE))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_generated_answers_are_those_of_one_process(
    strategy: str, tiny_model: Path, llm_adapters: Path, tmp_path: Path
) -> None:
    """Processes write answers of different lengths, also to choose a checkpoint by."""
    settings = {
        **FLOAT32,
        "r": 2,
        "training.protocol": "generate",
        "training.select": "score",
        "training.train_items": 9,
        "training.validation_items": 3,
        "evaluation.items": 5,
    }
    source = f"local:{llm_adapters}"
    wanted = job("lora", ["piqa"], settings, 0, f"local:{tiny_model}", source)
    spread = compute(wanted, tmp_path / "spread", Devices.of(2, strategy))
    assert_same(spread, compute(wanted, tmp_path / "alone", ONE))
    assert all("text" in line for line in spread.predictions)


class Kills(Silent):
    """Kills a process of the group once, after some steps."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self.killed = False

    def training(self, done: int, total: int) -> None:
        if done == 5 and not self.killed:
            self.killed = True
            # In the order in which they were started.
            members = sorted(psutil.Process().children(), key=lambda member: member.create_time())
            members[self._rank].kill()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_loses_a_process_goes_on_in_the_same_command(
    rank: int, strategy: str, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    changes = {"training.validations": 3, "training.epochs": 2}
    wanted = asked(tiny_model, data, "lora", **changes)
    store, reporter, told = Store(tmp_path / "spread"), Kills(rank), []
    runner = runner_for(Devices.of(2, strategy), store, reporter)
    result = compute_or_wait(PlannedRun.of(wanted), runner, told.append)
    assert reporter.killed
    assert result.training.resumed
    assert len(told) == 1
    assert f"Process {rank + 1} of the 2 that computed it was killed" in told[0]
    assert [failure.kind for failure in store.failures.of(result.run)] == ["RunKilledError"]
    assert psutil.Process().children() == []
    assert_same(Stored(store, result), compute(wanted, tmp_path / "alone", ONE))


def test_a_killed_command_leaves_no_process_and_goes_on_with_one_device(
    tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "results"
    settings = {
        **FLOAT32,
        "r": 2,
        "training.epochs": 40,
        "training.validations": 40,
        # At 0.05 so many steps blow rounding up to 5 % of a loss; here it stays below 2e-7.
        "training.learning_rate": 0.002,
    }
    words = [sys.executable, "-m", "quanta_bench.cli.main", "run", "--method", "lora"]
    words += ["--task", f"jsonl:{data}", "--model", f"local:{tiny_model}", "--results", str(root)]
    words += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    process = start([*words, "--devices", "2"], stderr=subprocess.STDOUT)
    try:
        until(lambda: [*root.glob("unfinished/*/last.ckpt")])
        members = psutil.Process(process.pid).children(recursive=True)
        assert len(members) == 2
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    _, alive = psutil.wait_procs(members, timeout=60)
    assert not alive
    wanted = job("lora", [f"jsonl:{data}"], settings, 0, f"local:{tiny_model}", "embedded")
    assert not [*root.glob("runs/*")]
    found = compute(wanted, root, ONE)
    assert found.result.training.resumed
    assert_same(found, compute(wanted, tmp_path / "alone", ONE))


def until(ready: Any) -> None:
    end = time.monotonic() + 240
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_table_over_two_devices_is_that_over_one(
    tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    suite = write_suite(tmp_path, data, tiny_model, training="learning_rate: 0.05")
    cells = []
    for count in (1, 2):
        root = tmp_path / str(count)
        words = [sys.executable, "-m", "quanta_bench.cli.main", "table", str(suite), "--seeds", "0"]
        words += ["--devices", str(count), "--results", str(root), "--json"]
        # A launcher's variables are of no concern.
        environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert len([*root.glob("runs/*/result.json")]) == 2
        assert not [*root.glob("leases/*")]
        cells.append([row["cells"] for row in json.loads(done.stdout)["rows"]])
    for one, other in zip(*cells, strict=True):
        assert one.keys() == other.keys()
        for column, cell in one.items():
            assert cell["seeds"] == pytest.approx(other[column]["seeds"])
