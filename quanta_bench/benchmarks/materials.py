"""Inputs of the suite's benchmarks: the model, Table 3's mixture, a method, a precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from quanta_bench.benchmark import Conditions
from quanta_bench.data.pools import Pools
from quanta_bench.method import Method
from quanta_bench.models.loading import LoadedModel, ModelRef, load_model, load_tokenizer
from quanta_bench.models.precision import arithmetic, dtype_name, resolve
from quanta_bench.plugins import METHODS, build_method
from quanta_bench.spec import ModelSpec, TrainingSpec
from quanta_bench.suites.loading import load_suite
from quanta_bench.task import Example, Task
from quanta_bench.utils.device import this_device

MIXTURE = "table3"
"""The suite whose embedded profile gives the mixture of tasks and the training settings."""

PROFILE = "embedded"


@dataclass(frozen=True)
class Materials:
    """A benchmark's model and data.

    Attributes:
        model_name: the model, as named on the command line.
        source: the data source.
    """

    model_name: str
    source: str

    @classmethod
    def of(cls, conditions: Conditions) -> Materials:
        """The model and data named by the conditions."""
        return cls(conditions.model, conditions.source)

    @property
    def model(self) -> ModelRef:
        """The base model."""
        spec = ModelSpec.from_reference(self.model_name)
        return ModelRef(spec.name, spec.source, spec.revision)

    @property
    def device(self) -> torch.device:
        """The GPU if there is one, else the CPU."""
        return this_device()

    @cached_property
    def precision(self) -> dict[str, str]:
        """The precision that a run on this machine uses for a frozen base."""
        dtype, mixed = resolve("auto", "frozen", self.device.type)
        return {"base": dtype_name(dtype), "arithmetic": mixed}

    @property
    def dtype(self) -> torch.dtype:
        """The base's dtype in that precision."""
        dtype: torch.dtype = getattr(torch, self.precision["base"])
        return dtype

    def load(self, dtype: torch.dtype | None = None) -> LoadedModel:
        """The base model on the device, in that precision or in ``dtype``."""
        loaded = load_model(self.model, dtype or self.dtype)
        loaded.model.to(self.device)
        return loaded

    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self.model)

    def autocast(self, dtype: torch.dtype | None = None) -> torch.autocast:
        """The autocast context of that precision, or of a base in ``dtype``."""
        if dtype is None:
            return arithmetic(self.precision, self.device)
        return arithmetic({"arithmetic": resolve_arithmetic(dtype)}, self.device)

    def spec(self, method: str, settings: Mapping[str, Any], **training: Any) -> TrainingSpec:
        """Training on the mixture with the settings of Table 3's embedded profile, or overrides."""
        suite = load_suite(MIXTURE)
        row = METHODS.get(method).rows.get(PROFILE)
        values = {
            **suite.profiles[PROFILE].training,
            **(row.training if row else {}),
            "validation_items": 1,
            "validations": 1,
            **training,
        }
        return TrainingSpec(
            model=ModelSpec.from_reference(self.model_name),
            method=method,
            settings=dict(settings),
            tasks=tuple(suite.tasks),
            source=self.source,
            **values,
        )

    def items(self, task: str, split: Any, count: int) -> tuple[Task, list[Example]]:
        """A task with a fixed sample of its items."""
        return Pools().sample((task,), self.source, split, count, 0)[0]


def resolve_arithmetic(dtype: torch.dtype) -> str:
    """Lightning's name of the precision for a frozen base in a dtype."""
    return "bf16-mixed" if dtype is torch.bfloat16 else "32-true"


def row_settings(method: str) -> dict[str, Any]:
    """The settings of a method's row in the embedded profile; empty if it has none."""
    row = METHODS.get(method).rows.get(PROFILE)
    return dict(row.config) if row else {}


def adapted(base: LoadedModel, method: Method[Any], device: torch.device) -> nn.Module:
    """The base adapted by a method, ready to train; the base is changed in place."""
    model = method.adapt(base.model, 0)
    return model.to(device).train()


def make(method: str, settings: Mapping[str, Any] | None = None) -> Method[Any]:
    """A method with the given settings, by default those of its row."""
    return build_method(method, row_settings(method) if settings is None else settings)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder."""
    with TemporaryDirectory(prefix="quanta-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def parts(count: int, most: int) -> list[int]:
    """Split a run of ``count`` steps into at most ``most`` parts of nearly equal length.

    Returns:
        The number of steps completed at the end of each part.
    """
    number = max(1, min(count, most))
    return [round((index + 1) * count / number) for index in range(number)]


def lengths(items: Sequence[Any]) -> int:
    """Tokens of items trained as language modelling: context and answer, without padding."""
    return sum(len(item.contexts[0]) + len(item.candidates[0]) for item in items)
