"""The rows, seeds and settings that a user selects on the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from quanta_bench.errors import UsageError
from quanta_bench.spec import EvaluationSpec, Frozen, TrainingSpec
from quanta_bench.utils.yaml import parse_yaml


@dataclass(frozen=True)
class Choice:
    """What a user selects and overrides.

    Attributes:
        methods: method names to keep; one with a leading ``+`` is added to the suite's own.
        all_rows: add every registered method that has a row for the profile.
        seeds: seeds, in place of the suite's.
        vary: the random streams that a seed sets, in place of the suite's.
        size: size by name, in place of the profile's default.
        models: keep the rows of these models.
        model: a model, in place of every row's: ``name``, ``hub:NAME@REVISION`` or ``local:DIR``.
        source: where data comes from, in place of the profile's.
        settings: overrides such as ``{"training.epochs": 1, "evaluation.items": 10}``.
    """

    methods: tuple[str, ...] = ()
    all_rows: bool = False
    seeds: tuple[int, ...] = ()
    vary: tuple[str, ...] = ()
    size: str = ""
    models: tuple[str, ...] = ()
    model: str = ""
    source: str = ""
    settings: Mapping[str, Any] | None = None


NO_CHOICE = Choice()
"""The suite as it is."""


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """``["rank=8", "targets=[q_proj]"]`` as a dictionary; values are read as YAML.

    Numbers such as ``1e-3`` are numbers here, though YAML 1.1 reads them as text, ``a,b`` is a
    list, and nothing is the empty text where a setting of trainings or evaluations is a text.

    Raises:
        UsageError: an entry has no ``=``, or its value is not YAML.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{word!r} is not of the form name=value.")
        try:
            # A shell hands over key="" as key=, which YAML reads as null.
            read = "" if not value and _is_text(key) else parse_yaml(value)
            if isinstance(read, str) and "," in value and value[0] not in "\"'":
                read = [parse_yaml(part) for part in value.split(",")]
        except yaml.YAMLError:
            raise UsageError(f"The value in {word!r} is not valid YAML.") from None
        settings[key] = _with_numbers(read)
    return settings


def _is_text(key: str) -> bool:
    """Whether a key such as ``evaluation.forgetting`` is of a setting whose value is a text."""
    owner, _, name = key.partition(".")
    specs: dict[str, type[Frozen]] = {"training": TrainingSpec, "evaluation": EvaluationSpec}
    field = specs[owner].model_fields.get(name) if owner in specs else None
    return field is not None and field.annotation is str


def _with_numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_numbers(part) for part in value]
    if isinstance(value, dict):
        return {key: _with_numbers(part) for key, part in value.items()}
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value
