"""What the tuners of this package share: injection, saving and merging the `peft` way.

A tuner of its own is a configuration (`AdapterConfig`), a part that says what is added to one
linear layer (`Part`), a tuner that makes the one from the other (`AdapterTuner`), and one call of
`register`. The rest is `peft`'s: adapters save, load, stack, switch and merge as LoRA's do.
"""

from __future__ import annotations

from baselines.tuners.config import AdapterConfig
from baselines.tuners.layer import AdaptedLinear, Part, Place
from baselines.tuners.merging import MergingLayer, linear_features
from baselines.tuners.register import register
from baselines.tuners.tuner import AdapterTuner, LinearTuner

__all__ = [
    "AdaptedLinear",
    "AdapterConfig",
    "AdapterTuner",
    "LinearTuner",
    "MergingLayer",
    "Part",
    "Place",
    "linear_features",
    "register",
]
