"""Quantum networks with trained angles, as components of methods.

They run on the circuit engine of `baselines.quanta`, with qubits as axes of size 2, or on a
PennyLane device.
"""

from __future__ import annotations

from baselines.quantum.ansatz import Ansatz
from baselines.quantum.backend import Backend
from baselines.quantum.backend_names import backend_from
from baselines.quantum.engine import EngineBackend
from baselines.quantum.network import QuantumNetwork
from baselines.quantum.pennylane_backend import PennyLaneBackend

__all__ = [
    "Ansatz",
    "Backend",
    "EngineBackend",
    "PennyLaneBackend",
    "QuantumNetwork",
    "backend_from",
]
