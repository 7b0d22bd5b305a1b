"""The configuration of a QuanTA adapter."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from baselines.quanta.rectangular import Rectangular
from baselines.tuners.config import AdapterConfig
from baselines.tuners.settings import Count, Probability

Dims: TypeAlias = "tuple[int, ...] | None"
Recompute: TypeAlias = Literal["auto", "always", "never"]

REST = ".*"  # the pattern for all modules that no other pattern matches


class QuantaType(enum.StrEnum):
    """The `peft` type of a QuanTA adapter; saved as ``"QUANTA"``."""

    QUANTA = "QUANTA"


@dataclass
class QuantaConfig(AdapterConfig):
    """Configuration of QuanTA (arXiv:2406.00132) as a `peft` method.

    Args:
        dims: Sizes of the axes into which a layer's width is split, such as ``(16, 8, 8, 4)`` for
            4096. `None` chooses them for each layer (see `choose_dims`). A dictionary sets them per
            module: its keys are regular expressions for the end of a module's name, after a dot
            (``"q_proj"``, ``"[0-3].mlp.up_proj"``), ``".*"`` matches all modules that no other
            key matches, and a value of `None` chooses. The order of patterns does not matter, as
            saving would lose it: no two may give one module different sizes.
        parameter_budget: Maximum trainable parameters per layer, if sizes are chosen. For a
            rectangular gate it counts the square circuit, which has at least as many.
        target_modules: Names of the modules to adapt, a regular expression, or ``"all-linear"``;
            by default the attention projections that `peft` adapts for LoRA.
        exclude_modules: Names, or a regular expression, of modules to leave out.
        layers_to_transform: Indices of the layers to adapt; all by default.
        layers_pattern: Name of the list that these indices refer to.
        modules_to_save: Modules to train in full and save with the adapter.
        rectangular: How a layer of unequal widths is fitted: ``"gate"``, a rectangular gate on the
            first axis, or ``"pad"``, zero-padding and cutting to the product of the sizes.
        recompute: Whether the backward pass recomputes the activations between gates. ``"always"``
            keeps only a layer's input, ``"never"`` keeps whatever is fastest, and ``"auto"``
            recomputes if a call would keep more than 64 MiB in addition to the input.
        dropout: Probability of dropout on the input of T and S, with one mask for both.
        seed: Seed of the initial gates, which depend only on it and on the module's name; the
            global random state is not touched.

    Raises:
        ValueError: A value is out of range or contradicts another; the message names the
            field, the value and the reason.
    """

    dims: tuple[int, ...] | dict[str, Dims] | None = field(default=None)
    parameter_budget: Count | None = field(default=None)
    rectangular: Rectangular = field(default="gate")
    recompute: Recompute = field(default="auto")
    dropout: Probability = field(default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = QuantaType.QUANTA
        if isinstance(self.dims, dict):
            self.dims = {
                _checked_pattern(pattern): _checked_dims(f"dims[{pattern!r}]", dims)
                for pattern, dims in self.dims.items()
            }
        else:
            self.dims = _checked_dims("dims", self.dims)

    def dims_for(self, name: str) -> Dims:
        """The configured axis sizes of a module; `None` to choose them.

        Raises:
            ValueError: `dims` is a dictionary, and no pattern matches or several patterns conflict.
        """
        if not isinstance(self.dims, dict):
            return self.dims
        matching = {
            pattern: dims
            for pattern, dims in self.dims.items()
            if pattern != REST and re.fullmatch(rf"(.*\.)?({pattern})", name)
        }
        if len(set(matching.values())) > 1:
            raise ValueError(
                f"QuantaConfig: several patterns of dims match module {name!r} and differ: "
                f"{', '.join(map(repr, matching))}; make them exclude each other"
            )
        if matching:
            return next(iter(matching.values()))
        if REST in self.dims:
            return self.dims[REST]
        raise ValueError(
            f"QuantaConfig: no pattern of dims matches module {name!r}; the patterns are "
            f"{', '.join(map(repr, self.dims))}. Add one, or {REST!r}: None to choose for the rest"
        )


def _checked_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"QuantaConfig: dims pattern {pattern!r}: {error}") from error
    return pattern


def _checked_dims(what: str, dims: Any) -> Dims:
    if dims is None:
        return None
    if isinstance(dims, str) or not isinstance(dims, Iterable):
        raise ValueError(
            f"QuantaConfig: {what}={dims!r}; give the axis sizes as in (16, 8, 8, 4), or None"
        )
    sizes = tuple(dims)
    if len(sizes) < 2:
        raise ValueError(
            f"QuantaConfig: {what}={sizes} has {len(sizes)} axes; a gate acts on two, so give at "
            "least two sizes"
        )
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 2:
            raise ValueError(f"QuantaConfig: {what}={sizes} has {size!r}; a size is at least 2")
    return sizes
