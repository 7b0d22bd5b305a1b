"""The interface of a method: how it adapts a model, and what it says about itself.

A method plug-in imports this module and nothing else of the suite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import ValidationError

from quanta_bench.errors import BenchError, UsageError, did_you_mean
from quanta_bench.utils.settings import StrictModel, problems

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "YES",
    "BenchError",
    "Claim",
    "Method",
    "MethodConfig",
    "Row",
    "UsageError",
    "did_you_mean",
]


class MethodConfig(StrictModel):
    """Base of a method's settings: frozen, closed to unknown keys, numbers finite.

    Document each setting under ``Attributes:`` in the docstring: ``quanta-bench methods NAME``
    shows these lines with the defaults and ranges of the fields.
    """


@dataclass(frozen=True)
class Claim:
    """Whether a method has a property, with the reason if it has not."""

    holds: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.holds


YES = Claim(True)


@dataclass(frozen=True)
class Row:
    """A method's default row in the tables of one profile.

    Attributes:
        label: the row's name in tables.
        config: settings of the method.
        training: settings of the training run that belong to the method, such as
            ``learning_rate``; they override the suite's.
        origin: where each of those settings comes from, by its name.
    """

    label: str
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)


C = TypeVar("C", bound=MethodConfig)


class Method(ABC, Generic[C]):
    """A fine-tuning method. Subclass, set the class attributes, register it.

    Class attributes:
        name: the registered name.
        title: the method's name in words.
        version: raised when the method computes something else; stored with every result.
        Config: the settings, a subclass of :class:`MethodConfig`.
        rows: the default row in each profile (``"embedded"``, ``"one-gpu"``, ``"paper"``).
        search: for each tunable setting, the values a search tries.
        source: the paper and equation that define the method.
        footnote: printed under tables that show the method.
        trains: false for a method with nothing to train; it is then run once, without a seed.
        base_precision: ``"frozen"`` lets the base take the fastest dtype of the machine;
            ``"float32"`` keeps it in float32, for methods that train the base's own weights.
        mergeable: the update can be written into the base's weights.
        exact_start: the adapted model equals the base before the first step.
        cacheable: works with a key/value cache, and with several candidates packed into one row.
        stackable: what trains lies in layers that replace the base's, and each row of a batch is
            computed by itself, so that several runs can be trained in common passes over one base.
            Each group of runs is tested before it is trained so; what fails is trained alone.

    The last four may be set on an instance instead, where they depend on its settings.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[int] = 1
    Config: type[C]
    rows: ClassVar[Mapping[str, Row]] = {}
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    source: ClassVar[str] = ""
    footnote: ClassVar[str] = ""
    trains: ClassVar[bool] = True
    base_precision: ClassVar[Literal["frozen", "float32"]] = "frozen"
    mergeable: Claim = YES
    exact_start: Claim = YES
    cacheable: Claim = YES
    stackable: Claim = YES

    def __init__(self, config: C) -> None:
        self.config = config

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Method[C]:
        """Build the method from plain settings.

        Raises:
            UsageError: a key is unknown (the message names the closest known one), or a value is
                refused.
        """
        known = list(cls.Config.model_fields)
        for key in settings:
            if key not in known and cls.Config.model_config.get("extra") == "forbid":
                raise UsageError(
                    f"The method {cls.name!r} has no setting {key!r}. {did_you_mean(key, known)}"
                )
        try:
            return cls(cls.Config.model_validate(dict(settings)))
        except ValidationError as error:
            raise UsageError(
                f"Settings of the method {cls.name!r} refused: {problems(error)}."
            ) from None

    @abstractmethod
    def adapt(self, model: nn.Module, seed: int) -> nn.Module:
        """Put the method into a base model and return the model to train.

        The start depends on ``seed`` alone, and the global random state is left as it was.
        Every parameter that trains is float32 afterwards; every other one has
        ``requires_grad=False``.

        Raises:
            UsageError: the settings do not fit this model (unknown target modules, a width that
                the method cannot split).
        """

    @abstractmethod
    def trainable(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters that train, by name, as the adapter itself declares them."""

    @abstractmethod
    def save(self, model: nn.Module, folder: Path) -> None:
        """Write what was trained into ``folder``, as safetensors."""

    @abstractmethod
    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """Put what :meth:`save` wrote into a fresh base model, ready to evaluate."""

    def frozen(self, model: nn.Module) -> AbstractContextManager[None]:
        """A block in which no weight changes: validation, scoring and generation run in it.

        A method that derives tensors from its weights may keep them until the block ends. One that
        merges through layers of `peft` needs none of this: the suite keeps their merged weights.
        """
        return nullcontext()

    def ranks(self, model: nn.Module) -> Mapping[str, Mapping[str, tuple[int, int]]]:
        """Bounds on ranks at each adapted layer, where the method knows any.

        Args:
            model: a model that the method has adapted; it may be on the meta device.

        Returns:
            By the layer's name and by what is bounded (``"update"`` is what the method adds to
            the weight), the least and the largest rank.
        """
        return {}

    @classmethod
    def sizes(cls, model: nn.Module) -> Iterable[Mapping[str, Any]]:
        """Settings that make the method as small or as large as a user may need.

        By them a size is chosen that comes nearest to a budget of parameters.

        Args:
            model: the base model; it may be on the meta device.

        Returns:
            Settings in any order, each complete but for defaults; none if the method has just
            one size.
        """
        return ()

    def merge(self, model: nn.Module) -> nn.Module:
        """Write the update into the base's weights and return the plain base model.

        Raises:
            BenchError: the method is not mergeable; says why.
        """
        raise BenchError(
            f"The method {self.name!r} cannot be merged: {self.mergeable.reason or 'no merge'}."
        )
