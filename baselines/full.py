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
    """No settings; the learning rate belongs to the training run."""


class FullFineTuning(Method[FullFineTuningConfig]):
    """Full fine-tuning in float32.

    In bfloat16, any update smaller than half a unit in the last place of a weight is lost; at usual
    learning rates that is nearly every update.
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
        """Make every parameter float32 and trainable. The seed is unused: nothing is random."""
        import torch

        return model.to(torch.float32).requires_grad_(True)

    def trainable(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Every parameter; tied parameters once."""
        return dict(model.named_parameters())

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the whole model and its config as safetensors, sharded if large.

        `from_pretrained` of `transformers` can load the folder. Tied weights are written once.
        """
        from huggingface_hub import save_torch_model

        folder.mkdir(parents=True, exist_ok=True)
        save_torch_model(model, folder)
        config = getattr(model, "config", None)
        if config is not None:
            config.save_pretrained(folder)

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """Load the saved weights, bit for bit, into a fresh base model.

        Raises:
            BenchError: the folder does not contain the weights of this model.
        """
        import torch
        from huggingface_hub import load_torch_model

        model = model.to(torch.float32)
        try:
            missing, unexpected = load_torch_model(model, folder)
        except (RuntimeError, ValueError, OSError) as error:
            raise BenchError(
                f"{folder} does not contain the weights of this {type(model).__name__}: {error}"
            ) from error
        # The file has a tied weight under one of its names only; the others are not missing.
        state = model.state_dict()
        loaded = {state[name].data_ptr() for name in state if name not in missing}
        absent = [name for name in missing if state[name].data_ptr() not in loaded]
        if absent or unexpected:
            raise BenchError(
                f"{folder} does not contain the weights of this {type(model).__name__}: "
                f"missing {absent[:3] or 'none'}, not part of it {unexpected[:3] or 'none'}."
            )
        return model.requires_grad_(False).eval()

    def merge(self, model: nn.Module) -> nn.Module:
        """Return the model unchanged; training updated the base weights directly."""
        return model
