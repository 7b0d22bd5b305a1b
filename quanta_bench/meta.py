"""Models without weights: exact parameter counts of any method on any model, in a moment.

The configurations of the models that the tables name are shipped in ``model_configs``, one JSON
file a model, so that neither a model hub nor memory for weights is needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from quanta_bench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from quanta_bench.method import Method

Denominator = Literal["base", "base+added"]


@dataclass(frozen=True)
class Count:
    """Parameters of a method on a model.

    Attributes:
        trainable: parameters that train.
        base: parameters of the base model, a tied one once.
        added: those that train and are not the base's own.
    """

    trainable: int
    base: int
    added: int

    @property
    def of_base(self) -> float:
        """Trainable / base: the percentage of the paper's Tables 1, 2 and F.5, as a fraction."""
        return self.trainable / self.base

    @property
    def of_total(self) -> float:
        """Trainable / (base + added): that of Tables 3, 4 and F.6, as a fraction."""
        return self.trainable / (self.base + self.added)

    def share(self, denominator: Denominator) -> float:
        """The fraction by the denominator that a table names."""
        return self.of_base if denominator == "base" else self.of_total


def known_models() -> tuple[str, ...]:
    """Names of the models whose configuration is shipped, sorted."""
    return tuple(
        sorted(
            entry.name.removesuffix(".json")
            for entry in files("quanta_bench").joinpath("model_configs").iterdir()
            if entry.name.endswith(".json")
        )
    )


def meta_model(name: str) -> nn.Module:
    """A model on the meta device: all its layers and shapes, no weights.

    Args:
        name: one of `known_models`, or its name on the hub.

    Raises:
        UsageError: no such model is shipped.
    """
    import torch
    import transformers

    description = _description(name)
    config = transformers.AutoConfig.for_model(**description["config"])
    with torch.device("meta"):
        model: nn.Module = getattr(transformers, description["class"]).from_config(config)
    return model.eval()


def hub_name(name: str) -> str:
    """A model's name on the hub; a name that is not shipped is taken to be one already."""
    return str(_description(name)["hub"]) if name in known_models() else name


def count(model: nn.Module, method: Method[Any], seed: int = 0) -> Count:
    """Count a method's parameters on a model.

    Args:
        model: the base model, on the meta device or with weights. It is adapted in place and of
            no further use.
        method: the method.
        seed: of the adapter's start; the count does not depend on it.

    Raises:
        BenchError: the method does not fit the model, or cannot do without weights.
    """
    own = {id(parameter): parameter.numel() for parameter in model.parameters()}
    trainable = method.trainable(method.adapt(model, seed)).values()
    return Count(
        trainable=sum(parameter.numel() for parameter in trainable),
        base=sum(own.values()),
        added=sum(parameter.numel() for parameter in trainable if id(parameter) not in own),
    )


def _description(name: str) -> dict[str, Any]:
    folder = files("quanta_bench").joinpath("model_configs")
    hub_names: list[str] = []
    for known in known_models():
        description: dict[str, Any] = json.loads(folder.joinpath(f"{known}.json").read_text())
        if name in (known, description["hub"]):
            return description
        hub_names.append(description["hub"])
    raise UsageError(
        f"No configuration of a model {name!r} is shipped. "
        + did_you_mean(name, (*known_models(), *hub_names))
    )
