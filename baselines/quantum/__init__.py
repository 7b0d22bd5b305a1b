"""Quantum networks with trained angles, for methods that have one inside.

They run on the circuit engine of `baselines.quanta`, on which qubits are axes of size 2, or on a
device of PennyLane.
"""

from __future__ import annotations

from baselines.quantum.ansatz import Ansatz
from baselines.quantum.backend import Backend
from baselines.quantum.engine import EngineBackend
from baselines.quantum.network import QuantumNetwork
from baselines.quantum.pennylane_backend import PennyLaneBackend
from baselines.quantum.words import backend_from

__all__ = [
    "Ansatz",
    "Backend",
    "EngineBackend",
    "PennyLaneBackend",
    "QuantumNetwork",
    "backend_from",
]
