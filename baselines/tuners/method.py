"""What the methods share whose tuners are our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from pydantic import Field

from baselines.peft_method import PeftMethod
from baselines.tuners.layer import AdaptedLinear
from quanta_bench.method import MethodConfig, UsageError

if TYPE_CHECKING:
    from torch import nn

    from baselines.tuners.config import AdapterConfig

Names: TypeAlias = tuple[str, ...] | str


class TunerSettings(MethodConfig):
    """Which modules a tuner adapts; a subclass adds the fields of its own configuration class.

    Attributes:
        target_modules: names of the modules to adapt, a regular expression for their full names,
            or ``"all-linear"``.
        exclude_modules: names, or a regular expression, of modules to leave out.
        layers_to_transform: indices of the layers to adapt; all by default.
        layers_pattern: name of the list that these indices refer to.
        modules_to_save: modules to train in full and save with the adapter.
    """

    target_modules: Names = Field(("q_proj", "v_proj"), min_length=1)
    exclude_modules: Names | None = None
    layers_to_transform: tuple[int, ...] | int | None = None
    layers_pattern: Names | None = None
    modules_to_save: tuple[str, ...] | None = None


C = TypeVar("C", bound=TunerSettings)


class TunerMethod(PeftMethod[C]):
    """A method with a tuner of our own: its settings are fields of the tuner's configuration.

    Class attributes:
        tuner_config: the tuner's configuration class; it has a field for each setting, and `seed`.
    """

    tuner_config: ClassVar[type[AdapterConfig]]

    def peft_config(self, seed: int) -> AdapterConfig:
        """The tuner's configuration; the start depends on the seed alone.

        Raises:
            UsageError: the configuration refuses a value.
        """
        settings: dict[str, Any] = {
            # `peft` tells a list of names from a single one by the type list.
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dict(self.config).items()
        }
        try:
            return self.tuner_config(**settings, seed=seed)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def ranks(self, model: nn.Module) -> dict[str, dict[str, tuple[int, int]]]:
        """The largest rank that the update of each adapted layer can have."""
        found = {}
        for name, module in model.named_modules():
            if not isinstance(module, AdaptedLinear):
                continue
            for adapter in module.active_adapters:
                bound = module.adapter(adapter).rank_bound() if adapter in module.adapters else None
                if bound is not None:
                    found[name] = {"update": (0, bound)}
        return found
