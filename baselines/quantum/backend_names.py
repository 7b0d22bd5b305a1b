"""Backends by their names in settings."""

from __future__ import annotations

from baselines.quantum.backend import Backend
from baselines.quantum.engine import EngineBackend
from baselines.quantum.pennylane_backend import PennyLaneBackend


def backend_from(name: str, shots: int | None = None, seed: int = 0) -> Backend:
    """Create the backend with a name.

    Args:
        name: ``"engine"``, or ``"pennylane:"`` and the name of a PennyLane device.
        shots: Circuit executions from which values are estimated; exact values if ``None``.
        seed: Seed of the samples.

    Raises:
        ValueError: Unknown name, shots with the engine, PennyLane is not installed, or it lacks
            the device.
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
