"""Tuners whose parameters are sharded by FSDP2, against the same steps in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn

from tests.baselines.conformity.tuners import IDS, TUNERS, adapted, logits

STEPS = 3
PROCESSES = 2


def train(model: Any, optimiser: torch.optim.Optimizer) -> None:
    for _ in range(STEPS):
        model.eval()
        logits(model)  # what a layer might keep is stale after the step
        model.train()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def trained(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    found = {}
    try:
        for name, tuner in TUNERS.items():
            model = adapted(tuner)
            for layer in model.get_base_model().model.layers:
                fully_shard(layer)
            fully_shard(model)
            train(model, torch.optim.AdamW(trained(model), lr=0.05))
            outputs = logits(model.eval())
            whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
            found[name] = outputs, get_model_state_dict(model, options=whole)
        if rank == 0:
            torch.save(found, f"{folder}/found.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By tuner: logits after some steps in two processes, and the gathered weights."""
    folder: Path = tmp_path_factory.mktemp("sharded")
    spawn(work, (str(folder),), nprocs=PROCESSES)
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("name", TUNERS)
def test_sharded_steps_are_those_of_one_process(name: str, sharded: dict[str, Any]) -> None:
    outputs, weights = sharded[name]
    model = adapted(TUNERS[name])
    start = logits(model)
    train(model, torch.optim.AdamW(trained(model), lr=0.05))
    assert not torch.allclose(outputs, start, atol=1e-3)
    assert torch.allclose(outputs, logits(model.eval()), atol=1e-4)
    fresh = adapted(TUNERS[name], seed=2)
    fresh.load_state_dict(weights)
    assert torch.allclose(logits(fresh), outputs, atol=1e-5)
