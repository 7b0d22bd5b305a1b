"""A batch in micro-batches: the loss and the gradient of the batch in one piece."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quanta_bench.data import loader
from quanta_bench.data.encoding import Encoded
from quanta_bench.data.pools import Pools
from quanta_bench.models.loading import ModelRef, load_model
from quanta_bench.plugins import build_method
from quanta_bench.spec import TrainingSpec
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.module import FineTuning
from quanta_bench.training.objectives import accumulate_gradients
from quanta_bench.training.trainer import train

LORA = {"r": 4, "alpha": 8, "target_modules": ("q_proj", "v_proj")}
LOSSES = ["candidates", "answer", "answer+prompt"]


@pytest.fixture
def make(tiny_model, llm_adapters, monkeypatch):
    """The tiny model with items of one real file, and a budget of tokens."""

    def build(budget: int, dtype=torch.float64, **changes: Any):
        monkeypatch.setattr(loader, "CPU_TRAINING_TOKENS", budget)
        values = {"train_items": 6, "batch_size": 12, "learning_rate": 1e-2, **changes}
        source = f"local:{llm_adapters}"
        spec = TrainingSpec(
            tasks=("boolq", "piqa"), source=source, method="lora", settings=LORA, **values
        )
        base = load_model(ModelRef(".", f"local:{tiny_model}"), torch.float32)
        method = build_method("lora", LORA)
        model = method.adapt(base.model, 0).to(dtype)
        with torch.no_grad():
            for number, value in enumerate(method.trainable(model).values()):
                random = torch.Generator().manual_seed(number)
                value.copy_(0.3 * torch.randn(value.shape, generator=random))
        device = torch.device("cpu")
        data = BenchData(spec, Pools(), base.tokenizer, packed=True, device=device)
        return model, method, spec, data

    return build


def by_hand(model: nn.Module, items: list[Encoded], loss: str) -> Tensor:
    """The loss of items by `transformers` alone, a candidate at a time."""
    values, tokens = [], []
    for item in items:
        scores = []
        for context, candidate in zip(item.contexts, item.candidates, strict=True):
            ids = torch.tensor([[*context, *candidate]])
            of_each = F.cross_entropy(
                model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none"
            )
            tokens.append(of_each if loss == "answer+prompt" else of_each[-len(candidate) :])
            scores.append(-of_each[-len(candidate) :].mean())
        if loss == "candidates":
            values.append(F.cross_entropy(torch.stack(scores), torch.tensor(item.gold)))
    return torch.stack(values).mean() if values else torch.cat(tokens).mean()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("budget", [1, 150, 100_000])
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradient_are_those_of_the_whole_batch(make, loss, budget):
    model, _, _, data = make(budget, loss=loss)
    batch = data.stretches[0][0]
    parts = data.micro_batches(batch)
    assert (len(parts) == len(batch)) == (budget == 1)
    found = accumulate_gradients(data.objective, model, parts, scale=0.5)
    ours = gradients(model)

    expected = by_hand(model, batch, loss)
    (expected / 2).backward()
    theirs = gradients(model)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=0)
    assert ours.keys() == theirs.keys()
    assert max(value.abs().max() for value in theirs.values()) > 1e-4
    for name, value in theirs.items():
        # The model's norms compute in float32 whatever they are given.
        atol = 1e-6 * float(value.abs().max())
        torch.testing.assert_close(ours[name], value, rtol=0, atol=atol)


def test_a_budget_bounds_each_micro_batch_and_loses_no_item(make):
    *_, data = make(300)
    batch = data.stretches[0][0]
    parts = data.micro_batches(batch)
    assert len(parts) > 1
    assert all(part.input_ids.numel() <= 300 or len(part.items) == 1 for part in parts)
    ids = sorted(item.example.id for part in parts for item in part.items)
    assert ids == sorted(item.example.id for item in batch)


def test_micro_batches_under_autocast_differ_by_rounding_alone(make):
    """Trained weights stay in float32 and are cast anew for every micro-batch of a batch."""
    found = []
    for budget in (1, 100_000):
        model, _, _, data = make(budget, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            parts = data.micro_batches(data.stretches[0][0])
            accumulate_gradients(data.objective, model, parts)
        found.append(gradients(model))
    for name, value in found[0].items():
        assert F.cosine_similarity(value.flatten(), found[1][name].flatten(), dim=0) > 0.99


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_a_run_takes_the_steps_that_plain_torch_takes(make, tmp_path, clip):
    """Parts of a step, a rest that is smaller, the norm's bound and the schedule."""
    changes = {"batch_size": 6, "accumulate": 3, "epochs": 2, "clip_norm": clip, "warmup": 0.2}
    # Eight items an epoch in batches of two: four batches, of which three make a step.
    changes |= {"train_items": 4, "validations": 2, "weight_decay": 0.1}
    run = {"advance": lambda done, total: None, "device": torch.device("cpu")}
    model, method, spec, data = make(80, torch.float32, **changes)
    train(model, method, spec, data, tmp_path, precision="32-true", **run)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]

    model, method, spec, data = make(100_000, torch.float32, **changes)
    model.train()
    weights = list(method.trainable(model).values())
    optimizer = torch.optim.AdamW(weights, lr=spec.learning_rate, weight_decay=0.1)
    schedule = FineTuning(model, method, spec, data.steps).configure_optimizers()["lr_scheduler"]
    groups = [part[i : i + 3] for part in data.stretches for i in range(0, len(part), 3)]
    for number, group in enumerate(groups):
        optimizer.param_groups[0]["lr"] = spec.learning_rate * schedule.lr_lambdas[0](number)
        for batch in group:
            (by_hand(model, batch, "candidates") / 3).backward()
        if clip:
            nn.utils.clip_grad_norm_(weights, clip)
        optimizer.step()
        optimizer.zero_grad()
    assert min(map(len, groups)) < 3
    for name, value in method.trainable(model).items():
        torch.testing.assert_close(kept[f"model.{name}"], value.detach(), rtol=1e-3, atol=2e-5)
