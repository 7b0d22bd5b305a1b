"""What the tuners of this package share: injection, saving and merging the `peft` way.

A new tuner is a configuration (`AdapterConfig`), a module that computes what is added at one linear
layer (`AdapterModule`), a tuner that makes the one from the other (`AdapterTuner`), and one call of
`register`. The rest is `peft`'s: adapters save, load, stack, switch and merge as LoRA's do.
"""

from __future__ import annotations

from baselines.tuners.config import AdapterConfig
from baselines.tuners.layer import AdaptedLinear, AdapterModule, Position
from baselines.tuners.merging import MergingLayer, linear_features
from baselines.tuners.register import register
from baselines.tuners.tuner import AdapterTuner, LinearTuner

__all__ = [
    "AdaptedLinear",
    "AdapterConfig",
    "AdapterModule",
    "AdapterTuner",
    "LinearTuner",
    "MergingLayer",
    "Position",
    "linear_features",
    "register",
]
