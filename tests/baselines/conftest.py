"""A tiny model, and the steps that every method is put through, as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from quanta_bench.testing import training
from quanta_bench.testing.training import IDS, Trained, base_model


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Tests get these as fixtures: with pytest's importlib mode no test module imports another.


@pytest.fixture(scope="session", name="tiny")
def _tiny() -> Callable[..., LlamaForCausalLM]:
    return base_model


@pytest.fixture(scope="session", name="ids")
def _ids() -> Tensor:
    return IDS


@pytest.fixture(scope="session", name="logits")
def _logits() -> Callable[[nn.Module], Tensor]:
    return training.logits


@pytest.fixture(scope="session", name="train")
def _train() -> Callable[..., Trained]:
    return training.train
