"""Base class of the configurations of all tuners of this package."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from peft import PeftConfig
from pydantic import Field

from baselines.tuners.settings import validate

Names: TypeAlias = Annotated[list[str] | str, Field(min_length=1)]
"""Names, or one regular expression. `__post_init__` turns lists into sets for `peft`."""


@dataclass
class AdapterConfig(PeftConfig):
    """Which modules a tuner adapts, and the seed of its initial values.

    A subclass is a dataclass too. Its `__post_init__` calls this one, which validates each field
    against its annotation (type, and range if any: ``Annotated[int, Field(ge=1)]``), then sets
    ``peft_type`` and validates combinations of fields with `refuse`.

    Args:
        target_modules: Names of the modules to adapt, a regular expression for their full names,
            or ``"all-linear"``; by default the attention projections that `peft` adapts for LoRA.
        exclude_modules: Names, or a regular expression, of modules to leave out.
        layers_to_transform: Indices of the layers to adapt; all by default.
        layers_pattern: Name of the list that these indices refer to.
        modules_to_save: Modules to train in full and save with the adapter.
        seed: Seed of the initial values, which depend only on it and on the module's name; the
            global random state is not touched.

    Raises:
        ValueError: A value is out of range or contradicts another; the message names the
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
        """Reject the value of a field with a message that names both.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{type(self).__name__}: {name}={getattr(self, name)!r} {why}")
