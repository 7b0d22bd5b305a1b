"""Read small results of a device without making the host wait for what was queued after them.

``Tensor.tolist`` on a GPU waits for everything that the host has queued, and the GPU is idle until
more is. A copy that is queued together with the result is complete as soon as the result is; the
host reads it when it has queued the next piece of work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Readback:
    """The values of a tensor, on their way to the host.

    Args:
        tensor: any shape, on any device; it may not be written to afterwards.
    """

    def __init__(self, tensor: Tensor) -> None:
        import torch

        self._values = tensor.detach()
        self._copied: Any = None
        if tensor.is_cuda:
            # A copy goes on beside the host only if it ends in pinned memory.
            self._values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._values.copy_(tensor.detach(), non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(tensor.device))

    def tolist(self) -> Any:
        """The values as nested lists, or as a number for a scalar; waits for these alone."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values.tolist()
