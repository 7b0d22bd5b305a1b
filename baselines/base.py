"""The unchanged base model: the baseline row of every comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from quanta_bench.method import Method, MethodConfig, Row

if TYPE_CHECKING:
    from torch import nn


class NoFineTuningConfig(MethodConfig):
    """No settings."""


class NoFineTuning(Method[NoFineTuningConfig]):
    """No fine-tuning: nothing trains, nothing is saved."""

    name = "none"
    title = "No fine-tuning"
    Config = NoFineTuningConfig
    rows: ClassVar[Mapping[str, Row]] = {"embedded": Row("Base model"), "paper": Row("Base model")}
    source = "The pretrained model, untouched."
    trains = False

    def adapt(self, model: nn.Module, seed: int) -> nn.Module:
        """Freeze the model and return it."""
        return model.requires_grad_(False)

    def trainable(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """An empty dictionary: nothing trains."""
        return {}

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write nothing, but create the folder, so that all saved runs have one."""
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """Return the base model, ready to evaluate."""
        return model.requires_grad_(False).eval()

    def merge(self, model: nn.Module) -> nn.Module:
        """Return the model unchanged; it already is the base model."""
        return model
