"""Prefix tuning, through `peft`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from baselines import peft_types
from baselines.origins import COMPARED, OURS
from baselines.peft_method import PeftMethod
from quanta_bench.method import Claim, MethodConfig, Row, UsageError

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

KIND = "PREFIX_TUNING"


class PrefixSettings(MethodConfig):
    """Settings of prefix tuning.

    Attributes:
        num_virtual_tokens: length of the prefix.
    """

    num_virtual_tokens: int = Field(30, ge=1)


class Prefix(PeftMethod[PrefixSettings]):
    """Prefix tuning: trained keys and values before those of the text, at every layer.

    They are the parameters themselves, one vector a virtual token of length 2 x layers x the width
    of a layer's keys, and start from N(0, 1); the paper instead trains a network that computes
    them. With grouped-query attention the keys are narrower than the hidden vectors: in
    SmolLM2-135M 192 and not 576.

    The prefix has no positions of its own, and those of the text begin after it. A row that is
    padded on the left therefore needs ``position_ids`` counted without the padding, as
    ``generate`` gives them, or its text would stand farther from the prefix than it does alone.
    """

    name = "prefix"
    title = "Prefix tuning"
    Config = PrefixSettings
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "Prefix 40 tokens",
            config={"num_virtual_tokens": 40},
            training={"learning_rate": 1e-2},
            origin={"num_virtual_tokens": OURS, "learning_rate": COMPARED},
        ),
        "paper": Row(
            "Prefix 30 tokens",
            config={"num_virtual_tokens": 30},
            training={"learning_rate": 3e-4},
            origin={
                "num_virtual_tokens": "our reading of the 0.11% that the QuanTA paper prints at "
                "7B: 0.117%, cut and not rounded",
                "learning_rate": "LLM-Adapters' README and finetune.py",
            },
        ),
    }
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "learning_rate": (1e-3, 2e-3, 5e-3, 1e-2, 2e-2),
        "num_virtual_tokens": (10, 20, 40),
    }
    source = "Li and Liang 2021, arXiv:2101.00190, Eq. 3; implementation: peft."
    footnote = "Keys and values are trained directly, without the paper's network: our reading."
    mergeable = Claim(False, peft_types.UNMERGEABLE[KIND])
    exact_start = Claim(False, peft_types.INEXACT[KIND])
    cacheable = Claim(False, peft_types.UNCACHEABLE[KIND])

    def peft_config(self, seed: int) -> PeftConfig:
        """A `PrefixTuningConfig`. It keeps no seed: the prefix is drawn from the global one."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(num_virtual_tokens=self.config.num_virtual_tokens)

    def adapt(self, model: nn.Module, seed: int) -> nn.Module:
        """Put the prefix into the model; its start depends on the seed alone.

        Raises:
            UsageError: the model has gradient checkpointing switched on, or no attention layers
                that `peft` knows how to give a prefix.
        """
        if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            raise UsageError(
                f"The method {self.name!r} does not work with gradient checkpointing: its prefix "
                "reaches the layers as a key/value cache, which checkpointing discards. Switch "
                "checkpointing off, or choose another method."
            )
        return super().adapt(model, seed)

    @classmethod
    def sizes(cls, model: nn.Module) -> Iterator[Mapping[str, Any]]:
        """Prefixes of 1 to 128 tokens."""
        for length in range(1, 129):
            yield {"num_virtual_tokens": length}
