"""The time of a pass, estimated from the operators that it calls.

Unlike a measured time, the estimate is the same in every run, so that a choice made by it is too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Rates(NamedTuple):
    """What operators take on a device, in seconds.

    Attributes:
        call: a call of an operator.
        byte: a byte that an operator reads or writes.
        operation: a floating-point operation of a matrix product.
    """

    call: float
    byte: float
    operation: float

    def product(self, vectors: int, rows: int, columns: int, itemsize: int) -> float:
        """Seconds in which the products of vectors with a matrix are added to other vectors.

        Args:
            vectors: their number.
            rows, columns: of the matrix; a vector has as many elements as it has columns.
            itemsize: bytes of an element.
        """
        moved = (rows * columns + vectors * (columns + 2 * rows)) * itemsize
        return self.call + moved * self.byte + 2 * vectors * rows * columns * self.operation


CPU = Rates(call=1.5e-5, byte=4e-11, operation=5e-12)
"""One core of an AMD EPYC with torch 2.13, fitted to the passes of LoRA, DoRA, KronA, MoRA, LoRETTA
and VeRA at a bfloat16 layer of 576 by 576, for 8, 64 and 512 vectors: all but one of 18 within
50 %. The model decides between times that mostly differ by more."""

GPU = Rates(call=5e-6, byte=5e-13, operation=5e-15)
"""From data sheets, not measured: 2e14 operations and 2e12 bytes a second, 5 us for a launch."""


def rates_of(device: torch.device) -> Rates:
    """The rates of a device."""
    return CPU if device.type == "cpu" else GPU


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums up the operators that are called inside; views cost nothing.

    Attributes:
        seconds: their estimated time.
    """

    def __init__(self, rates: Rates) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rates = rates
        self.seconds = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call an operator and add its time."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        returned = func._schema.returns
        aliased = returned[0].alias_info if returned else None
        if aliased is not None and not aliased.is_write:
            return output
        tensors = [
            value for value in tree_leaves((args, kwargs, output)) if isinstance(value, Tensor)
        ]
        moved = sum(value.numel() * value.element_size() for value in tensors)
        count = flop_registry.get(func._overloadpacket)
        operations = count(*args, **kwargs, out_val=output) if count is not None else 0
        rates = self.rates
        self.seconds += rates.call + moved * rates.byte + operations * rates.operation
        return output


def estimated_seconds(work: Callable[[], object], rates: Rates) -> float:
    """The estimated time of a call, which is made once."""
    operators = Operators(rates)
    with operators:
        work()
    return operators.seconds
