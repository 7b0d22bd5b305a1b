"""Full fine-tuning: every weight of the base model trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from baselines.origins import COMPARED
from quanta_bench.method import BenchError, Method, MethodConfig, Row

if TYPE_CHECKING:
    from torch import nn

PAPER = "QuanTA paper, Table E.3"


class FullFineTuningConfig(MethodConfig):
    """There is nothing to set; the learning rate belongs to the training run."""


class FullFineTuning(Method[FullFineTuningConfig]):
    """Full fine-tuning in float32.

    Weights cast to bfloat16 would lose every step smaller than half a unit in their last place,
    which at usual learning rates is nearly all of them.
    """

    name = "full"
    title = "Full fine-tuning"
    Config = FullFineTuningConfig
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "Full fine-tuning",
            training={"learning_rate": 6e-5},
            origin={"learning_rate": COMPARED},
        ),
        "paper": Row("FT", training={"learning_rate": 1e-5}, origin={"learning_rate": PAPER}),
    }
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {"learning_rate": (1e-5, 2e-5, 6e-5, 2e-4)}
    source = "All parameters of the base model train."
    base_precision = "float32"

    def adapt(self, model: nn.Module, seed: int) -> nn.Module:
        """Make every parameter float32 and trainable. Nothing is random, so the seed is unused."""
        import torch

        return model.to(torch.float32).requires_grad_(True)

    def trainable(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Every parameter, a tied one once."""
        return dict(model.named_parameters())

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the whole model: safetensors, in shards where it is large, and its config.

        `from_pretrained` of `transformers` reads the folder too. Tied weights are written once.
        """
        from huggingface_hub import save_torch_model

        folder.mkdir(parents=True, exist_ok=True)
        save_torch_model(model, folder)
        config = getattr(model, "config", None)
        if config is not None:
            config.save_pretrained(folder)

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """Put the saved weights, bit for bit, into a fresh base model.

        Raises:
            BenchError: the folder does not hold the weights of this model.
        """
        import torch
        from huggingface_hub import load_torch_model

        model = model.to(torch.float32)
        try:
            missing, unexpected = load_torch_model(model, folder)
        except (RuntimeError, ValueError, OSError) as error:
            raise BenchError(
                f"{folder} does not hold the weights of this {type(model).__name__}: {error}"
            ) from error
        # A tied weight is in the file under one of its names; the others are not missing.
        state = model.state_dict()
        filled = {state[name].data_ptr() for name in state if name not in missing}
        absent = [name for name in missing if state[name].data_ptr() not in filled]
        if absent or unexpected:
            raise BenchError(
                f"{folder} does not hold the weights of this {type(model).__name__}: "
                f"missing {absent[:3] or 'none'}, not part of it {unexpected[:3] or 'none'}."
            )
        return model.requires_grad_(False).eval()

    def merge(self, model: nn.Module) -> nn.Module:
        """Return the model: what trained are the base's own weights."""
        return model
