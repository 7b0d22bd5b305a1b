"""A gate: a linear map on one or two axes of a circuit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Nested: TypeAlias = "complex | tuple[Nested, ...]"


def _freeze(value: object) -> Nested:
    """Turn a tensor, array or nested list into nested tuples, which compare, hash and print."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, (int, float, complex)):
        return value
    raise ValueError(f"a gate's value must be made of numbers, got {value!r}")


@dataclass(frozen=True, init=False, repr=False)
class Gate:
    """A linear map on one or two axes of a circuit.

    Args:
        axes: The axes acted on, in the order of the gate tensor's own indices. Negative axes count
            from the last, as in indexing.
        out: Sizes of these axes after the gate; `None` leaves them as they are (a square gate).
        given: The tensor is passed at each call and may have leading batch dimensions. Otherwise
            the gate is trained: it counts as parameters and has no batch dimensions.
        value: A fixed gate's tensor (tensor, array or nested sequence, real or complex).

    A gate tensor has shape ``(out_m, out_n, in_m, in_n)``, or ``(out_m, in_m)`` on one axis.

    Raises:
        ValueError: The axes are not one or two distinct integers, the output sizes do not fit
            them, or the gate is both given and fixed.
    """

    axes: tuple[int, ...]
    out: tuple[int, ...] | None
    given: bool
    value: Nested | None

    def __init__(
        self,
        axes: Iterable[int],
        out: Iterable[int] | None = None,
        *,
        given: bool = False,
        value: object = None,
    ) -> None:
        object.__setattr__(self, "axes", tuple(axes))
        object.__setattr__(self, "out", None if out is None else tuple(out))
        object.__setattr__(self, "given", given)
        object.__setattr__(self, "value", None if value is None else _freeze(value))
        if len(self.axes) not in (1, 2) or len(set(self.axes)) != len(self.axes):
            raise ValueError(f"{self!r}: a gate acts on one axis or on two different ones")
        if self.out is not None:
            if len(self.out) != len(self.axes):
                raise ValueError(f"{self!r}: out needs one size for each of the gate's axes")
            if min(self.out) < 1:
                raise ValueError(f"{self!r}: out has a size below 1")
        if self.given and self.value is not None:
            raise ValueError(f"{self!r}: a gate is either given at each call or fixed, not both")

    def tensor(self) -> Tensor:
        """A fixed gate's tensor, in double precision; each call casts it to the input's dtype.

        Raises:
            ValueError: The gate is not fixed.
        """
        if self.value is None:
            raise ValueError(f"{self!r} has no value of its own")
        tensor = torch.tensor(self.value)
        return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)

    @property
    def fixed(self) -> bool:
        """Whether the gate carries its own tensor."""
        return self.value is not None

    @property
    def trained(self) -> bool:
        """Whether the gate's entries are parameters."""
        return not self.given and not self.fixed

    def __repr__(self) -> str:
        text = f"{self.axes}"
        if self.out is not None:
            text += f", out={self.out}"
        if self.given:
            text += ", given=True"
        if self.value is not None:
            text += f", value={self.value}"
        return f"Gate({text})"
