"""A training is one process, whatever variables a launcher has set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only

from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec
from quanta_bench.training.single_process import single_process

SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_JOB_NAME": "x",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "n[1-2]",
    "SLURM_NNODES": "2",
}
TORCHRUN = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "x",
}
KUBEFLOW = {
    "KUBERNETES_PORT": "tcp://127.0.0.1:443",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "WORLD_SIZE": "2",
    "RANK": "1",
}
LIGHTNING = {
    "PL_TRAINER_MAX_EPOCHS": "1",
    "PL_TRAINER_LIMIT_TRAIN_BATCHES": "1",
    "PL_TRAINER_FAST_DEV_RUN": "True",
    "PL_GLOBAL_SEED": "7",
}


def train(model: Path, data: Path, results: Path) -> Result:
    common: dict[str, Any] = {"tasks": ("boolq",), "source": f"local:{data}"}
    training = TrainingSpec(
        model=ModelSpec(name=".", source=f"local:{model}"),
        method="lora",
        settings={"r": 2},
        train_items=8,
        validation_items=4,
        batch_size=4,
        precision="float32",
        **common,
    )
    job = Job("x", training, EvaluationSpec(items=4, **common))
    return Runner(Store(results), Silent()).run(job)


@pytest.fixture(scope="module")
def expected(tiny_model: Path, llm_adapters: Path, tmp_path_factory: Any) -> Result:
    return train(tiny_model, llm_adapters, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "variables",
    [SLURM, TORCHRUN, KUBEFLOW, LIGHTNING],
    ids=["slurm", "torchrun", "kubeflow", "lightning"],
)
def test_a_launchers_variables_change_nothing(
    expected: Result,
    tiny_model: Path,
    llm_adapters: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if variables is not LIGHTNING:
        # Lightning reads the rank when it is imported.
        monkeypatch.setattr(rank_zero_only, "rank", 1)
    found = train(tiny_model, llm_adapters, tmp_path)
    assert found.training.losses == expected.training.losses
    assert found.training.validations == expected.training.validations
    assert found.tasks["boolq"].metrics == expected.tasks["boolq"].metrics
    folder = Store(tmp_path).training_folder(found.training.id)
    assert list(folder.glob("logs/*/metrics.csv"))
    assert {name: os.environ[name] for name in variables} == variables


def test_a_command_of_a_cluster_on_the_path_changes_nothing(
    expected: Result,
    tiny_model: Path,
    llm_adapters: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(srun.parent), prepend=os.pathsep)
    found = train(tiny_model, llm_adapters, tmp_path / "results")
    assert found.training.losses == expected.training.losses


def test_everything_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(rank_zero_only, "rank", 3)
    with single_process() as environment:
        assert "RANK" not in os.environ
        assert rank_zero_only.rank == 0
        assert (environment.world_size(), environment.global_rank()) == (1, 0)
    assert os.environ["RANK"] == "3"
    assert rank_zero_only.rank == 3


def test_a_machine_with_slurm_trains_without_a_word(
    tiny_model: Path, llm_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning warns where it finds `srun`, and the tests take every warning for an error."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.touch(0o755)
    monkeypatch.setenv("PATH", str(srun.parent), prepend=os.pathsep)
    assert train(tiny_model, llm_adapters, tmp_path).training.losses
