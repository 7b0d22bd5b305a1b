"""Check that a user's target modules exist in the model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from quanta_bench.method import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

ALL_LINEAR = "all-linear"  # peft's name for all linear layers except the output layer


def check_targets(model: nn.Module, targets: str | Iterable[str], setting: str) -> None:
    """Reject a target that matches no module of the model.

    `peft` rejects a list only if none of its names match, and silently adapts fewer modules than
    requested if only some do. Matching follows `peft`: a name in a list matches every module of
    which it is the full name or the last components; a string is a regular expression for the full
    name, or ``"all-linear"``.

    Args:
        model: the base model.
        targets: the names, the expression, or ``"all-linear"``.
        setting: the setting's name, for the message.

    Raises:
        UsageError: a name or the expression matches nothing; the message suggests close names.
    """
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(targets, str):
        if targets != ALL_LINEAR and not _matches(targets, names, setting):
            raise UsageError(_message(model, setting, targets, "no module's full name matches"))
        return
    for target in sorted(targets):  # `peft` turns the list into a set
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise UsageError(_message(model, setting, target, "no module is called"))


def _matches(pattern: str, names: Iterable[str], setting: str) -> bool:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{setting}: {pattern!r} is not a regular expression ({error}).") from None
    return any(compiled.fullmatch(name) for name in names)


def _message(model: nn.Module, setting: str, target: str, what: str) -> str:
    """The error message: the unmatched target, and similar modules that have parameters."""
    names = [name for name, module in model.named_modules() if module._parameters and name]
    # Compare a dotted target with full names, any other with last components.
    known = names if "." in target else [name.rpartition(".")[2] for name in names]
    return f"{setting}: {what} {target!r} in this {type(model).__name__}. " + did_you_mean(
        target, known
    )
