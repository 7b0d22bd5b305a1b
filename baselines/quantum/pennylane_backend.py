"""Quantum networks on any PennyLane qubit device, simulated or real."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from baselines.quantum.ansatz import Ansatz
from baselines.quantum.backend import Backend


class PennyLaneBackend(Backend):
    """A PennyLane device, computing in float64 on the CPU.

    Gradients use backpropagation if the device is a simulator that supports it and there are no
    shots, otherwise the parameter-shift rule: each input is then a separate circuit, and its
    gradient takes two more circuits per angle and per encoded number.

    Args:
        device: Name of the device, as ``pennylane.device`` takes it.
        shots: Circuit executions from which probabilities are estimated; exact if ``None``.
        seed: Seed of the device's samples, if it accepts one. Such a device does not use the
            global random state.
        **options: Further arguments of the device.

    Raises:
        ValueError: PennyLane is not installed, the device does not exist, or ``shots`` is below 1.
    """

    def __init__(
        self, device: str, shots: int | None = None, *, seed: int = 0, **options: Any
    ) -> None:
        if shots is not None and (isinstance(shots, bool) or not isinstance(shots, int)):
            raise ValueError(f"shots={shots!r} is neither an integer nor None")
        if shots is not None and shots < 1:
            raise ValueError(f"shots={shots!r} is below 1; give None for exact values")
        pennylane = _pennylane()
        if device not in pennylane.plugin_devices:
            known = ", ".join(sorted(pennylane.plugin_devices))
            raise ValueError(
                f"PennyLane has no device {device!r}; those installed here are {known}. Others "
                "come with separate packages"
            )
        self.device, self.shots, self.seed, self.options = device, shots, seed, options
        self._nodes: dict[Ansatz, Callable[[Tensor, Tensor | None], Tensor]] = {}

    def probabilities(self, ansatz: Ansatz, angles: Tensor, encoded: Tensor | None) -> Tensor:
        """Probabilities of the basis states, shape ``(..., 2**qubits)``."""
        lead = angles.shape[: angles.dim() - len(ansatz.shape)]
        batch: torch.Size = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
            lead, () if encoded is None else encoded.shape[:-1]
        )
        width = 2**ansatz.qubits
        if not batch.numel():
            return angles.new_zeros(*batch, width)
        like = angles
        # PennyLane supports one batch dimension. Angles shared by all inputs have none.
        angles = angles.to("cpu", torch.float64)
        if lead:
            angles = angles.expand(*batch, *ansatz.shape).reshape(batch.numel(), *ansatz.shape)
        if encoded is not None:
            encoded = encoded.to("cpu", torch.float64)
            if batch:
                encoded = encoded.expand(*batch, ansatz.qubits).reshape(
                    batch.numel(), ansatz.qubits
                )
        if ansatz not in self._nodes:
            self._nodes[ansatz] = self._node(ansatz)
        result = self._nodes[ansatz](angles, encoded)
        # Without inputs and blocks, nothing in the circuit has a batch dimension.
        return result.expand(batch.numel(), width).reshape(*batch, width).to(like)

    def _node(self, ansatz: Ansatz) -> Callable[[Tensor, Tensor | None], Tensor]:
        qml = _pennylane()
        options = dict(self.options)
        parameters = signature(qml.plugin_devices[self.device].load()).parameters
        if "seed" in parameters:
            options.setdefault("seed", self.seed)
        wires = range(ansatz.qubits)
        rotations = {"rx": qml.RX, "ry": qml.RY, "rz": qml.RZ}

        def circuit(angles: Tensor, encoded: Tensor | None) -> Any:
            if encoded is not None:
                for wire in wires:
                    rotations[ansatz.encoding](encoded[..., wire], wires=wire)
            for block in range(ansatz.depth):
                for wire in wires:
                    for index, name in enumerate(ansatz.rotations):
                        rotations[name](angles[..., block, wire, index], wires=wire)
                for cnot in ansatz.cnots:
                    qml.CNOT(wires=cnot)
            return qml.probs(wires=wires)

        device = qml.device(self.device, wires=ansatz.qubits, **options)
        backprop = self.shots is None and device.supports_derivatives(
            qml.devices.ExecutionConfig(gradient_method="backprop")
        )
        node: Callable[[Tensor, Tensor | None], Tensor] = qml.QNode(
            circuit,
            device,
            interface="torch",
            diff_method="backprop" if backprop else "parameter-shift",
            shots=self.shots,
        )
        if not backprop:  # the parameter-shift rule does not support batches
            node = qml.transforms.broadcast_expand(node)
        return node

    def __getstate__(self) -> dict[str, Any]:
        # Nodes hold devices, not all of which can be copied or pickled; they are recreated.
        return {**self.__dict__, "_nodes": {}}

    def __repr__(self) -> str:
        options = "".join(f", {key}={value!r}" for key, value in self.options.items())
        return f"PennyLaneBackend({self.device!r}, {self.shots}, seed={self.seed}{options})"


def _pennylane() -> Any:
    try:
        import pennylane
    except ImportError:
        raise ValueError(
            "the backend 'pennylane:...' needs PennyLane, which is not installed: "
            "pip install 'quanta-bench[quantum]', or choose the backend 'engine'"
        ) from None
    return pennylane
