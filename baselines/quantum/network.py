"""Quantum networks: angles in, probabilities or expectation values out."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from baselines.quantum.ansatz import Ansatz
from baselines.quantum.backend import Backend
from baselines.quantum.engine import EngineBackend


class QuantumNetwork:
    """Qubits in |0...0>, an encoded input, and blocks of rotations and CNOTs (see `Ansatz`).

    It has no parameters: angles are passed at each call, in radians. A rotation by an angle a
    about an axis with Pauli matrix P is exp(-i a P / 2). Qubit 0 is the most significant bit of
    the index of a basis state.

    Args:
        qubits: Number of qubits.
        depth: Number of blocks.
        rotations: Rotations of a block on each qubit, of ``"rx"``, ``"ry"`` and ``"rz"``, in the
            order in which they act.
        entangler: ``"chain"``, ``"ring"`` or ``"none"``.
        encoding: Rotation that encodes inputs, ``"ry"`` or ``"rx"``.
        backend: The backend that computes the network; the circuit engine by default.

    Raises:
        ValueError: A value is out of range or a name unknown; the message names the argument.

    Example:
        >>> network = QuantumNetwork(2, 1)
        >>> network.probabilities(torch.zeros(network.shape))
        tensor([1., 0., 0., 0.])
    """

    def __init__(
        self,
        qubits: int,
        depth: int,
        rotations: Iterable[str] = ("ry",),
        entangler: str = "chain",
        *,
        encoding: str = "ry",
        backend: Backend | None = None,
    ) -> None:
        self.ansatz = Ansatz(qubits, depth, tuple(rotations), entangler, encoding)
        self.backend = EngineBackend() if backend is None else backend

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the angles: (depth, qubits, rotations)."""
        return self.ansatz.shape

    def probabilities(self, angles: Tensor, encoded: Tensor | None = None) -> Tensor:
        """Probabilities of the basis states.

        Args:
            angles: Shape ``(..., depth, qubits, rotations)``, any real floating dtype.
            encoded: Angles that encode an input, shape ``(..., qubits)``; none by default.
                Leading dimensions broadcast against those of ``angles``.

        Returns:
            Shape ``(..., 2**qubits)``, in the dtype that both promote to, but at least float32,
            also under autocast.

        Raises:
            ValueError: A tensor has the wrong shape or no real floating-point dtype.
        """
        angles, encoded, batch = self._checked(angles, encoded)
        if angles.is_meta:
            return angles.new_empty(*batch, 2**self.ansatz.qubits)
        with _without_autocast(angles):
            probabilities = self.backend.probabilities(self.ansatz, angles, encoded)
        return probabilities.expand(*batch, -1)

    def expectations(self, angles: Tensor, encoded: Tensor | None = None) -> Tensor:
        """Expectation values of Z on each qubit, in [-1, 1].

        Args:
            angles: As for `probabilities`.
            encoded: As for `probabilities`.

        Returns:
            Shape ``(..., qubits)``, of the same dtype as `probabilities`.

        Raises:
            ValueError: As for `probabilities`.
        """
        probabilities = self.probabilities(angles, encoded)
        with _without_autocast(probabilities):
            return probabilities @ _signs(self.ansatz.qubits, probabilities)

    def _checked(
        self, angles: Tensor, encoded: Tensor | None
    ) -> tuple[Tensor, Tensor | None, torch.Size]:
        shapes: dict[str, tuple[Tensor, tuple[int, ...]]] = {"angles": (angles, self.shape)}
        if encoded is not None:
            shapes["encoded"] = (encoded, (self.ansatz.qubits,))
        dtype, leads = torch.float32, []
        for name, (tensor, shape) in shapes.items():
            lead = tensor.dim() - len(shape)
            if lead < 0 or tuple(tensor.shape[lead:]) != shape:
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)}, expected "
                    f"(..., {', '.join(map(str, shape))})"
                )
            if not tensor.is_floating_point():
                raise ValueError(f"{name} has dtype {tensor.dtype}; it must be real floating-point")
            dtype = torch.promote_types(dtype, tensor.dtype)
            leads.append(tensor.shape[:lead])
        try:
            batch: torch.Size = torch.broadcast_shapes(*leads)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise ValueError(
                f"the leading dimensions of angles, {tuple(leads[0])}, and of encoded, "
                f"{tuple(leads[1])}, do not broadcast"
            ) from error
        return angles.to(dtype), None if encoded is None else encoded.to(dtype), batch

    def __repr__(self) -> str:
        ansatz = self.ansatz
        return (
            f"QuantumNetwork({ansatz.qubits}, {ansatz.depth}, {ansatz.rotations}, "
            f"{ansatz.entangler!r}, encoding={ansatz.encoding!r}, backend={self.backend!r})"
        )


def _signs(qubits: int, like: Tensor) -> Tensor:
    """Eigenvalues of Z on each qubit in each basis state: shape (2**qubits, qubits), +1 or -1."""
    states = torch.arange(2**qubits, device=like.device)
    places = torch.arange(qubits - 1, -1, -1, device=like.device)
    return 1 - 2 * (states[:, None] >> places & 1).to(like.dtype)


def _without_autocast(like: Tensor) -> AbstractContextManager[object]:
    """Disable autocast: in half precision, products of many factors would lose their norm."""
    # torch has no autocast on the meta device and raises even when disabling it.
    if like.is_meta or not torch.is_autocast_enabled(like.device.type):
        return nullcontext()
    return torch.autocast(like.device.type, enabled=False)
