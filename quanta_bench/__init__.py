"""quanta-bench: a benchmark suite for parameter-efficient fine-tuning of language models."""

import logging
import os

__version__ = "0.1.0"

# Before anything imports transformers, which would else download compiled code from the hub for
# some architectures where the package `kernels` is installed.
os.environ.setdefault("USE_HUB_KERNELS", "NO")
# It warns at import that it could not download a kernel from there either.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# At each pass through a layer of 8 bits it says that it casts the input.
logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
# Where it is installed, peft imports it: it says that its GPU kernels cannot be loaded on a
# processor, and torch that it registers its enumerations as former releases needed.
logging.getLogger("torchao").setLevel(logging.CRITICAL)
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
