"""A cache of tensors derived from weights, active only while a caller promises not to change them.

Writes to a tensor cannot be detected reliably: fused optimizers, writes through ``.data`` and
sharded training do not change its version counter. So nothing derived from weights is cached,
except inside `frozen` or by a merge into the base model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class DerivedTensors:
    """The tensors that a module derives from its weights, stored as its attribute `derived`.

    A copy or unpickled instance starts empty and outside any `frozen` block.
    """

    def __init__(self) -> None:
        self._blocks = 0
        self._tensors: dict[Hashable, Tensor] = {}

    @property
    def kept(self) -> bool:
        """Whether a `frozen` block is open."""
        return self._blocks > 0

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of a key: the cached one, or a new one, which is cached inside `frozen`."""
        tensor = self._tensors.get(key)
        if tensor is None:
            tensor = make()
            if self.kept:
                self._tensors[key] = tensor
        return tensor

    def enter(self) -> None:
        """Start caching tensors."""
        self._blocks += 1

    def leave(self) -> None:
        """Drop all tensors; caching stops when the outermost block ends."""
        self._blocks -= 1
        self._tensors.clear()

    def __reduce__(self) -> tuple[type[DerivedTensors], tuple[()]]:
        return DerivedTensors, ()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """A block in which no weight of a model changes, for scoring and generation.

    Modules cache what they derive from weights and use it in passes without gradients. Changes to
    weights inside the block do not affect outputs until it ends; its end clears the cache. Blocks
    may be nested.
    """
    attributes = [getattr(module, "derived", None) for module in model.modules()]
    caches = [derived for derived in attributes if isinstance(derived, DerivedTensors)]
    for derived in caches:
        derived.enter()
    try:
        yield
    finally:
        for derived in caches:
            derived.leave()
