"""A tiny model, and the steps that every method is put through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from quanta_bench.method import Method

IDS = torch.tensor([[5, 9, 2, 7, 11, 3], [8, 1, 6, 4, 10, 12]])


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny_llama(device: str = "cpu", dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """The tiny LLaMA, with tied weights."""
    return tiny_models.tiny_llama(device=device, dtype=dtype, tie_word_embeddings=True)


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model.eval()(input_ids=IDS).logits


@dataclass
class Trained:
    """A method on a tiny model, before and after a few steps."""

    method: Method[Any]
    model: nn.Module
    base: dict[str, tuple[nn.Parameter, Tensor]]
    start: dict[str, Tensor]
    losses: list[float] = field(default_factory=list)
    optimizer: torch.optim.Optimizer | None = None

    @property
    def logits(self) -> Tensor:
        return logits(self.model)

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        return self.method.trainable(self.model)


def train(
    method: Method[Any], dtype: torch.dtype = torch.float32, steps: int = 20, seed: int = 3
) -> Trained:
    """Adapt a tiny model and memorise two lines, under autocast if the base is bfloat16."""
    base = tiny_llama(dtype=torch.float32 if method.base_precision == "float32" else dtype)
    before = {name: (value, value.detach().clone()) for name, value in base.named_parameters()}
    model = method.adapt(base, seed=seed).train()
    run = Trained(method, model, before, {})
    run.start = {name: value.detach().clone() for name, value in run.trainable.items()}
    if not run.trainable:
        return run
    run.optimizer = torch.optim.AdamW(run.trainable.values(), lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.losses.append(float(loss.detach()))
    return run


# Tests get these as fixtures: with pytest's importlib mode no test module imports another.


@pytest.fixture(scope="session", name="tiny")
def _tiny() -> Callable[..., LlamaForCausalLM]:
    return tiny_llama


@pytest.fixture(scope="session", name="ids")
def _ids() -> Tensor:
    return IDS


@pytest.fixture(scope="session", name="logits")
def _logits() -> Callable[[nn.Module], Tensor]:
    return logits


@pytest.fixture(scope="session", name="train")
def _train() -> Callable[..., Trained]:
    return train
