"""Seeded randomness that leaves the global random state unchanged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Run a block with all global generators seeded, and restore their states afterwards.

    For code such as `peft` that samples from the global generators and accepts no generator.
    Covers those of Python, NumPy and PyTorch, the latter also on every visible accelerator.

    Args:
        seed: seed of all generators within the block.
    """
    import numpy as np
    import torch

    # fork_rng warns on a machine with several GPUs unless they are listed.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else None
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            random.seed(seed)
            np.random.seed(seed % 2**32)  # numpy takes 32 bits, torch 64
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
