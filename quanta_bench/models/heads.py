"""A model's classification head: its parameters, its initialisation, and a check that it trains.

A pretrained encoder has no head. The head is initialised from a seed, trained together with the
method's own parameters, and saved with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from quanta_bench.errors import SourceError, UsageError


def classifies(model: nn.Module) -> bool:
    """Whether a model is a sequence classifier of `transformers`."""
    return type(model).__name__.endswith("ForSequenceClassification")


def head_of(model: Any) -> dict[str, nn.Parameter]:
    """The parameters of a sequence classifier outside its pretrained body, by name."""
    body = {id(parameter) for parameter in model.base_model.parameters()}
    return {name: value for name, value in model.named_parameters() if id(value) not in body}


@torch.no_grad()
def start_head(model: Any, seed: int) -> None:
    """Convert the head to float32 and initialise it from the seed, whatever the checkpoint holds.

    Follows `transformers` for BERT and RoBERTa: weights from N(0, initializer_range), zero
    biases, unit scales of norms.

    Raises:
        SourceError: the model has no head, or one with layers of another kind.
    """
    # Drawn on the CPU, so that it depends only on the seed and not on the machine.
    generator = torch.Generator().manual_seed(seed)
    config = model.config.get_text_config()
    deviation = getattr(config, "initializer_range", None) or 0.02
    head = {id(parameter) for parameter in head_of(model).values()}
    if not head:
        raise SourceError(
            f"A {type(model).__name__} has no head apart from its body. Use another model."
        )
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not any(id(value) in head for value in own.values()):
            continue
        module.float()
        if isinstance(module, nn.Linear):
            weight = torch.randn(module.weight.shape, generator=generator) * deviation
            module.weight.copy_(weight)
        elif type(module).__name__.endswith("Norm"):
            nn.init.ones_(own["weight"])
        else:
            raise SourceError(
                f"The head of this {type(model).__name__} has a {type(module).__name__}, {name}, "
                "and only linear layers and norms are known there. Use another model."
            )
        if own.get("bias") is not None:
            nn.init.zeros_(own["bias"])


def check_trains(head: Iterable[str], trained: Iterable[str], method: str) -> None:
    """Refuse a method that does not train the head.

    Args:
        head: names of the head's parameters in the base model.
        trained: names of the trainable parameters of the adapted model. A tuner inserts components
            into a parameter's name and keeps the others in order.
        method: the method's name, for the message.

    Raises:
        UsageError: a parameter of the head does not train.
    """
    names = [name.split(".") for name in trained]
    for name in head:
        if not any(_is_subsequence(name.split("."), components) for components in names):
            raise UsageError(
                f"The method {method!r} does not train {name}, and a classification head has to "
                "train: it starts at random. Name it among the method's modules_to_save, where it "
                "has such a setting, or choose another method."
            )


def _is_subsequence(parts: Iterable[str], components: Iterable[str]) -> bool:
    remaining: Iterator[str] = iter(components)
    return all(part in remaining for part in parts)
