"""The base of all settings: what it refuses, and what it tells of itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from quanta_bench.utils.settings import StrictModel, as_yaml, problems, settings_of
from quanta_bench.utils.yaml import parse_yaml


class Inner(StrictModel):
    deep: bool = False


class Base(StrictModel):
    """Settings.

    Attributes:
        count: how many, of
            several lines.
        rate: of `learning`; ``None`` for none.
    """

    count: int = Field(8, ge=1, lt=100)
    rate: float | None = Field(None, gt=0)


class Mine(Base):
    """More settings.

    Attributes:
        rate: overridden.
        kind: which.
    """

    kind: Literal["a", "b"]
    dims: tuple[int, ...] | dict[str, tuple[int, ...]] = ()
    flag: bool | int = False
    free: dict[str, Any] = Field(default_factory=dict)
    inner: Inner = Inner()
    names: Annotated[list[str] | str, Field(min_length=1)] | set[str] | None = None
    sizes: dict[str, tuple[int, ...] | None] | tuple[int, ...] | None = None
    modes: dict[int, list[Annotated[int, Field(ge=1)]]] | None = None


@pytest.mark.parametrize(
    "values",
    [
        {"count": True},
        {"rate": False},
        {"dims": [1, True]},
        {"dims": {"x": [True]}},
        {"rate": float("inf")},
        {"rate": float("nan")},
        {"free": {"a": [{"b": float("-inf")}]}},
        {"cuont": 1},
    ],
)
def test_what_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Mine(kind="a", **values)
    assert problems(caught.value, "mine.").startswith(f"mine.{next(iter(values))}")
    assert "errors.pydantic.dev" not in problems(caught.value)


def test_booleans_stand_where_they_belong() -> None:
    made = Mine(kind="a", flag=True, free={"x": True, "y": [1.5]}, inner={"deep": True})
    assert made.flag is True
    assert made.inner.deep


def test_settings_say_default_values_and_meaning() -> None:
    told = {one.name: one for one in settings_of(Mine)}
    assert told["count"].values == "integer, at least 1, less than 100"
    assert told["count"].meaning == "how many, of several lines."
    assert told["rate"].meaning == "overridden."
    assert {one.name: one for one in settings_of(Base)}["rate"].meaning == (
        "of learning; null for none."
    )
    assert told["kind"].default is None
    assert told["kind"].values == "a | b"
    assert told["dims"].values == ("list of integers or mapping from strings to lists of integers")
    assert told["rate"].values == "number, greater than 0, or null"
    assert told["free"].values == "mapping from strings to values"
    assert told["names"].values == "string, list of strings or null"
    assert told["sizes"].values == (
        "list of integers, null or mapping from strings to any of these"
    )
    assert told["modes"].values == "mapping from integers to lists of integers or null"
    assert told["inner"].default == "{deep: false}"


@pytest.mark.parametrize("value", [None, True, 8, 0.001, [9, 8, 8], {"a": [1, None]}, "x"])
def test_defaults_are_written_as_they_are_read(value: Any) -> None:
    assert parse_yaml(as_yaml(value)) == value
