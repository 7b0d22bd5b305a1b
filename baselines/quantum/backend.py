"""The interface of quantum-network backends."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from baselines.quantum.ansatz import Ansatz


class Backend(ABC):
    """Computes the probabilities of a network's basis states, differentiably."""

    @abstractmethod
    def probabilities(self, ansatz: Ansatz, angles: Tensor, encoded: Tensor | None) -> Tensor:
        """Probabilities of the basis states.

        Args:
            ansatz: The network.
            angles: In radians, shape ``(..., depth, qubits, rotations)``, float32 or float64,
                never on the meta device.
            encoded: Shape ``(..., qubits)``, of the same dtype and device, or ``None``. Leading
                dimensions broadcast.

        Returns:
            Shape ``(..., 2**qubits)``, of that dtype and on that device. Leading dimensions equal,
            or broadcast to, the joint leading dimensions of ``angles`` and ``encoded``.
        """
