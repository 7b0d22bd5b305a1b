"""A method on a tiny model, trained for a few steps, and read back in a process of its own."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from quanta_bench.method import Method
from quanta_bench.testing.models import tiny_llama

IDS = torch.tensor([[5, 9, 2, 7, 11, 3], [8, 1, 6, 4, 10, 12]])
"""Two lines of six token ids, of shape (2, 6)."""


def base_model(device: str = "cpu", dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """The tiny LLaMA with tied weights, as most small models have them."""
    return tiny_llama(device=device, dtype=dtype, tie_word_embeddings=True)


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    """The scores of `IDS`, of shape (2, 6, 97); the model is in evaluation mode afterwards."""
    scores: Tensor = model.eval()(input_ids=IDS).logits
    return scores


@dataclass
class Trained:
    """A method on the tiny model, before and after a few steps.

    Attributes:
        method: what adapted the model.
        model: the adapted model, trained.
        base: each parameter of the base, and a copy of what it was.
        start: copies of the parameters that train, before the first step.
        losses: one a step.
        optimizer: that of the training; ``None`` where nothing trains.
    """

    method: Method[Any]
    model: nn.Module
    base: dict[str, tuple[nn.Parameter, Tensor]]
    start: dict[str, Tensor]
    losses: list[float] = field(default_factory=list)
    optimizer: torch.optim.Optimizer | None = None

    @property
    def logits(self) -> Tensor:
        """The scores of `IDS`."""
        return logits(self.model)

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that train."""
        return self.method.trainable(self.model)


def train(
    method: Method[Any], dtype: torch.dtype = torch.float32, steps: int = 20, seed: int = 3
) -> Trained:
    """Adapt the tiny model and memorise two lines, under autocast if the base is bfloat16."""
    base = base_model(dtype=torch.float32 if method.base_precision == "float32" else dtype)
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


def logits_in_a_fresh_process(method: Method[Any], adapter: Path, base: Path) -> Tensor:
    """What a process that did not train computes from a saved adapter.

    The process is shared by all tests of a session, since its imports take seconds.

    Args:
        method: with its settings; its class is found by its module and name.
        adapter: the folder that the method saved.
        base: the folder with the base model.

    Returns:
        The scores of `IDS`.
    """
    task = _process().submit(_load, type(method), method.config.model_dump_json(), adapter, base)
    return torch.tensor(task.result(timeout=300))


@cache
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _load(kind: type[Method[Any]], config: str, adapter: Path, base: Path) -> Any:
    """In the other process: load the adapter, and return plain numbers."""
    torch.set_num_threads(1)
    method = kind(kind.Config.model_validate_json(config))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    model = method.load(AutoModelForCausalLM.from_pretrained(base), adapter)
    if not torch.equal(state, torch.get_rng_state()):
        raise AssertionError("load moved the global random state")
    if model.training:
        raise AssertionError("load returned a model in training mode, not ready to evaluate")
    return logits(model).tolist()
