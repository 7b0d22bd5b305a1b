"""Base class of the methods with tuners of this package."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, ClassVar

from baselines.peft_method import PeftMethod
from baselines.tuners.layer import AdaptedLinear
from baselines.tuners.settings import TunerSettings
from quanta_bench.method import UsageError

if TYPE_CHECKING:
    from torch import nn

    from baselines.tuners.config import AdapterConfig


class TunerMethod(PeftMethod[TunerSettings]):
    """A method with a tuner of this package; its settings are the tuner configuration's fields.

    Class attributes:
        tuner_config: the tuner's configuration class.
        Config: the settings, `settings_class(tuner_config)`.
    """

    tuner_config: ClassVar[type[AdapterConfig]]

    def peft_config(self, seed: int) -> AdapterConfig:
        """The tuner's configuration; initial values depend only on the seed and module names.

        Raises:
            UsageError: the configuration rejects a value.
        """
        try:
            # A copy, because `peft` modifies its configuration.
            return self.tuner_config(**copy.deepcopy(dict(self.config)), seed=seed)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def ranks(self, model: nn.Module) -> dict[str, dict[str, tuple[int, int]]]:
        """The largest rank that the update of each adapted layer can have."""
        bounds = {}
        for name, module in model.named_modules():
            if not isinstance(module, AdaptedLinear):
                continue
            for adapter in set(module.active_adapters) & set(module.adapter_names()):
                bound = module.adapter(adapter).rank_bound()
                if bound is not None:
                    bounds[name] = {"update": (0, bound)}
        return bounds
