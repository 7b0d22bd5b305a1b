"""The precision of a training: chosen once, and kept beside its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from quanta_bench.method import Method
from quanta_bench.models.precision import dtype_name, resolve
from quanta_bench.spec import TrainingSpec
from quanta_bench.utils.folders import whole_file


def read_precision(folder: Path) -> dict[str, str] | None:
    """The precision of an interrupted training; ``None`` if it had not been chosen.

    Raises:
        ValueError, KeyError, TypeError: the file is incomplete.
    """
    path = folder / "precision.json"
    if not path.exists():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    return {name: str(stored[name]) for name in ("base", "arithmetic")}


def kept_precision(
    folder: Path, spec: TrainingSpec, method: Method[Any], device: torch.device
) -> dict[str, str]:
    """A training's precision: chosen once, and reused when the training is resumed.

    The choice may depend on a timing, and a run must not change its base half-way.
    """
    stored = read_precision(folder)
    if stored is not None:
        return stored
    dtype, arithmetic = resolve(spec.precision, method.base_precision, device.type)
    precision = {"base": dtype_name(dtype), "arithmetic": arithmetic}
    if method.trains:
        with whole_file(folder / "precision.json") as stream:
            stream.write(json.dumps(precision).encode())
    return precision
