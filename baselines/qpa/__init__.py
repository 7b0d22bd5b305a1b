"""Quantum Parameter Adaptation: a quantum circuit and a linear map generate adapter weights."""

from __future__ import annotations

from baselines.qpa.generator import WeightGenerator

__all__ = ["WeightGenerator"]
