"""Randomness that depends on a seed alone and leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Run a block with every global generator seeded, and put their states back afterwards.

    For code that draws from global generators and takes none of its own, as `peft` does. Python's,
    numpy's and torch's are covered, torch's on every visible accelerator too.

    Args:
        seed: of all generators within the block.
    """
    import numpy as np
    import torch

    # fork_rng complains on a machine with several GPUs unless they are named.
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
