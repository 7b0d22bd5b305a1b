"""Backends by the names that settings have for them."""

from __future__ import annotations

from baselines.quantum.backend import Backend
from baselines.quantum.engine import EngineBackend
from baselines.quantum.pennylane_backend import PennyLaneBackend


def backend_from(name: str, shots: int | None = None, seed: int = 0) -> Backend:
    """The backend that settings name.

    Args:
        name: ``"engine"``, or ``"pennylane:"`` and the name of one of PennyLane's devices.
        shots: Circuit runs from which values are estimated; exact values if ``None``.
        seed: Seed of the samples.

    Raises:
        ValueError: Unknown name, shots on the engine, PennyLane is not installed, or it has no
            such device.
    """
    kind, _, device = name.partition(":")
    if name == "engine":
        if shots is not None:
            raise ValueError(
                f"shots={shots!r}: the backend 'engine' is exact; leave shots out, or choose a "
                "device such as 'pennylane:default.qubit'"
            )
        return EngineBackend()
    if kind == "pennylane" and device:
        return PennyLaneBackend(device, shots, seed=seed)
    raise ValueError(
        f"backend={name!r} is neither 'engine' nor 'pennylane:' and the name of a device, such "
        "as 'pennylane:default.qubit'"
    )
