"""Loggers by name: their own readers find the curves of a training, its tags and its settings."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError, UsageError
from quanta_bench.models.loading import ModelRef, load_model
from quanta_bench.plugins import build_method
from quanta_bench.results.store import Store
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.runs.worker import WorkerSettings, _runner, compute_run
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec
from quanta_bench.training import loggers
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.loggers import LoggedRun, open_loggers, read_loggers
from quanta_bench.training.trainer import TrainingOutcome, train

Curve = dict[int, float]
Train = Callable[..., TrainingOutcome]

RUN = LoggedRun(
    name="lora-seed3-abc",
    tags={"method": "lora", "task": "boolq", "seed": "3"},
    labels=["lora", "boolq", "seed 3"],
    settings={"learning_rate": 0.01, "settings.r": 4, "warmup": 0.5},
)


@pytest.fixture
def fit(tiny_model: Path, llm_adapters: Path, tmp_path: Path) -> Train:
    """Train LoRA on the tiny model for four steps, followed by loggers."""

    def run(
        *names: str,
        results: Path,
        stop: Callable[[int, int], None] = lambda done, total: None,
        spoil: bool = False,
    ) -> TrainingOutcome:
        spec = TrainingSpec(
            tasks=("boolq",),
            source=f"local:{llm_adapters}",
            method="lora",
            settings={"r": 4},
            train_items=8,
            batch_size=4,
            epochs=2,
            validations=2,
            learning_rate=0.01,
            warmup=0.5,
        )
        method = build_method(spec.method, spec.settings)
        base = load_model(ModelRef(".", f"local:{tiny_model}"), torch.float32)
        model = method.adapt(base.model, 0)
        if spoil:
            with torch.no_grad():
                next(iter(method.trainable(model).values())).fill_(math.nan)
        data = BenchData(spec, Pools(), base.tokenizer, packed=True)
        with open_loggers(names, results, RUN) as opened:
            return train(
                model, method, spec, data, tmp_path / "run",
                device=torch.device("cpu"), precision="32-true", advance=stop, loggers=opened,
            )  # fmt: skip

    return run


def check(outcome: TrainingOutcome, curves: dict[str, Curve]) -> None:
    """The curves are those of the training. Loggers keep 32 bits."""
    steps = dict(enumerate(outcome.losses))
    assert len(steps) == 4
    assert curves["training/loss"] == pytest.approx(steps, rel=1e-6)
    # Warmup over the first half, then down to nothing.
    rates = {0: 0.01 / 3, 1: 0.02 / 3, 2: 0.01, 3: 0.005}
    assert curves["training/learning_rate"] == pytest.approx(rates, rel=1e-6)
    # A validation stands at the step that it follows.
    assert [one.step for one in outcome.validations] == [2, 4]
    found = {one.step - 1: one.loss for one in outcome.validations}
    assert curves["validation/loss"] == pytest.approx(found, rel=1e-6)
    found = {one.step - 1: one.metric for one in outcome.validations}
    assert curves["validation/metric"] == pytest.approx(found, rel=1e-6)


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'quanta-bench[loggers]'")


def csv_curves(path: Path) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    with path.open() as stream:
        for row in csv.DictReader(stream):
            for key, value in row.items():
                if value:
                    curves.setdefault(key, {})[int(row["step"])] = float(value)
    return curves


def test_csv(fit: Train, tmp_path: Path) -> None:
    outcome = fit("csv", results=tmp_path)
    folder = tmp_path / "loggers" / "csv" / RUN.name / "version_0"
    check(outcome, csv_curves(folder / "metrics.csv"))
    assert yaml.safe_load((folder / "hparams.yaml").read_text()) == RUN.parameters


def test_tensorboard(fit: Train, tmp_path: Path) -> None:
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    outcome = fit("tensorboard", results=tmp_path)
    events = EventAccumulator(str(tmp_path / "loggers/tensorboard" / RUN.name / "version_0"))
    events.Reload()
    tags = events.Tags()["scalars"]
    check(outcome, {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in tags})
    contents = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = HParamsPluginData.FromString(contents).session_start_info
    assert start.hparams["method"].string_value == "lora"
    assert start.hparams["seed"].string_value == "3"
    assert start.hparams["settings.r"].number_value == 4


def leveldb_log(data: bytes) -> Iterator[bytes]:
    """The records of a file of W&B: LevelDB's log format in blocks of 32 KiB, after 7 bytes.

    https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    block, header, record = 32768, 7, b""
    place = 7
    while place + header <= len(data):
        if block - place % block < header:
            place += block - place % block
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        place += header + length
        record += data[place - length : place]
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def ended(path: Path) -> list[Any]:
    """The records of a run of W&B, whose process writes the last ones after the run is finished."""
    from wandb.proto.wandb_internal_pb2 import Record

    give_up = time.monotonic() + 30
    while True:
        records = [Record.FromString(content) for content in leveldb_log(path.read_bytes())]
        if any(record.HasField("exit") for record in records) or time.monotonic() > give_up:
            return records
        time.sleep(0.1)


def test_wandb_offline(fit: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
    outcome = fit("wandb", results=tmp_path)
    (path,) = (tmp_path / "loggers" / "wandb").glob("wandb/offline-run-*/*.wandb")
    curves: dict[str, Curve] = {}
    settings = {}
    tags: set[str] = set()
    for record in ended(path):
        tags |= set(record.run.tags)
        for update in record.run.config.update:
            settings[update.key] = json.loads(update.value_json)
        values = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for key, value in values.items():
            if "/" in key:
                curves.setdefault(key, {})[values["trainer/global_step"]] = value
    check(outcome, curves)
    assert tags == {"lora", "boolq", "seed 3"}
    assert RUN.parameters.items() <= settings.items()


def test_mlflow_in_files(fit: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    outcome = fit("mlflow", results=tmp_path)
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "loggers" / "mlflow" / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("quanta-bench")
    (run,) = client.search_runs([experiment.experiment_id], "tags.method = 'lora'")
    curves = {
        key: {one.step: one.value for one in client.get_metric_history(run.info.run_id, key)}
        for key in run.data.metrics
    }
    check(outcome, curves)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == RUN.name
    assert RUN.tags.items() <= run.data.tags.items()
    assert run.data.params == {key: str(value) for key, value in RUN.parameters.items()}


def test_trackio(
    fit: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needs("trackio")
    # Read by the library when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    outcome = fit("trackio", results=tmp_path)
    import trackio
    from trackio import context_vars
    from trackio.sqlite_storage import SQLiteStorage

    assert capsys.readouterr().out == ""
    assert context_vars.current_run.get() is None  # which would be finished aloud at the end
    (run,) = trackio.Api().runs("quanta-bench")
    assert run.name == RUN.name
    assert RUN.parameters.items() <= run.config.items()
    curves: dict[str, Curve] = {}
    for values in SQLiteStorage.get_logs("quanta-bench", run.name):
        for key, value in values.items():
            if "/" in key:
                curves.setdefault(key, {})[values["step"]] = value
    check(outcome, curves)


# --- stops and failures ---------------------------------------------------------------------------


def test_a_resumed_training_logs_what_its_process_computed(fit: Train, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise StopError

    with pytest.raises(StopError):
        fit("csv", results=tmp_path, stop=stop)
    outcome = fit("csv", results=tmp_path)
    assert outcome.resumed
    folder = tmp_path / "loggers" / "csv" / RUN.name
    first, second = (
        csv_curves(folder / f"version_{n}" / "metrics.csv")["training/loss"] for n in (0, 1)
    )
    assert sorted(first) == [0, 1, 2]
    assert sorted(second) == [2, 3]
    assert {**first, **second} == pytest.approx(dict(enumerate(outcome.losses)))


def test_the_loss_at_which_a_training_diverged_is_logged(fit: Train, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="diverged at step 1"):
        fit("csv", results=tmp_path, spoil=True)
    path = tmp_path / "loggers" / "csv" / RUN.name / "version_0" / "metrics.csv"
    assert math.isnan(csv_curves(path)["training/loss"][0])


def test_a_misspelt_logger_has_a_near_miss_and_a_missing_package_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match=r"no logger 'tensorbord'\. Did you mean 'tensorboard'\?"):
        read_loggers(["csv", "tensorbord"])
    assert read_loggers(["csv", "csv"]) == ("csv",)
    monkeypatch.setitem(loggers.PACKAGES, "mlflow", "mlflow_that_is_nowhere")
    with pytest.raises(UsageError) as caught:
        read_loggers(["mlflow"])
    assert str(caught.value) == (
        "--logger mlflow needs the package mlflow_that_is_nowhere, which is not installed: pip "
        "install mlflow_that_is_nowhere, or pip install 'quanta-bench[loggers]' for all loggers."
    )


def test_a_logger_that_cannot_start_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loggers").write_text("in the way")
    with (
        pytest.raises(BenchError, match=r"^The logger csv could not be started: .*\.$"),
        open_loggers(["csv"], tmp_path, RUN),
    ):
        pass


# --- the run --------------------------------------------------------------------------------------


def test_a_worker_logs_a_run_under_its_tags_and_the_run_stays_the_same(
    tiny_model: Path, llm_adapters: Path, tmp_path: Path
) -> None:
    data = {"tasks": ("boolq", "piqa"), "source": f"local:{llm_adapters}"}
    training = TrainingSpec(
        model=ModelSpec(name=".", source=f"local:{tiny_model}"),
        method="lora",
        settings={"r": 2},
        seeds={"init": 5},
        train_items=8,
        precision="float32",
        **data,
    )
    job = Job("LoRA r=2", training, EvaluationSpec(items=4, **data))
    settings = WorkerSettings(tmp_path, 1, 1, loggers=("csv",))
    try:
        name = compute_run(settings, job, False, tell=lambda progress: None)
    finally:
        _runner.cache_clear()
    plain = Runner(Store(tmp_path), Silent())
    result = plain.find(PlannedRun.of(job))
    assert result is not None
    assert result.run == name
    (path,) = (tmp_path / "loggers").rglob("hparams.yaml")
    logged = yaml.safe_load(path.read_text())
    assert path.parts[-3] == f"lora-seed5-{result.training.id}"
    assert (logged["method"], logged["task"], logged["seed"]) == ("lora", "boolq,piqa", "5")
    assert (logged["row"], logged["settings.r"]) == ("LoRA r=2", 2)
    losses = csv_curves(path.with_name("metrics.csv"))["training/loss"]
    assert list(losses.values()) == pytest.approx(result.training.losses)
