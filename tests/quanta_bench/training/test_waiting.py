"""The host does not wait for the device: no reading for a micro-batch, one loss for a step.

On a CPU nothing waits, but the readings that would wait on a GPU can be counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import optimizer as optimizers
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from quanta_bench.data import loader
from quanta_bench.data.pools import Pools
from quanta_bench.evaluation import evaluators
from quanta_bench.models.loading import ModelRef, load_model
from quanta_bench.plugins import build_method
from quanta_bench.spec import EvaluationSpec, TrainingSpec
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.module import FineTuning
from quanta_bench.training.trainer import train
from quanta_bench.utils.readback import Readback

SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "alpha": 8, "target_modules": ("q_proj", "v_proj")},
    "quanta": {"dims": (4, 4, 4), "rectangular": "pad"},
}

WAITING = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::is_nonzero",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::repeat_interleave.Tensor",
}
"""Operations whose result, or its shape, the host has to know before it goes on."""


class Operations(TorchDispatchMode):
    """Counts those that wait."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removesuffix(".default")
        if name in WAITING:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class Readings(TorchFunctionMode):
    """Counts the methods that take values out of a tensor without an operation of torch."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("tolist", "numpy", "cpu", "__array__"):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(found: Counter[str]) -> Iterator[None]:
    """Count all that waits in a block but what an optimiser reads of its step, held on the host."""
    kept: list[Counter[str]] = []
    before = optimizers.register_optimizer_step_pre_hook(lambda *_: kept.append(found.copy()))

    def restore(*_: Any) -> None:
        found.clear()
        found.update(kept.pop())

    after = optimizers.register_optimizer_step_post_hook(restore)
    try:
        with Operations(found), Readings(found):
            yield
    finally:
        before.remove()
        after.remove()


@pytest.fixture
def make(tiny_model: Path, llm_adapters: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def build(method: str, budget: int, device: str = "cpu", **changes: Any) -> Any:
        monkeypatch.setattr(loader, "CPU_TRAINING_TOKENS", budget)
        monkeypatch.setattr(loader, "TRAINING_TOKENS", budget)
        spec = TrainingSpec(
            tasks=("boolq", "piqa"), source=f"local:{llm_adapters}", method=method,
            settings=SETTINGS[method], **{"train_items": 12, "batch_size": 8, **changes},
        )  # fmt: skip
        base = load_model(ModelRef(".", f"local:{tiny_model}"), torch.float32)
        built = build_method(method, spec.settings)
        model = built.adapt(base.model, 0)
        data = BenchData(spec, Pools(), base.tokenizer, packed=True, device=torch.device(device))
        return model, built, spec, data, base.tokenizer

    return build


def readings(made: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Counter[str]]:
    """What each step of a training reads."""
    model, method, spec, data, _ = made
    steps: list[Counter[str]] = []
    original = FineTuning.training_step

    def step(self: FineTuning, batch: Any, batch_idx: int) -> None:
        steps.append(Counter())
        with counted(steps[-1]):
            original(self, batch, batch_idx)

    monkeypatch.setattr(FineTuning, "training_step", step)
    quiet = {"advance": lambda done, total: None, "precision": "32-true"}
    train(model, method, spec, data, folder, device=torch.device("cpu"), **quiet)
    return steps


@pytest.mark.parametrize("loss", ["candidates", "answer"])
@pytest.mark.parametrize("method", list(SETTINGS))
def test_a_step_reads_the_loss_of_the_one_before_and_nothing_else(
    method: str, loss: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(method, 150, loss=loss, validations=1)
    data = made[3]
    batches = [data.micro_batches(batch) for interval in data.intervals for batch in interval]
    assert min(map(len, batches)) > 1
    first, *others = readings(made, tmp_path, monkeypatch)
    # The model is probed once, on its first batch.
    assert others == [Counter({"tolist": 1})] * (len(batches) - 1)
    assert sum(first.values()) < 30


def test_the_counter_sees_what_it_is_to_see() -> None:
    found: Counter[str] = Counter()
    value = torch.ones(3)
    with counted(found):
        float(value.sum()), value.tolist(), value.nonzero(), bool(value.any()), value.sum().item()
    assert found == {"aten::_local_scalar_dense": 3, "tolist": 1, "aten::nonzero": 1}


def test_a_validation_reads_once_a_batch(make: Any) -> None:
    model, method, spec, data, _ = make("lora", 1000, validation_items=6)
    module = FineTuning(model.eval(), method, spec, data.steps, data)
    batches = list(data.val_dataloader())
    with torch.no_grad():
        module.validation_step(batches[0], 0)  # the model is probed
        found: Counter[str] = Counter()
        with counted(found):
            for number, batch in enumerate(batches):
                module.validation_step(batch, number)
    # What decides a comparison is computed on the host from what was read.
    assert found["tolist"] == len(batches)
    assert found["aten::_local_scalar_dense"] <= sum(len(batch.items) for batch in batches)


def test_likelihoods_are_read_after_all_batches(make: Any, monkeypatch: Any) -> None:
    """Scoring queues batch after batch; the host's first reading finds all of them computed."""
    monkeypatch.setattr(loader, "CPU_EVALUATION_TOKENS", 200)
    model, _, spec, _, tokenizer = make("lora", 1000)
    events: list[str] = []
    original = Readback.tolist
    monkeypatch.setattr(Readback, "tolist", lambda self: (events.append("read"), original(self))[1])
    handle = model.register_forward_hook(lambda *_: events.append("pass"))
    (task, examples), *_ = Pools().sample(spec.tasks, spec.source, "test", 8, 0)
    context = evaluators.Context(
        model.eval(), tokenizer, EvaluationSpec(tasks=spec.tasks, source=spec.source),
        True, True, torch.device("cpu"), lambda _: None,
    )  # fmt: skip
    evaluators.choose(context, task, examples)
    handle.remove()
    assert events.count("read") > 1
    assert "pass" not in events[events.index("read") :]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("loss", ["candidates", "answer"])
@pytest.mark.parametrize("method", list(SETTINGS))
def test_on_a_gpu_no_step_after_the_first_waits(
    method: str, loss: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch raises where an operation would wait for the device."""
    model, built, spec, data, _ = make(method, 150, "cuda", loss=loss, validations=1)
    original, done = FineTuning.training_step, []

    def step(self: FineTuning, batch: Any, batch_idx: int) -> None:
        torch.cuda.set_sync_debug_mode("error" if done else "default")
        try:
            original(self, batch, batch_idx)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        done.append(batch_idx)

    monkeypatch.setattr(FineTuning, "training_step", step)
    quiet = {"advance": lambda done, total: None, "precision": "bf16-mixed"}
    train(model, built, spec, data, tmp_path, device=torch.device("cuda"), **quiet)
    assert len(done) > 1
