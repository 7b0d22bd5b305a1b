"""What the configurations of all our tuners have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from peft import PeftConfig
from pydantic import Field

from baselines.tuners.settings import validate

Names: TypeAlias = Annotated[list[str] | str, Field(min_length=1)]
"""Names, or one regular expression. `peft` wants a set of the names, and gets one."""


@dataclass
class AdapterConfig(PeftConfig):
    """Which modules a tuner adapts, and the seed of its start.

    A subclass is a dataclass too and sets ``peft_type`` in `__post_init__` after calling this one,
    which checks each field against its annotation: its type, and its range if it has one
    (``Annotated[int, Field(ge=1)]``). What needs several fields is checked there with `refuse`.

    Args:
        target_modules: Names of the modules to adapt, a regular expression for their full names,
            or ``"all-linear"``; by default the attention projections that `peft` adapts for LoRA.
        exclude_modules: Names, or a regular expression, of modules to leave out.
        layers_to_transform: Indices of the layers to adapt; all by default.
        layers_pattern: Name of the list that these indices refer to.
        modules_to_save: Modules to train in full and save with the adapter.
        seed: Seed of the adapter's start, which depends on it and on the module's name alone; the
            global random state is not touched.

    Raises:
        ValueError: A value that is out of range or contradicts another; the message names the
            field, the value and the reason.
    """

    target_modules: Names | set[str] | None = field(default=None)
    exclude_modules: Names | set[str] | None = field(default=None)
    layers_to_transform: list[int] | int | None = field(default=None)
    layers_pattern: list[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)
    seed: int = field(default=0)

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        validate(self)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            self.refuse("seed", "is not an integer")
        if self.layers_pattern and self.layers_to_transform is None:
            self.refuse("layers_pattern", "is given without layers_to_transform")

    def refuse(self, name: str, why: str) -> None:
        """Refuse the value of a field, naming both.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{type(self).__name__}: {name}={getattr(self, name)!r} {why}")
