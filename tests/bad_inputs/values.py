"""Values that a setting must refuse, by its type."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

NO_NUMBER = (".inf", "-.inf", ".nan", "1e400", "true", "yes", "off", "abc", "[[1]]", "{a: 1}", "''")
NO_WHOLE_NUMBER = (*NO_NUMBER, "-1", "1.5", "99999999999999999999")
NO_LIST = ("5", "true", ".nan", "{a: 1}", "[1.5]", "[[a]]", "[true]")
OF_KIND: dict[Any, tuple[str, ...]] = {
    int: NO_WHOLE_NUMBER,
    float: NO_NUMBER,
    bool: ("2", "maybe", ".inf", "[true]", "{}"),
    str: ("5", "true", ".nan", "[a]", "{a: 1}"),
    Literal: ("nothing-of-the-kind", "true", "7.5", "[a]", "{a: 1}"),
    list: NO_LIST,
    tuple: NO_LIST,
    dict: ("5", "true", "[a]", ".nan", "text"),
}


def refused_by(field: FieldInfo) -> Iterator[str]:
    """Values, as YAML, that no type of a field contains."""
    kinds = set(_kinds(field.annotation))
    lists = [set(values) for kind, values in OF_KIND.items() if kind in kinds]
    for value in dict.fromkeys(value for values in OF_KIND.values() for value in values):
        if lists and all(value in one for one in lists):
            yield value


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types of a field, a Union's each, as the keys above name them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif annotation is not NoneType:
        kind = origin or annotation
        yield {set: list}.get(kind, kind)
