"""QuanTA: quantum-informed tensor adaptation (arXiv:2406.00132), as a `peft` method.

Importing this package registers it with `peft`:

    from baselines.quanta import QuantaConfig
    model = get_peft_model(model, QuantaConfig(dims=(16, 8, 8, 4), target_modules=["q_proj"]))
"""

from __future__ import annotations

from baselines.quanta.circuit import Circuit
from baselines.quanta.config import QuantaConfig, QuantaType
from baselines.quanta.dims import choose_dims
from baselines.quanta.gate import Gate
from baselines.quanta.layer import QuantaLinear
from baselines.quanta.tuner import QuantaModel
from baselines.tuners import register

__all__ = [
    "Circuit",
    "Gate",
    "QuantaConfig",
    "QuantaLinear",
    "QuantaModel",
    "QuantaType",
    "choose_dims",
]

register(QuantaType.QUANTA, QuantaConfig, QuantaModel)
