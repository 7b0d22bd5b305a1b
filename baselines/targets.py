"""Check the modules that a user wants adapted against those that a model has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from quanta_bench.method import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

ALL_LINEAR = "all-linear"  # peft's word for every linear layer but the output's


def check_targets(model: nn.Module, targets: str | Iterable[str], setting: str) -> None:
    """Refuse a target that no module of the model answers to.

    `peft` refuses a list only if none of its names is found, and silently adapts fewer modules
    than asked for if some are. The rules of matching are `peft`'s: a name in a list stands for
    each module of which it is the full name or the last components; a string is a regular
    expression for a full name, or ``"all-linear"``.

    Args:
        model: the base model.
        targets: the names, the expression, or ``"all-linear"``.
        setting: the setting's name, for the message.

    Raises:
        UsageError: a name or the expression matches nothing; the message lists near names.
    """
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(targets, str):
        if targets != ALL_LINEAR and not _matches(targets, names, setting):
            raise UsageError(_message(model, setting, targets, "no module's full name matches"))
        return
    for target in sorted(targets):  # a set, in `peft`'s hands
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise UsageError(_message(model, setting, target, "no module is called"))


def _matches(pattern: str, names: Iterable[str], setting: str) -> bool:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{setting}: {pattern!r} is not a regular expression ({error}).") from None
    return any(compiled.fullmatch(name) for name in names)


def _message(model: nn.Module, setting: str, target: str, what: str) -> str:
    """What was not found, and the names of the modules that hold weights of their own."""
    holders = [name for name, module in model.named_modules() if module._parameters and name]
    # A dotted target is compared with whole names, a plain one with last components.
    known = holders if "." in target else [name.rpartition(".")[2] for name in holders]
    return f"{setting}: {what} {target!r} in this {type(model).__name__}. " + did_you_mean(
        target, known
    )
