"""Prefix tuning, implemented by `peft`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from baselines import peft_types
from baselines.origins import COMPARED, OURS
from baselines.peft_method import PeftMethod
from quanta_bench.method import Claim, MethodConfig, Row, UsageError

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn

KIND = "PREFIX_TUNING"


class PrefixSettings(MethodConfig):
    """Settings of prefix tuning.

    Attributes:
        num_virtual_tokens: length of the prefix.
        start: ``normal``: N(0, 1), as in `peft`; ``tokens``: the model's own keys and values of
            randomly sampled tokens, as if they preceded the text (cf. the paper's Section 7.4:
            activations of real words, even unrelated ones, beat random values).
    """

    num_virtual_tokens: int = Field(30, ge=1)
    start: Literal["normal", "tokens"] = "normal"


class Prefix(PeftMethod[PrefixSettings]):
    """Prefix tuning: trained keys and values before those of the text, at every layer.

    They are trained directly, one vector per virtual token, of length 2 x layers x the width of a
    layer's keys; the paper instead trains a network that computes them. With grouped-query
    attention the keys are narrower than the hidden vectors: in SmolLM2-135M 192, not 576.
    Initialised from N(0, 1), 40 virtual tokens raise that model's perplexity on running text from
    49 to 43,500 before the first step; initialised from tokens, to 53.

    The prefix has no positions of its own; the positions of the text start after it. A left-padded
    row therefore needs ``position_ids`` that skip the padding, as ``generate`` passes them;
    otherwise its text would be farther from the prefix than without padding.
    """

    name = "prefix"
    title = "Prefix tuning"
    Config = PrefixSettings
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "Prefix 40 tokens",
            config={"num_virtual_tokens": 40, "start": "tokens"},
            training={"learning_rate": 1e-2},
            origin={
                "num_virtual_tokens": OURS,
                "start": "our choice, after Li and Liang 2021, Section 7.4",
                "learning_rate": COMPARED,
            },
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
        """A `PrefixTuningConfig`. It has no seed: the prefix uses the global generator."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(num_virtual_tokens=self.config.num_virtual_tokens)

    def adapt(self, model: nn.Module, seed: int) -> nn.Module:
        """Add the prefix to the model; its initial values depend only on the seed and the model.

        Raises:
            UsageError: gradient checkpointing is on, `peft` cannot add a prefix to the model's
                attention layers, or, for a start from tokens, the model has no key/value cache.
        """
        if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            raise UsageError(
                f"The method {self.name!r} does not work with gradient checkpointing: its prefix "
                "reaches the layers as a key/value cache, which checkpointing discards. Switch "
                "checkpointing off, or choose another method."
            )
        start = None
        if self.config.start == "tokens" and not any(p.is_meta for p in model.parameters()):
            start = _keys_and_values(model, self.config.num_virtual_tokens, seed)
        adapted = super().adapt(model, seed)
        if start is not None:
            (prefix,) = self.trainable(adapted).values()
            prefix.data.copy_(start)
        return adapted

    @classmethod
    def sizes(cls, model: nn.Module) -> Iterator[Mapping[str, Any]]:
        """Prefixes of 1 to 128 tokens."""
        for length in range(1, 129):
            yield {"num_virtual_tokens": length}


def _keys_and_values(model: Any, count: int, seed: int) -> Tensor:
    """Keys and values of random tokens, (count, 2 x layers x key width), in `peft`'s layout.

    Raises:
        UsageError: the model does not cache keys and values of every token, all of one width.
    """
    import torch

    config = model.config.get_text_config()
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(config.vocab_size, (1, count), generator=generator)
    if config.bos_token_id is not None:
        # Models trained with a start token before every text rely on it.
        ids[0, 0] = config.bos_token_id
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            output = model(input_ids=ids.to(model.device), use_cache=True)
    finally:
        model.train(training)
    layers = getattr(getattr(output, "past_key_values", None), "layers", None) or []
    tables = [table for layer in layers for table in (layer.keys, layer.values)]
    if not tables or any(table.shape != tables[0].shape for table in tables):
        raise UsageError(
            f"This {type(model).__name__} caches no keys and values that could initialise a "
            "prefix. Set start=normal."
        )
    return torch.cat([table[0].transpose(0, 1).flatten(1) for table in tables], dim=1)
