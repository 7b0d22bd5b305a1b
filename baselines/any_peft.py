"""Any other `peft` tuner, with its own configuration."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from baselines import peft_types
from baselines.origins import COMPARED, OURS
from baselines.peft_method import PeftMethod
from quanta_bench.method import Claim, MethodConfig, Row, UsageError, did_you_mean

if TYPE_CHECKING:
    from peft import PeftConfig

RESERVED = frozenset(
    {
        "peft_type", "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version",
        "revision", "task_type",
    }
)  # fmt: skip
"""Configuration fields that the suite or `peft` fills in."""


class AnyPeftConfig(MethodConfig):
    """Which tuner, and its settings.

    Attributes:
        type: `peft`'s name of the tuner, such as ``"vera"``; case does not matter.
        settings: fields of that tuner's configuration class, under `peft`'s names.
    """

    type: str
    settings: dict[str, Any] = Field(default_factory=dict)


class AnyPeft(PeftMethod[AnyPeftConfig]):
    """Any `peft` tuner: one generic baseline instead of a file for each.

    Whether it can be merged, cached, or starts as the base depends on the tuner; tests confirm
    it for tuners with their default initialisation (`baselines.peft_types`). A tuner with a seed of
    its own for fixed random parts gets the run's seed, unless the settings set one.

    Raises:
        UsageError: the tuner or a setting does not exist, its configuration rejects a value, or the
            suite cannot train it.
    """

    name = "peft"
    title = "A tuner of peft"
    Config = AnyPeftConfig
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "VeRA r=64 (peft)",
            config={
                "type": "VERA",
                "settings": {"r": 64, "target_modules": ["q_proj", "v_proj"]},
            },
            training={"learning_rate": 1e-1},
            origin={"learning_rate": COMPARED, "r": OURS},
        )
    }
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {"learning_rate": (1e-3, 1e-2, 1e-1)}
    source = "The library peft, https://github.com/huggingface/peft."
    footnote = "Through peft's own implementation and defaults, not tuned by its authors' recipe."
    mergeable = Claim(False, "it depends on the tuner")
    exact_start = Claim(False, "it depends on the tuner")
    cacheable = Claim(False, "it depends on the tuner")

    def __init__(self, config: AnyPeftConfig) -> None:
        super().__init__(config)
        self.type = config.type.upper()
        self._class = _config_class(self.type)
        self._fields = {
            field.name
            for field in dataclasses.fields(self._class)
            if field.init and field.name not in RESERVED
        }
        for key in config.settings:
            if key not in self._fields:
                raise UsageError(
                    f"peft's {self.type} has no setting {key!r}. {did_you_mean(key, self._fields)}"
                )
        self.peft_config(0)  # report an invalid value now, not when a run starts
        self.mergeable = self._claim(peft_types.UNMERGEABLE)
        self.cacheable = self._claim(peft_types.UNCACHEABLE)
        self.exact_start = self._claim(peft_types.INEXACT)
        start = [key for key in config.settings if key.startswith("init_")]
        if self.exact_start and start:
            self.exact_start = Claim(False, f"the setting {start[0]} changes the start")

    def peft_config(self, seed: int) -> PeftConfig:
        """The tuner's own configuration."""
        settings = copy.deepcopy(self.config.settings)
        for key in self._fields.intersection(peft_types.SEEDS):
            settings.setdefault(key, seed)
        try:
            return cast("PeftConfig", self._class(**settings))
        except Exception as error:  # any error of the configuration class
            raise UsageError(
                f"peft's {self.type} rejects its settings: {type(error).__name__}: {error}"
            ) from error

    def _claim(self, exceptions: Mapping[str, str]) -> Claim:
        if self.type in exceptions:
            return Claim(False, exceptions[self.type])
        if self.type not in peft_types.TESTED:
            return Claim(False, f"peft's {self.type} is untested with this suite")
        return Claim(True)


def _config_class(kind: str) -> Any:
    """The configuration class of a `peft` type, built-in or registered by another package."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    classes = {str(key.value): value for key, value in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind not in classes:
        known = classes.keys() - peft_types.REFUSED.keys()
        raise UsageError(f"peft has no tuner {kind!r}. {did_you_mean(kind, known)}")
    if kind in peft_types.REFUSED:
        raise UsageError(f"peft's {kind} cannot be used here: {peft_types.REFUSED[kind]}.")
    return classes[kind]
