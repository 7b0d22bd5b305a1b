"""A model's classification head: what belongs to it, how it starts, and that it trains.

A pretrained encoder has no head of its own. Its head starts from a seed, trains with whatever a
method trains, and is saved with it.
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
    """The parameters of a sequence classifier that stand outside its pretrained body, by name."""
    body = {id(parameter) for parameter in model.base_model.parameters()}
    return {name: value for name, value in model.named_parameters() if id(value) not in body}


@torch.no_grad()
def start_head(model: Any, seed: int) -> None:
    """Make the head float32 and fill it from the seed, whatever the checkpoint had there.

    As `transformers` does it for BERT and RoBERTa: weights from N(0, initializer_range), biases
    zero, scales of norms one.

    Raises:
        SourceError: the model has no head of its own, or one with parameters of another kind.
    """
    # The start depends on the seed alone, not on the machine.
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
            drawn = torch.randn(module.weight.shape, generator=generator) * deviation
            module.weight.copy_(drawn)
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
    """Refuse a method that leaves a head as it started.

    Args:
        head: names of the head's parameters in the base model.
        trained: names of what trains in the adapted model. A tuner puts words of its own into a
            parameter's name and leaves the rest of it in order.
        method: the method's name, for the message.

    Raises:
        UsageError: a parameter of the head does not train.
    """
    names = [name.split(".") for name in trained]
    for name in head:
        if not any(_in_order(name.split("."), words) for words in names):
            raise UsageError(
                f"The method {method!r} does not train {name}, and a classification head has to "
                "train: it starts at random. Name it among the method's modules_to_save, where it "
                "has such a setting, or choose another method."
            )


def _in_order(parts: Iterable[str], words: Iterable[str]) -> bool:
    left: Iterator[str] = iter(words)
    return all(part in left for part in parts)
