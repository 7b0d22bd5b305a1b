"""What the configurations of all tuners here have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig


@dataclass
class AdapterConfig(PeftConfig):
    """Which modules a tuner adapts, and the seed of its start.

    A subclass is a dataclass too, sets ``peft_type`` in `__post_init__` after calling this one, and
    checks its own fields there with `refuse`.

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

    target_modules: list[str] | set[str] | str | None = field(default=None)
    exclude_modules: list[str] | set[str] | str | None = field(default=None)
    layers_to_transform: list[int] | int | None = field(default=None)
    layers_pattern: list[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)
    seed: int = field(default=0)

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        if isinstance(self.target_modules, (list, tuple)):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, (list, tuple)):
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

    def check_integer(self, name: str, least: int) -> None:
        """Refuse a field that is not an integer of at least ``least``.

        Raises:
            ValueError: it is not.
        """
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.refuse(name, f"is not an integer of at least {least}")

    def check_choice(self, name: str, choices: tuple[Any, ...]) -> None:
        """Refuse a field whose value is none of ``choices``.

        Raises:
            ValueError: it is not.
        """
        if getattr(self, name) not in choices:
            self.refuse(name, f"is not one of {', '.join(map(repr, choices))}")

    def check_share(self, name: str) -> None:
        """Refuse a field that is not a number in [0, 1), as a probability of dropout is.

        Raises:
            ValueError: it is not.
        """
        value = getattr(self, name)
        if isinstance(value, bool) or not 0 <= value < 1:
            self.refuse(name, "is not in [0, 1)")
