"""Tensors derived from weights, kept only while a caller promises that the weights stay the same.

No tensor can tell whether it was written to: fused optimizers, writes through ``.data`` and sharded
training leave its version counter as it was. So nothing derived from weights is cached, except
inside `frozen`, or written into the base model by a merge.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class DerivedTensors:
    """What a module derives from its weights. A module has it as an attribute `derived`.

    A copy starts empty and outside any `frozen` block, however it is made.
    """

    def __init__(self) -> None:
        self._blocks = 0
        self._tensors: dict[Hashable, Tensor] = {}

    @property
    def kept(self) -> bool:
        """Whether a `frozen` block is open."""
        return self._blocks > 0

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of a key: the one kept, or a new one, which is kept inside `frozen`."""
        tensor = self._tensors.get(key)
        if tensor is None:
            tensor = make()
            if self.kept:
                self._tensors[key] = tensor
        return tensor

    def enter(self) -> None:
        """Keep tensors from now on."""
        self._blocks += 1

    def leave(self) -> None:
        """Drop all tensors, and keep no more once the outermost block ends."""
        self._blocks -= 1
        self._tensors.clear()

    def __reduce__(self) -> tuple[type[DerivedTensors], tuple[()]]:
        return DerivedTensors, ()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """A block in which no weight of a model changes, for scoring and generation.

    Modules keep what they derive from weights, and use it in passes without gradients. Weights
    written inside the block do not reach the outputs before its end. The end drops what was kept.
    Blocks may be nested.
    """
    attributes = [getattr(module, "derived", None) for module in model.modules()]
    kept = [derived for derived in attributes if isinstance(derived, DerivedTensors)]
    for derived in kept:
        derived.enter()
    try:
        yield
    finally:
        for derived in kept:
            derived.leave()
