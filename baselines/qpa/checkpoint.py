"""What is saved of generators beside the adapter that they generate.

A folder ``generator`` holds `generator.safetensors`, the trained parameters, and `generator.json`,
the settings and the seed. The starts are not saved: the seed gives them again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from baselines.qpa.generated import NAME, Generators, settled
from quanta_bench.method import BenchError, MethodConfig

if TYPE_CHECKING:
    from torch import nn

FOLDER = "generator"
WEIGHTS = "generator.safetensors"
DESCRIPTION = "generator.json"


def save_generators(generators: Generators, config: MethodConfig, folder: Path) -> None:
    """Write the generators' parameters, the settings and the seed."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            f"{NAME}.{name}": value.detach().contiguous()
            for name, value in generators.named_parameters()
        },
        target / WEIGHTS,
    )
    description = {"seed": generators.seed, "config": config.model_dump(mode="json")}
    (target / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def read_seed(config: MethodConfig, folder: Path) -> int:
    """The seed of saved generators.

    Raises:
        BenchError: there are none, or their settings are not these.
    """
    path = folder / FOLDER / DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(path.read_text())
        saved, seed = description["config"], int(description["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(
            f"{folder} holds no generator to go on training with ({path.name}: {error!r})."
        ) from error
    present = config.model_dump(mode="json")
    for name in present:
        if saved.get(name) != present[name]:
            raise BenchError(
                f"The generator in {folder} was trained with {name}={saved.get(name)!r}, not "
                f"{present[name]!r}."
            )
    return seed


def load_generators(parameters: Mapping[str, nn.Parameter], folder: Path) -> None:
    """Fill the generators' parameters.

    Raises:
        BenchError: the file is not there, or holds other parameters.
    """
    path = folder / FOLDER / WEIGHTS
    if not path.is_file():
        raise BenchError(f"{folder} holds no generator: {WEIGHTS} is not there.")
    saved = load_file(path)
    shapes = {name: tuple(value.shape) for name, value in parameters.items()}
    if shapes != {name: tuple(value.shape) for name, value in saved.items()}:
        raise BenchError(f"The generator in {folder} is for another model.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])


def check_weights(model: nn.Module, folder: Path) -> None:
    """Compare what the generators give with the adapter that was saved with them.

    Raises:
        BenchError: they differ, as where a start was drawn on another kind of device.
    """
    from peft import get_peft_model_state_dict

    saved = load_file(folder / "adapter_model.safetensors")
    with settled(model):
        found: dict[str, torch.Tensor] = get_peft_model_state_dict(
            model, save_embedding_layers=False
        )
        for name, value in saved.items():
            same = found[name].float().cpu()
            if not torch.allclose(same, value.float(), rtol=1e-3, atol=1e-5):
                raise BenchError(
                    f"The generator in {folder} does not give the saved {name} again: off by up "
                    f"to {float((same - value).abs().max()):.2g}. It was trained from another "
                    "start, or on another base model."
                )
