"""The base of everything that a user sets: strict about values, and able to document itself.

What a setting means is written once, in the class's docstring under ``Attributes:``; its default
and range are those of the field. `settings_of` puts the three together.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

LARGEST = 2**63 - 1
"""The largest integer of a setting: libraries take 64 bits."""


UNKNOWN_KEY = "extra_forbidden"
"""The type of pydantic's error about a key that a model does not have."""


class StrictModel(BaseModel):
    """Frozen, closed to unknown keys, and without the conversions that hide a mistake.

    A boolean is not a number (YAML reads ``yes`` as true), and numbers are finite.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_scalars(cls, value: Any, info: ValidationInfo) -> Any:
        takes_booleans = _field_takes_booleans(cls, info.field_name or "")
        for scalar in _scalars(value, set()):
            if isinstance(scalar, bool) and not takes_booleans:
                raise ValueError(
                    f"{as_yaml(scalar)} is not a valid value (YAML reads yes, no, on and off as "
                    "true and false)"
                )
            if isinstance(scalar, int) and abs(scalar) > LARGEST:
                raise ValueError(f"an integer is at most {LARGEST}")
            if isinstance(scalar, float) and not math.isfinite(scalar):
                raise ValueError(f"{scalar} is not a finite number")
        return value


@cache
def _field_takes_booleans(model: type[BaseModel], name: str) -> bool:
    return _takes_booleans(model.model_fields[name].annotation)


def _takes_booleans(annotation: Any) -> bool:
    """Whether values of a type may contain a boolean; nested models check their own."""
    if annotation in (bool, Any, object):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    if get_origin(annotation) is Literal:
        return any(isinstance(value, bool) for value in get_args(annotation))
    return any(_takes_booleans(argument) for argument in get_args(annotation))


def _scalars(value: Any, visited: set[int]) -> Iterator[Any]:
    """The scalars in plain values; an object that occurs several times is visited once."""
    if not isinstance(value, (list, tuple, Mapping)):
        yield value
    elif id(value) not in visited:
        visited.add(id(value))
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _scalars(part, visited)


def problems(error: ValidationError, prefix: str = "") -> str:
    """The problems that validation found, each with the setting it is about, in one line."""
    return "; ".join(
        f"{prefix}{'.'.join(map(str, problem['loc'])) or 'settings'}: "
        + problem["msg"].removeprefix("Value error, ")
        for problem in error.errors(include_url=False, include_input=False)
    )


def keys_at(model: type[BaseModel], place: Sequence[str | int]) -> set[str]:
    """The keys that a mapping inside a model's data may have.

    Args:
        model: what the data are validated by.
        place: keys and indices that lead to the mapping, as of a pydantic error.
    """
    kinds: list[Any] = [model]
    for part in place:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    return {name for kind in kinds if _is_model(kind) for name in kind.model_fields}


def _inside(kind: Any, part: str | int) -> Iterator[Any]:
    """The types of what a value of a type holds at a key or an index."""
    if _is_model(kind):
        fields = kind.model_fields
        yield from _alternatives(fields[part].annotation) if part in fields else ()
    elif get_origin(kind) is not None:
        # Of a mapping to its values; of a list, whose only type it is, to its elements.
        arguments = [one for one in get_args(kind) if one is not ...]
        yield from _alternatives(arguments[-1])


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


@dataclass(frozen=True)
class Setting:
    """One setting, as shown to a user.

    Attributes:
        name: its key.
        default: its default in YAML's form; ``None`` if it has to be given.
        values: the values it takes, such as ``integer, at least 1, or null``.
        meaning: what it does.
    """

    name: str
    default: str | None
    values: str
    meaning: str


def settings_of(model: type[BaseModel]) -> list[Setting]:
    """Every setting of a class, in the order of its fields."""
    meanings = attribute_docs(model)
    return [
        Setting(
            name,
            None
            if field.is_required()
            else as_yaml(field.get_default(call_default_factory=True, validated_data={})),
            _values(field),
            # A user writes YAML, where None is null.
            re.sub(r"\bNone\b", "null", field.description or meanings.get(name, "")),
        )
        for name, field in model.model_fields.items()
    ]


def attribute_docs(kind: type) -> dict[str, str]:
    """The documentation of each attribute in a class's docstring and those of its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        found.update(_attributes_section(inspect.cleandoc(base.__doc__ or "")))
    return found


def _attributes_section(text: str) -> dict[str, str]:
    section = re.search(r"^(?:Class attributes|Attributes|Args):\n((?: .*\n?|\n)+)", text, re.M)
    if not section:
        return {}
    entries = re.findall(r"^    (\w+): ((?:.*\n?)(?:(?:     .*)?\n?)*)", section.group(1), re.M)
    return {name: plain(entry) for name, entry in entries}


def plain(text: str) -> str:
    """A docstring's text in one line, without the marks of reStructuredText."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text)
    return " ".join(re.sub(r"``?([^`]*)``?", r"\1", text).split())


def as_yaml(value: Any) -> str:
    """A value as ``--set`` takes it."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {as_yaml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "''"


def _values(field: FieldInfo) -> str:
    """The values of a field in words: its types, their bounds, and null last."""
    types = _alternatives(field.annotation)
    rest = [one for one in types if one is not NoneType]
    bounds = _bounds(field)
    if bounds and len(rest) < len(types):
        return ", ".join([_kind(Union[tuple(rest)]), *bounds, "or null"])  # noqa: UP007
    return ", ".join([_kind(field.annotation), *bounds])


def _alternatives(annotation: Any) -> list[Any]:
    """The types that a union consists of, each once: single values, collections, null."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _alternatives(arguments[0])
    if origin not in (Union, UnionType):
        return [annotation]
    types = dict.fromkeys(part for argument in arguments for part in _alternatives(argument))
    places: dict[Any, int] = {list: 1, tuple: 1, set: 1, dict: 2}
    return sorted(types, key=lambda one: 3 if one is NoneType else places.get(get_origin(one), 0))


def _kind(annotation: Any, *, several: bool = False) -> str:
    """A type in words, in the plural for several values of it."""
    types = _alternatives(annotation)
    others = {one for one in types if get_origin(one) is not dict}
    # A mapping to the same types comes last and refers to them instead of repeating them.
    again = [
        one
        for one in types
        if get_origin(one) is dict
        and len(others) > 1
        and set(_alternatives(get_args(one)[1])) == others
    ]
    kinds = [_single(one, several=several) for one in types if one not in again]
    kinds += [
        f"mapping{'s' * several} from {_kind(get_args(one)[0], several=True)} to any of these"
        for one in again
    ]
    *first, last = dict.fromkeys(kinds)
    return f"{', '.join(first)} or {last}" if first else last


def _single(annotation: Any, *, several: bool) -> str:
    """A type other than a union in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return "null"
    if origin is Literal:
        return " | ".join(map(as_yaml, arguments))
    if origin in (tuple, list, set):
        return f"list{'s' * several} of {_kind(arguments[0], several=True)}"
    if origin is dict:
        key, value = (_kind(argument, several=True) for argument in arguments)
        return f"mapping{'s' * several} from {key} to {value}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping with " + ", ".join(annotation.model_fields)
    if annotation is bool:
        return "true | false"
    names = {int: "integer", float: "number", str: "string"}
    return names.get(annotation, "value" if several else "any value") + "s" * several


def _bounds(field: FieldInfo) -> list[str]:
    bounds = []
    for attribute, template in (
        ("ge", "at least {}"),
        ("gt", "greater than {}"),
        ("le", "at most {}"),
        ("lt", "less than {}"),
        ("min_length", "not empty"),
        ("pattern", "matching {}"),
    ):
        for mark in field.metadata:
            bound = getattr(mark, attribute, None)
            if bound is not None:
                bounds.append(template.format(bound))
    return bounds
