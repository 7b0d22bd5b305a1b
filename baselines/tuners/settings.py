"""The settings of a method, derived from its tuner's configuration class.

A setting is declared once, as a field of the dataclass that `peft` reads, with its range in the
annotation and its meaning in the docstring. Both the suite's settings and the validation of the
dataclass are derived from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast, get_type_hints

from peft import PeftConfig
from pydantic import Field, ValidationError, create_model

from quanta_bench.method import MethodConfig

Count: TypeAlias = Annotated[int, Field(ge=1)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability: TypeAlias = Annotated[float, Field(ge=0, lt=1)]

QUERY_AND_VALUE = ("q_proj", "v_proj")

SEED = "seed"  # belongs to the run, not a setting


class TunerSettings(MethodConfig):
    """Base class of the settings that `settings_class` creates."""

    if TYPE_CHECKING:  # the fields are known only at run time

        def __getattr__(self, name: str) -> Any: ...


def settings_class(
    config: type[PeftConfig], target_modules: Sequence[str] = QUERY_AND_VALUE
) -> type[TunerSettings]:
    """The settings of a configuration class, except its seed.

    Args:
        config: a dataclass; its bases derived from `PeftConfig` become bases of the settings.
        target_modules: the default of the setting with this name.
    """
    model = _mirror(cast("Any", config))
    targets = model.model_fields["target_modules"]
    return cast(
        "type[TunerSettings]",
        create_model(
            model.__name__,
            __base__=model,
            __module__=config.__module__,
            __doc__=config.__doc__,
            target_modules=(targets.rebuild_annotation(), list(target_modules)),
        ),
    )


def validate(config: PeftConfig) -> None:
    """Validate the fields of a configuration, and undo what JSON changed: its keys are strings.

    Raises:
        ValueError: a value has the wrong type or is out of range; the message names the field, the
            value and the reason.
    """
    model = _mirror(cast("Any", type(config)))
    values = {name: getattr(config, name) for name in model.model_fields}
    values = {
        name: sorted(value) if isinstance(value, (set, frozenset)) else value
        for name, value in values.items()
    }
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        reason = problem["msg"].removeprefix("Value error, ")
        raise ValueError(f"{type(config).__name__}: {name}={values[name]!r}: {reason}") from error
    for name in model.model_fields:
        setattr(config, name, getattr(settings, name))


@cache
def _mirror(config: Any) -> type[TunerSettings]:
    bases = tuple(
        _mirror(base)
        for base in config.__bases__
        if issubclass(base, PeftConfig) and base is not PeftConfig
    )
    hints = get_type_hints(config, include_extras=True)
    own = vars(config).get("__annotations__", {})
    fields: dict[str, Any] = {
        field.name: (hints[field.name], _default(field))
        for field in dataclasses.fields(config)
        if field.name in own and field.name != SEED
    }
    return cast(
        "type[TunerSettings]",
        create_model(
            config.__name__.removesuffix("Config") + "Settings",
            __base__=bases or (TunerSettings,),
            __module__=config.__module__,
            __doc__=config.__doc__,
            **fields,
        ),
    )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory)
    return ... if field.default is dataclasses.MISSING else field.default
