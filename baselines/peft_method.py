"""What methods share that are tuners of the library `peft`."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from baselines.adapter_parameters import adapter_parameters
from baselines.seeding import isolated_rng
from baselines.targets import check_targets
from quanta_bench.method import BenchError, Method, MethodConfig, UsageError

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import nn

C = TypeVar("C", bound=MethodConfig)

MISSING_TENSORS = "(Adapter name .*)?Found missing adapter keys"


class PeftMethod(Method[C]):
    """A method that `peft` implements. A subclass only says which configuration it means.

    The base model is adapted in place: it gets the tuner's layers, its own weights stay as they
    are. A model on the meta device is adapted there, for counting.
    """

    @abstractmethod
    def peft_config(self, seed: int) -> PeftConfig:
        """A new configuration; `peft` writes into the one it is given.

        Args:
            seed: for tuners that keep a seed of their own.
        """

    def adapt(self, model: nn.Module, seed: int) -> nn.Module:
        """Put the tuner into the model; its start depends on the seed and the settings alone.

        Raises:
            UsageError: a target module that the model has not, or settings that `peft` refuses
                for this model.
            BenchError: the tuner trains something that its layers do not declare, or it needs
                weights and the model is on the meta device.
        """
        from peft import get_peft_model

        config = self.peft_config(seed)
        for setting in ("target_modules", "modules_to_save"):
            targets = getattr(config, setting, None)
            if targets:
                check_targets(model, targets, setting)
        config.task_type = config.task_type or _task_type(model)
        if config.task_type == "SEQ_CLS" and hasattr(config, "modules_to_save"):
            config.modules_to_save = _with_head(model, config.modules_to_save)
        # Whatever trains afterwards does so because the tuner says it does.
        model.requires_grad_(False)
        with _building(model, seed, f"The method {self.name!r}"):
            adapted = get_peft_model(model, config)
        trained = self.trainable(adapted)
        strays = [
            name
            for name, parameter in adapted.named_parameters()
            if parameter.requires_grad and name not in trained
        ]
        if strays or not trained:
            raise BenchError(
                f"The method {self.name!r}: this tuner of peft trains "
                + (f"{strays[0]}, which no layer of it declares." if strays else "nothing.")
            )
        _to_float32(trained)
        if config.is_prompt_learning:
            _pass_prefix_at_each_call(adapted)
        return cast("nn.Module", adapted)

    def trainable(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters that the tuner's layers declare and train, by name."""
        return adapter_parameters(cast("PeftModel", model))

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the adapter as `peft` does: ``PeftModel.from_pretrained`` loads the folder."""
        # The base's embeddings are frozen and its vocabulary is as it was. Left to decide by
        # itself, `peft` asks the hub whether it is.
        cast("PeftModel", model).save_pretrained(
            str(folder), safe_serialization=True, save_embedding_layers=False
        )

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """Put a saved adapter into a fresh base model, frozen and ready to evaluate.

        Raises:
            BenchError: the folder holds no adapter, or one for another model.
        """
        from peft import PeftModel

        if not (folder / "adapter_config.json").is_file():
            raise BenchError(f"{folder} holds no adapter: adapter_config.json is not there.")
        model.requires_grad_(False)
        before = {id(parameter) for parameter in model.parameters()}
        # The seed does not matter, as every value is overwritten; the random state is restored.
        with isolated_rng(0), _quiet():
            try:
                # `peft` only warns of tensors that are missing, which then keep their start.
                warnings.filterwarnings("error", MISSING_TENSORS, UserWarning)
                loaded = PeftModel.from_pretrained(model, str(folder))
                _check_nothing_left_over(loaded, folder)
            except (RuntimeError, ValueError, KeyError, UserWarning) as error:
                raise BenchError(
                    f"The adapter in {folder} does not fit this {type(model).__name__}: {error}"
                ) from error
        _to_float32(
            {name: value for name, value in loaded.named_parameters() if id(value) not in before}
        )
        if loaded.active_peft_config.is_prompt_learning:
            _pass_prefix_at_each_call(loaded)
        return cast("nn.Module", loaded.eval())

    def merge(self, model: nn.Module) -> nn.Module:
        """Write the update into the base's weights and return the plain base model.

        Raises:
            BenchError: the method is not mergeable, by its own claim or by `peft`'s refusal.
        """
        if not self.mergeable:
            return super().merge(model)
        merge_and_unload = getattr(model, "merge_and_unload", None)
        if merge_and_unload is None:
            raise BenchError(
                f"The method {self.name!r} cannot be merged: peft has no merge for it."
            )
        _untie(cast("PeftModel", model))
        try:
            with _quiet():
                return cast("nn.Module", merge_and_unload())
        except (NotImplementedError, ValueError, TypeError) as error:
            raise BenchError(f"The method {self.name!r} cannot be merged: {error}") from error


def _to_float32(parameters: dict[str, nn.Parameter]) -> None:
    """Make parameters float32 in place; they stay the same objects."""
    for parameter in parameters.values():
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()


def _check_nothing_left_over(model: PeftModel, folder: Path) -> None:
    """Refuse a file with tensors that the loaded adapter has not: `peft` does not mention them.

    Raises:
        ValueError: there is one; the message names it.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        return
    with safe_open(path, framework="pt") as file:
        saved = set(file.keys())
    extra = sorted(saved - set(get_peft_model_state_dict(model, save_embedding_layers=False)))
    if extra:
        raise ValueError(f"it holds {len(extra)} tensors that are not of this adapter: {extra[0]}")


def _untie(model: PeftModel) -> None:
    """Give adapted layers weights of their own where they share them with other modules.

    Tuners of `peft` merge into the weight in place. An update of a tied output layer would change
    the input embeddings too. Only trainable tokens are meant to: they adapt both sides alike.
    """
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    owners = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and not isinstance(module, TrainableTokensLayer):
            layer = module.get_base_layer()
            for name, parameter in list(layer.named_parameters(recurse=False)):
                if owners[id(parameter)] > 1:
                    own = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                    setattr(layer, name, own)


def _pass_prefix_at_each_call(model: PeftModel) -> None:
    """Let a model with a trained prefix generate without a key/value cache as well as with one.

    `peft` passes the prefix to the base model as a cache. The base model returns it, now longer by
    the text, and ``generate(use_cache=False)`` would pass it on together with the whole text.
    """
    model.get_base_model().register_forward_hook(_forget_cache, with_kwargs=True)


def _forget_cache(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
    if kwargs.get("use_cache") is False and hasattr(output, "past_key_values"):
        output.past_key_values = None


def _task_type(model: nn.Module) -> str | None:
    """`peft`'s task of a model: it decides that a classification head trains too."""
    from transformers.models.auto import modeling_auto

    names = {kind.__name__ for kind in type(model).__mro__}
    if names & set(modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values()):
        return "SEQ_CLS"
    if names & set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
        return "CAUSAL_LM"
    return None


def _with_head(model: Any, modules: Iterable[str] | None) -> list[str] | None:
    """The modules that train whole, with all that stands outside a classifier's body.

    `peft` itself knows the two commonest names of a head.
    """
    kept, body = list(modules or ()), model.base_model
    for name, child in model.named_children():
        if body is not model and child is not body and any(True for _ in child.parameters()):
            kept.append(name)
    return list(dict.fromkeys(kept)) or None


@contextmanager
def _building(model: nn.Module, seed: int, what: str) -> Iterator[None]:
    """Seeded, on the meta device for a model that is there, with errors as the suite has them."""
    import torch

    meta = any(parameter.is_meta for parameter in model.parameters())
    with ExitStack() as stack:
        stack.enter_context(isolated_rng(seed))
        stack.enter_context(_quiet())
        if meta:
            # Otherwise `peft` makes the adapter's weights in memory first and moves them.
            stack.enter_context(torch.device("meta"))
        try:
            yield
        except Warning:
            raise  # not a refusal, but a caller who has turned warnings into errors
        except Exception as error:  # whatever the tuner's code runs into
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            if meta and isinstance(error, RuntimeError):  # NotImplementedError is one
                raise BenchError(
                    f"{what} starts from the base's weights, and this model is on the meta "
                    f"device, without any: {reason}"
                ) from error
            raise UsageError(
                f"{what} does not fit this {type(model).__name__} with these settings: {reason}"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of `peft` on which no user of the suite can act."""
    with warnings.catch_warnings():
        # transformers 5 has renamed an attribute that `peft` reads of every model it adapts.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        # A setting of which `peft` knows the right value, for GPT-2's layers, and takes it.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)
        # Shared weights are separated before a merge.
        warnings.filterwarnings("ignore", "Model with `tie_word_embeddings=True`", UserWarning)
        warnings.filterwarnings("ignore", ".*no longer tied after merging", UserWarning)
        yield
