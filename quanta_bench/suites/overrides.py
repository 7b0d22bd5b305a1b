"""Settings that a user gives by ``--set``: of training, of evaluation, or of a method."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from quanta_bench.errors import UsageError, did_you_mean
from quanta_bench.suites.schema import RowSpec
from quanta_bench.utils.settings import as_yaml

GIVEN = "--set"
"""Where a setting comes from that the user gave."""


@dataclass(frozen=True)
class Overrides:
    """Settings by what they belong to.

    Attributes:
        training: settings of every row's training.
        evaluation: settings of every row's evaluation.
        methods: settings of methods, by the method's name; a key may be a path into a mapping,
            such as ``settings.r``.
    """

    training: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any], methods: Collection[str]) -> Overrides:
        """Sort settings such as ``{"training.epochs": 1, "lora.r": 16}``.

        Args:
            settings: values by the full key.
            methods: names of the methods that have a row.

        Raises:
            UsageError: a key does not say what it belongs to, or names a method without a row.
        """
        overrides = cls()
        for key, value in settings.items():
            owner, dot, name = key.partition(".")
            if dot and name and owner == "training":
                overrides.training[name] = value
            elif dot and name and owner == "evaluation":
                overrides.evaluation[name] = value
            elif dot and name and owner in methods:
                overrides.methods.setdefault(owner, {})[name] = value
            elif dot and name:
                known = ("training", "evaluation", *methods)
                raise UsageError(
                    f"--set {key}: no row has the method {owner!r}. {did_you_mean(owner, known)}"
                )
            else:
                raise UsageError(
                    f"--set {key} does not say what it belongs to; write training.{key}, "
                    f"evaluation.{key} or METHOD.{key}."
                )
        return overrides

    def applied_to(self, row: RowSpec) -> RowSpec:
        """A row with the settings of its method in place of its own, and the label to match."""
        overrides = self.methods.get(row.method)
        if not overrides:
            return row
        settings = dict(row.settings)
        for path, value in overrides.items():
            settings = _replaced(settings, path.split("."), value)
        names = dict.fromkeys(path.partition(".")[0] for path in overrides)
        return row.model_copy(
            update={
                "settings": settings,
                "label": relabelled(row.label, row.settings, settings),
                "origin": {**row.origin, **dict.fromkeys(names, GIVEN)},
                # What the paper prints is of the settings that the row had.
                "printed": "",
                "ambiguity": "",
            }
        )


def relabelled(label: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A row's label for other settings.

    A value that the label shows once, as ``8`` in "LoRA r=8", is replaced by the new one; any other
    new value is appended.
    """
    appended = []
    for name, value in after.items():
        if name in before and _same(before[name], value):
            continue
        old = short_form(before.get(name))
        whole = rf"(?<![\w.-]){re.escape(old)}(?![\w-])"
        places = list(re.finditer(whole, label)) if old else []
        if len(places) == 1:
            start, end = places[0].span()
            label = label[:start] + short_form(value) + label[end:]
        else:
            appended.append(f"{name}={short_form(value)}")
    return f"{label} ({', '.join(appended)})" if appended else label


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, lists and tuples being the same."""
    return as_yaml(one) == as_yaml(other)


def short_form(value: Any) -> str:
    """A value as labels and notes show it: ``9-8-8`` for a list of integers."""
    if isinstance(value, (list, tuple)) and all(isinstance(part, int) for part in value):
        return "-".join(map(str, value))
    return "" if value is None else as_yaml(value)


def _replaced(settings: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Settings with the value at a path into nested mappings replaced."""
    name, *rest = path
    if not rest:
        return {**settings, name: value}
    inner = settings.get(name, {})
    if not isinstance(inner, Mapping):
        raise UsageError(
            f"--set: {'.'.join(path)} cannot be set: {name} is {as_yaml(inner)}, not a mapping."
        )
    return {**settings, name: _replaced(inner, rest, value)}
