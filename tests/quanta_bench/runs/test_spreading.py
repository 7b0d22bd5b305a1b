"""One run over two processes: the result of one, no item twice or missing, and who is to blame."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from animals import write_data
from spread_runs import FLOAT32, Stored, assert_same, compute

from quanta_bench.cli.single_run import job
from quanta_bench.errors import RunKilledError, UsageError
from quanta_bench.runs.devices import ONE, Devices
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.spreading import _watch, runner_for
from quanta_bench.spec import Job
from quanta_bench.utils.processes import ChildProcess, close_all

TWO = Devices.of(2)


@pytest.fixture(scope="module")
def asked(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """LoRA on 21 items, so that the last batch has one for two processes."""
    data = write_data(tmp_path_factory.mktemp("data"), train=21, validation=5, test=9)
    settings = {
        **FLOAT32,
        "r": 2,
        "training.weight_decay": 0.1,
    }
    return job("lora", [f"jsonl:{data}"], settings, 0, f"local:{tiny_model}", "embedded")


@pytest.fixture(scope="module")
def alone(asked: Job, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return compute(asked, tmp_path_factory.mktemp("alone"), ONE)


@pytest.fixture(scope="module")
def spread(asked: Job, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return compute(asked, tmp_path_factory.mktemp("spread"), TWO)


def test_two_processes_train_and_score_as_one(alone: Stored, spread: Stored) -> None:
    assert not math.isclose(alone.result.training.losses[0], alone.result.training.losses[-1])
    assert_same(spread, alone)
    assert len({line["id"] for line in spread.predictions}) == len(spread.predictions) == 9


def test_the_devices_are_in_the_record_and_not_in_the_name(alone: Stored, spread: Stored) -> None:
    assert spread.result.run == alone.result.run
    for record in (spread.result.training.environment, spread.result.evaluation_environment):
        assert (record.devices, record.strategy) == (2, "ddp")
    assert (alone.result.training.environment.devices, TWO.strategy) == (1, "ddp")


def test_nothing_but_the_result_is_left(spread: Stored) -> None:
    root = spread.store.root
    assert not list(root.glob("leases/*"))
    assert not list(root.glob("unfinished/*"))
    assert not (root / "failures").exists()
    assert spread.store.notices == []
    assert list(root.glob("runs/*/logs/*/metrics.csv")) or list(root.glob("trainings/*/logs/*"))


def test_a_stored_run_needs_no_processes(
    asked: Job, spread: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quanta_bench.runs.spreading.ChildProcess", None)
    again = runner_for(TWO, spread.store, Silent()).run(asked)
    assert again == spread.result


@pytest.mark.parametrize(
    ("count", "strategy", "message"),
    [
        (0, "", "from 1 to 64, not 0"),
        (65, "ddp", "from 1 to 64, not 65"),
        (2, "dpp", "no strategy 'dpp'. Did you mean 'ddp'"),
        (1, "ddp", "name their number with --devices"),
    ],
)
def test_devices_that_make_no_sense_are_refused(count: int, strategy: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Devices.of(count, strategy)


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UsageError, match="--devices 2: this machine has 1 GPU"):
        TWO.check_here()


RAISE = "import time; from quanta_bench.errors import *; time.sleep({seconds}); raise {error}"


@pytest.fixture
def members() -> Any:
    """Two processes that know no torch."""
    pair = [ChildProcess(), ChildProcess()]
    yield pair
    close_all(pair, grace=0)


def test_a_process_that_ends_is_named_though_the_leading_one_waits(members: Any) -> None:
    members[0].call(time.sleep, 60)
    members[1].call(os.kill, members[1].pid, signal.SIGKILL)
    with pytest.raises(RunKilledError, match=r"Process 2 of the 2 .* killed"):
        _watch(members, print)


def test_what_another_process_raises_counts_before_its_loss(members: Any) -> None:
    """The leading process only says that it lost another one; that one says why."""
    members[0].call(exec, RAISE.format(seconds=0, error="RunKilledError('it lost another one')"))
    members[1].call(exec, RAISE.format(seconds=0.5, error="UsageError('the reason')"))
    with pytest.raises(UsageError, match="the reason"):
        _watch(members, print)
