"""GPUs as their vendors' data sheets describe them, for estimates."""

from __future__ import annotations

from dataclasses import dataclass

from quanta_bench.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Gpu:
    """A GPU as its vendor's data sheet describes it.

    Attributes:
        title: its name.
        memory: bytes.
        bandwidth: bytes per second.
        bfloat16: operations per second on dense matrices.
        float32: the same in float32 without TensorFloat-32.
    """

    title: str
    memory: float
    bandwidth: float
    bfloat16: float
    float32: float


GPUS = {
    "a100-40gb": Gpu("NVIDIA A100 40 GB", 40e9, 1.555e12, 312e12, 19.5e12),
    "a100-80gb": Gpu("NVIDIA A100 80 GB", 80e9, 2.039e12, 312e12, 19.5e12),
    "h100-80gb": Gpu("NVIDIA H100 SXM 80 GB", 80e9, 3.35e12, 989e12, 67e12),
    "h200-141gb": Gpu("NVIDIA H200 SXM 141 GB", 141e9, 4.8e12, 989e12, 67e12),
    "l4-24gb": Gpu("NVIDIA L4 24 GB", 24e9, 0.3e12, 121e12, 30.3e12),
    "l40s-48gb": Gpu("NVIDIA L40S 48 GB", 48e9, 0.864e12, 362e12, 91.6e12),
    "rtx3090-24gb": Gpu("NVIDIA GeForce RTX 3090 24 GB", 24e9, 0.936e12, 71e12, 35.6e12),
    "rtx4090-24gb": Gpu("NVIDIA GeForce RTX 4090 24 GB", 24e9, 1.008e12, 165e12, 82.6e12),
}
DEFAULT_GPU = "a100-80gb"


def find_gpu(name: str) -> Gpu:
    """Look up a GPU by name.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in GPUS:
        raise UsageError(f"There is no GPU {name!r}. {did_you_mean(name, GPUS)}")
    return GPUS[name]
