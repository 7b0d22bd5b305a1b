"""What the suite's benchmarks work on: the model, the mixture of Table 3, a method, a precision."""

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
from quanta_bench.models.precision import arithmetic, resolve
from quanta_bench.plugins import METHODS, build_method
from quanta_bench.spec import ModelSpec, TrainingSpec
from quanta_bench.suites.loading import load_suite
from quanta_bench.task import Example, Task
from quanta_bench.utils.device import this_device

MIXTURE = "table3"
"""The suite whose small profile says which tasks are mixed, and how its rows are trained."""

PROFILE = "embedded"


@dataclass(frozen=True)
class Materials:
    """A benchmark's model and data.

    Attributes:
        words: how the model is named.
        source: where data come from.
    """

    words: str
    source: str

    @classmethod
    def of(cls, conditions: Conditions) -> Materials:
        """Those that the conditions name."""
        return cls(conditions.model, conditions.source)

    @property
    def model(self) -> ModelRef:
        """The base model."""
        spec = ModelSpec.from_reference(self.words)
        return ModelRef(spec.name, spec.source, spec.revision)

    @property
    def device(self) -> torch.device:
        """The GPU if there is one."""
        return this_device()

    @cached_property
    def precision(self) -> dict[str, str]:
        """The precision that a run of this suite takes here for a frozen base."""
        dtype, mixed = resolve("auto", "frozen", self.device.type)
        return {"base": str(dtype).removeprefix("torch."), "arithmetic": mixed}

    @property
    def dtype(self) -> torch.dtype:
        """The base's dtype in that precision."""
        dtype: torch.dtype = getattr(torch, self.precision["base"])
        return dtype

    def load(self, dtype: torch.dtype | None = None) -> LoadedModel:
        """The base model on the device, in that precision or another dtype."""
        loaded = load_model(self.model, dtype or self.dtype)
        loaded.model.to(self.device)
        return loaded

    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self.model)

    def autocast(self, dtype: torch.dtype | None = None) -> torch.autocast:
        """The arithmetic of that precision, or of a base in another dtype."""
        if dtype is None:
            return arithmetic(self.precision, self.device)
        return arithmetic({"arithmetic": resolve_arithmetic(dtype)}, self.device)

    def spec(self, method: str, settings: Mapping[str, Any], **training: Any) -> TrainingSpec:
        """A training on the mixture, as Table 3's small profile has it, or otherwise."""
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
            model=ModelSpec.from_reference(self.words),
            method=method,
            settings=dict(settings),
            tasks=tuple(suite.tasks),
            source=self.source,
            **values,
        )

    def items(self, task: str, split: Any, count: int) -> tuple[Task, list[Example]]:
        """A task with some of its items, the same every time."""
        return Pools().drawn((task,), self.source, split, count, 0)[0]


def resolve_arithmetic(dtype: torch.dtype) -> str:
    """Lightning's word for a frozen base's arithmetic in a dtype."""
    return "bf16-mixed" if dtype is torch.bfloat16 else "32-true"


def own_settings(method: str) -> dict[str, Any]:
    """The settings of a method's row in the small profile; its defaults where it has none."""
    row = METHODS.get(method).rows.get(PROFILE)
    return dict(row.config) if row else {}


def adapted(base: LoadedModel, method: Method[Any], device: torch.device) -> nn.Module:
    """The base with a method put into it, ready to train; the base is changed in place."""
    model = method.adapt(base.model, 0)
    return model.to(device).train()


def make(method: str, settings: Mapping[str, Any] | None = None) -> Method[Any]:
    """A method with the settings of its row, or others."""
    return build_method(method, own_settings(method) if settings is None else settings)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with TemporaryDirectory(prefix="quanta-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def parts(count: int, most: int) -> list[int]:
    """Where a run of ``count`` steps is cut into at most ``most`` parts of nearly equal length.

    Returns:
        The number of steps done at the end of each part.
    """
    number = max(1, min(count, most))
    return [round((place + 1) * count / number) for place in range(number)]


def lengths(items: Sequence[Any]) -> int:
    """Real tokens of items in training as language: context and answer, padding not counted."""
    return sum(len(item.contexts[0]) + len(item.candidates[0]) for item in items)
