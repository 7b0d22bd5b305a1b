"""A batch in micro-batches: the loss and the gradient of the batch in one piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from quanta_bench.data import loader
from quanta_bench.data.encoding import Encoded
from quanta_bench.data.pools import Pools
from quanta_bench.models.loading import ModelRef, load_model
from quanta_bench.plugins import build_method
from quanta_bench.spec import TrainingSpec
from quanta_bench.task import Example, Prompt, Task
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
    batch = data.intervals[0][0]
    parts = data.micro_batches(batch)
    assert (len(parts) == len(batch)) == (budget == 1)
    found = accumulate_gradients(data.objective, model, parts)
    ours = gradients(model)

    expected = by_hand(model, batch, loss)
    expected.backward()
    theirs = gradients(model)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    assert ours.keys() == theirs.keys()
    assert max(value.abs().max() for value in theirs.values()) > 1e-4
    for name, value in theirs.items():
        # The model's norms compute in float32 whatever they are given.
        atol = 1e-6 * float(value.abs().max())
        torch.testing.assert_close(ours[name], value, rtol=0, atol=atol)


def test_a_budget_bounds_each_micro_batch_and_loses_no_item(make):
    *_, data = make(300)
    batch = data.intervals[0][0]
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
            parts = data.micro_batches(data.intervals[0][0])
            accumulate_gradients(data.objective, model, parts)
        found.append(gradients(model))
    for name, value in found[0].items():
        assert F.cosine_similarity(value.flatten(), found[1][name].flatten(), dim=0) > 0.99


@pytest.mark.parametrize("clip", [0.0, 1e-3])
@pytest.mark.parametrize("loss", ["candidates", "answer"])
def test_a_run_takes_the_steps_that_plain_torch_takes(make, tmp_path, loss, clip):
    """Parts of a step, a last batch that is smaller, the norm's bound and the schedule."""
    changes = {"batch_size": 6, "accumulate": 3, "epochs": 2, "clip_norm": clip, "warmup": 0.2}
    # Eight items an epoch, six and two to a batch.
    changes |= {"train_items": 4, "validations": 2, "weight_decay": 0.1, "loss": loss}
    run = {"advance": lambda done, total: None, "device": torch.device("cpu")}
    model, method, spec, data = make(80, torch.float32, **changes)
    trained = train(model, method, spec, data, tmp_path, precision="32-true", **run)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]

    model, method, spec, data = make(100_000, torch.float32, **changes)
    model.train()
    weights = list(method.trainable(model).values())
    optimizer = torch.optim.AdamW(weights, lr=spec.learning_rate, weight_decay=0.1)
    schedule = FineTuning(model, method, spec, data.steps, data).configure_optimizers()[
        "lr_scheduler"
    ]
    batches = [batch for interval in data.intervals for batch in interval]
    assert sorted(map(len, batches)) == [2, 2, 6, 6]
    losses = []
    for number, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = spec.learning_rate * schedule.lr_lambdas[0](number)
        value = by_hand(model, batch, loss)
        value.backward()
        losses.append(value.item())
        if clip:
            nn.utils.clip_grad_norm_(weights, clip)
        optimizer.step()
        optimizer.zero_grad()
    assert trained.losses == pytest.approx(losses, rel=1e-3)
    for name, value in method.trainable(model).items():
        torch.testing.assert_close(kept[f"model.{name}"], value.detach(), rtol=1e-3, atol=2e-5)


# --- any data, any number of parts ----------------------------------------------------------------


class Letters:
    """A tokenizer with a token a letter."""

    bos_token_id = eos_token_id = 0
    pad_token_id = 11
    cls_token_id = sep_token_id = None
    model_max_length = 10_000

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) - ord("a") + 1 for letter in text]

    def __call__(self, *texts: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [0] + [one for text in texts for one in self.encode(text)]}


class Words(Task):
    """Contexts and candidates of given lengths; a class or a number for a head."""

    name = "words"
    title = "Words"
    protocols = ("choice-text", "head")
    outputs = 2

    def examples(self, source: Any, split: str) -> list[Example]:
        raise NotImplementedError

    def prompt(self, example: Example, protocol: str) -> Prompt:
        context, *candidates = example.fields["texts"]
        return Prompt(context, tuple(candidates), candidates[example.gold])

    def texts(self, example: Example) -> tuple[str, ...]:
        return (example.fields["texts"][0],)


@dataclass
class Given:
    """Pools that hold the same items in every split."""

    task: Task
    items: list[Example]

    def sample(self, *_: Any) -> list[tuple[Task, list[Example]]]:
        return [(self.task, self.items)]


TEXT = st.text("abcdefgh", min_size=1, max_size=12)


@st.composite
def items(draw: st.DrawFn) -> list[Example]:
    texts = draw(st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=7))
    sizes = [draw(st.integers(3, 4)) for _ in texts]
    return [
        Example(f"words/{n}", str(n), {"texts": some[:size]}, draw(st.integers(0, 1)))
        for n, (some, size) in enumerate(zip(texts, sizes, strict=True))
    ]


def plain_model(loss: str) -> nn.Module:
    """A model of `transformers` that computes all in float64, and no dropout."""
    sizes = {"vocab_size": 12, "n_positions": 64, "n_embd": 8, "n_layer": 1, "n_head": 2}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(**sizes, **off, bos_token_id=0, eos_token_id=0, pad_token_id=11)
    kind = GPT2ForSequenceClassification if loss == "labels" else GPT2LMHeadModel
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config).double().eval()
        for value in model.parameters():
            value.data.normal_(0, 0.3)
    return model


MODELS = {loss: plain_model(loss) for loss in (*LOSSES, "labels")}


@pytest.mark.parametrize("loss", list(MODELS))
@settings(max_examples=25)
@given(items(), st.integers(1, 8), st.integers(1, 9), st.integers(1, 120), st.booleans())
def test_the_gradient_of_a_step_is_its_whole_batchs(
    loss: str, examples: list[Example], size: int, accumulate: int, budget: int, packed: bool
) -> None:
    """Whatever the lengths, the number of parts, the budget, and in the last batch too."""
    model = MODELS[loss]
    head = loss == "labels"
    spec = TrainingSpec(
        method="full", tasks=("rte",), loss=loss, batch_size=size, accumulate=accumulate,
        protocol="head" if head else "choice-text",
    )  # fmt: skip
    pools: Any = Given(Words(), examples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "CPU_TRAINING_TOKENS", budget)
        data = BenchData(spec, pools, Letters(), packed=packed, device=torch.device("cpu"))
        whole = spec.model_copy(update={"accumulate": 1})
        other = BenchData(whole, pools, Letters(), packed=packed, device=torch.device("cpu"))
        steps = [data.micro_batches(batch) for interval in data.intervals for batch in interval]
    batches = [batch for interval in data.intervals for batch in interval]
    assert batches == [batch for interval in other.intervals for batch in interval]
    assert sum(map(len, batches)) == len(examples)
    for batch, parts in zip(batches, steps, strict=True):
        assert max(len(part.items) for part in parts) <= -(-size // accumulate)
        found = accumulate_gradients(data.objective, model, parts)
        ours = gradients(model)
        if head:
            logits = [model(input_ids=torch.tensor([item.ids])).logits[0] for item in batch]
            golds = torch.tensor([item.example.gold for item in batch])
            expected = F.cross_entropy(torch.stack(logits), golds)
        else:
            expected = by_hand(model, batch, loss)
        expected.backward()
        theirs = gradients(model)
        # The loss of a head is computed in float64 too, so nothing here rounds to float32.
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-8)
