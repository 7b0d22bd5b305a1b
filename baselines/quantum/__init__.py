"""Quantum networks with trained angles, for methods that have one inside.

They run on the circuit engine of `baselines.quanta`, on which qubits are axes of size 2, or on a
device of PennyLane.
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
