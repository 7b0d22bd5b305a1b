"""Shared base of the tuners in this package: injection, saving and merging in the style of `peft`.

A new tuner consists of a configuration (`AdapterConfig`), a module that computes the update of one
linear layer (`AdapterModule`), a tuner that creates the module from the configuration
(`AdapterTuner`), and a call of `register`. `peft` does the rest: adapters save, load, stack, switch
and merge like LoRA's.
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
