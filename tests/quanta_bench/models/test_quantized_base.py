"""A base in 4 bits: loaded so, counted as the plain one, trained on, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from animals import write_data
from tiny_models import save_llama

from quanta_bench.cli.single_run import job
from quanta_bench.errors import UsageError
from quanta_bench.models import loading
from quanta_bench.models.loading import ModelRef, load_model
from quanta_bench.results.store import Store
from quanta_bench.runs import together
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, TrainingSpec
from quanta_bench.suites.compatibility import check_protocols

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


@pytest.fixture(scope="module")
def even_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model all of whose widths are multiples of 64."""
    folder = tmp_path_factory.mktemp("even_model")
    save_llama(folder, intermediate_size=128)
    return folder


FOUR_BITS = {"training.quantization": "nf4"}


def test_linear_layers_are_the_nearest_of_4_bits(even_model: Path) -> None:
    reference = ModelRef(".", f"local:{even_model}")
    plain, packed = (
        load_model(reference, torch.float32, quantization=kind) for kind in ("none", "nf4")
    )
    assert packed.base_parameters == plain.base_parameters
    layers = dict(packed.model.named_modules())
    for name, layer in plain.model.named_modules():
        if not name.endswith("_proj"):
            continue
        own = layers[name]
        assert isinstance(own, bnb.nn.Linear4bit)
        assert own.weight.dtype is torch.float32  # what a group of processes can spread
        weight = bnb.functional.dequantize_4bit(own.weight, own.weight.quant_state)
        # Half the widest gap between neighbours of the 16 values, times each block's largest.
        blocks = layer.weight.reshape(-1, 64)
        bound = 0.153 * blocks.abs().amax(1, keepdim=True)
        assert ((weight.reshape(-1, 64) - blocks).abs() <= bound).all()
    assert type(layers["lm_head"]) is torch.nn.Linear


@pytest.fixture(scope="module")
def asked(even_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    data = write_data(tmp_path_factory.mktemp("data"))

    def make(method: str, settings: dict[str, Any], **more: Any) -> Job:
        common = {"training.precision": "float32", "training.learning_rate": 0.05, **more}
        words = settings | common
        return job(method, [f"jsonl:{data}"], words, 0, f"local:{even_model}", "embedded")

    return make


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("lora", {"r": 2}),
        pytest.param("none", {}, marks=pytest.mark.slow),
        pytest.param(
            "quanta", {"dims": {"q_proj": [4, 4, 4], "v_proj": [8, 8]}}, marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_on_4_bits_is_another_run_and_says_so(
    method: str, settings: dict[str, Any], asked: Any, tmp_path: Path
) -> None:
    runner = Runner(Store(tmp_path), Silent())
    plain, packed = (runner.run(asked(method, settings, **more)) for more in ({}, FOUR_BITS))
    assert packed.run != plain.run
    assert packed.training.spec.quantization == "nf4"
    assert packed.training.base_parameters == plain.training.base_parameters
    assert packed.training.trainable_parameters == plain.training.trainable_parameters
    own, theirs = (runner.store.predictions(result.run) for result in (packed, plain))
    assert own is not None
    assert theirs is not None
    for one, other in zip(own, theirs, strict=True):
        assert one["log_likelihoods"] != other["log_likelihoods"]
        assert one["log_likelihoods"] == pytest.approx(other["log_likelihoods"], rel=0.1)
    if method != "none":
        assert packed.training.losses == pytest.approx(plain.training.losses, rel=0.1)
        # Loaded again onto 4 bits for another evaluation.
        again = runner.run(asked(method, settings, **FOUR_BITS, **{"evaluation.max_length": 512}))
        assert again.training.id == packed.training.id
        assert runner.store.predictions(again.run) == own


def test_what_trains_the_bases_own_weights_is_refused(asked: Any) -> None:
    with pytest.raises(UsageError, match="'full' trains weights of the base itself"):
        asked("full", {}, **FOUR_BITS)


def test_a_classification_head_is_refused() -> None:
    common: dict[str, Any] = {"tasks": ("mrpc",), "protocol": "head"}
    training = TrainingSpec(method="lora", loss="labels", quantization="nf4", **common)
    with pytest.raises(UsageError, match="quantization=nf4 is for language models"):
        check_protocols(training, EvaluationSpec(**common))


def test_without_its_package_the_message_says_what_to_install(
    even_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'quanta-bench\[gpu\]'"):
        load_model(ModelRef(".", f"local:{even_model}"), torch.float32, quantization="nf4")


def test_a_width_that_makes_no_blocks_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"multiple of 64, and .*down_proj has 96"):
        load_model(ModelRef(".", f"local:{tiny_model}"), torch.float32, quantization="nf4")


def test_runs_on_4_bits_train_alone(asked: Any) -> None:
    assert together.key(PlannedRun.of(asked("lora", {"r": 2}))) is not None
    assert together.key(PlannedRun.of(asked("lora", {"r": 2}, **FOUR_BITS))) is None
