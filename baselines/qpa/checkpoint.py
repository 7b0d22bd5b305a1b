"""Checkpoints of generators, saved next to the adapter that they generate.

The folder ``generator`` contains `generator.safetensors`, the trained parameters, and
`generator.json`, the settings and the seed. Initial values are not saved; the seed reproduces them.
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
        BenchError: there are none, or their settings are different.
    """
    path = folder / FOLDER / DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(path.read_text())
        saved, seed = description["config"], int(description["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(
            f"{folder} contains no generator to continue training from ({path.name}: {error!r})."
        ) from error
    current = config.model_dump(mode="json")
    for name in current:
        if saved.get(name) != current[name]:
            raise BenchError(
                f"The generator in {folder} was trained with {name}={saved.get(name)!r}, not "
                f"{current[name]!r}."
            )
    return seed


def load_generators(parameters: Mapping[str, nn.Parameter], folder: Path) -> None:
    """Load the generators' parameters.

    Raises:
        BenchError: the file is missing or contains other parameters.
    """
    path = folder / FOLDER / WEIGHTS
    if not path.is_file():
        raise BenchError(f"{folder} contains no generator: {WEIGHTS} is missing.")
    saved = load_file(path)
    shapes = {name: tuple(value.shape) for name, value in parameters.items()}
    if shapes != {name: tuple(value.shape) for name, value in saved.items()}:
        raise BenchError(f"The generator in {folder} is for another model.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])


def check_weights(model: nn.Module, folder: Path) -> None:
    """Compare the generated weights with the adapter that was saved with the generators.

    Raises:
        BenchError: they differ, for example if the initial values depend on the kind of device.
    """
    from peft import get_peft_model_state_dict

    saved = load_file(folder / "adapter_model.safetensors")
    with settled(model):
        generated: dict[str, torch.Tensor] = get_peft_model_state_dict(
            model, save_embedding_layers=False
        )
        for name, value in saved.items():
            actual = generated[name].float().cpu()
            if not torch.allclose(actual, value.float(), rtol=1e-3, atol=1e-5):
                raise BenchError(
                    f"The generator in {folder} does not reproduce the saved {name}: off by up to "
                    f"{float((actual - value).abs().max()):.2g}. It was trained from different "
                    "initial values or on a different base model."
                )
