"""The method whose weights QPA generates."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from baselines.peft_method import PeftMethod
from quanta_bench.method import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from baselines.qpa.generated import Groups

METHODS = "quanta_bench.methods"
"""Entry-point group in which methods, including those of other packages, are registered."""


def inner_method(name: str, settings: Mapping[str, Any]) -> PeftMethod[Any]:
    """A registered method by its name.

    Raises:
        UsageError: the method does not exist, it rejects its settings, or its weights cannot be
            generated.
    """
    points = {point.name: point for point in entry_points(group=METHODS)}
    if name not in points:
        raise UsageError(f"inner: there is no method {name!r}. {did_you_mean(name, points)}")
    kind = points[name].load()
    if not (isinstance(kind, type) and issubclass(kind, PeftMethod)):
        raise UsageError(
            f"inner: the method {name!r} has no adapter made by peft, so there are no weights "
            "that QPA could generate. Choose another, such as 'lora'."
        )
    method = cast("PeftMethod[Any]", kind.from_settings(settings))
    if method.peft_config(0).is_prompt_learning:
        raise UsageError(
            f"inner: the method {name!r} learns a prompt, which is read before the model runs; "
            "QPA generates the weights of layers. Choose another, such as 'lora'."
        )
    return method


def by_module(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Groups:
    """Group parameters by the adapted module that they belong to, in order.

    Args:
        model: a model that `peft` has adapted.
        parameters: parameters of the model, by name.

    Returns:
        Parameters by the adapted module's name; those of no adapted module are under ``""``.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    modules = {
        name
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
    }
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        owner = name
        while owner and owner not in modules:
            owner = owner.rpartition(".")[0]
        groups.setdefault(owner, []).append(parameter)
    return groups
