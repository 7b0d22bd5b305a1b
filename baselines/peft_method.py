"""Base class of methods that are tuners of the library `peft`."""

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
    """A method that `peft` implements. A subclass only provides the configuration.

    The base model is adapted in place: it gets the tuner's layers, and its own weights stay
    unchanged. A model on the meta device is adapted there, to count parameters.
    """

    @abstractmethod
    def peft_config(self, seed: int) -> PeftConfig:
        """A new configuration; `peft` modifies the one it receives.

        Args:
            seed: for tuners with their own seed.
        """

    def adapt(self, model: nn.Module, seed: int) -> nn.Module:
        """Add the tuner to the model; initial values depend only on the seed and the settings.

        Raises:
            UsageError: a target module does not exist, or `peft` rejects the settings for this
                model.
            BenchError: the tuner trains a parameter that its layers do not declare, or it needs
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
        # From here on, only the tuner decides what trains.
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
                + (f"{strays[0]}, which none of its layers declare." if strays else "nothing.")
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
        # The base model's embeddings are frozen and its vocabulary is unchanged. By default,
        # `peft` queries the hub to find out.
        cast("PeftModel", model).save_pretrained(
            str(folder), safe_serialization=True, save_embedding_layers=False
        )

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """Load a saved adapter into a fresh base model, frozen and ready to evaluate.

        Raises:
            BenchError: the folder contains no adapter, or one for a different model.
        """
        from peft import PeftModel

        if not (folder / "adapter_config.json").is_file():
            raise BenchError(f"{folder} contains no adapter: adapter_config.json is missing.")
        model.requires_grad_(False)
        before = {id(parameter) for parameter in model.parameters()}
        # The seed does not matter, as every value is overwritten; the random state is restored.
        with isolated_rng(0), _quiet():
            try:
                # `peft` only warns about missing tensors, which then keep their initial values.
                warnings.filterwarnings("error", MISSING_TENSORS, UserWarning)
                loaded = PeftModel.from_pretrained(model, str(folder))
                _check_no_extra_tensors(loaded, folder)
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
        """Merge the update into the base weights and return the plain base model.

        Raises:
            BenchError: the method does not claim to be mergeable, or `peft` refuses to merge it.
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
    """Convert parameters to float32 in place, keeping the same objects."""
    for parameter in parameters.values():
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()


def _check_no_extra_tensors(model: PeftModel, folder: Path) -> None:
    """Reject a file with tensors that the loaded adapter lacks; `peft` ignores them silently.

    Raises:
        ValueError: the file has an extra tensor; the message names it.
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
        raise ValueError(f"it has {len(extra)} tensors that the adapter lacks, such as {extra[0]}")


def _untie(model: PeftModel) -> None:
    """Copy the weights that adapted layers share with other modules.

    `peft` tuners merge into the weight in place, so merging into a tied output layer would change
    the input embeddings too. Only trainable tokens intend that: they adapt both sides alike.
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
                    copy = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                    setattr(layer, name, copy)


def _pass_prefix_at_each_call(model: PeftModel) -> None:
    """Make generation with a trained prefix work without a key/value cache too.

    `peft` passes the prefix to the base model as a cache. The base model returns it extended by the
    text, and ``generate(use_cache=False)`` would pass it back together with the whole text.
    """
    model.get_base_model().register_forward_hook(_forget_cache, with_kwargs=True)


def _forget_cache(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
    if kwargs.get("use_cache") is False and hasattr(output, "past_key_values"):
        output.past_key_values = None


def _task_type(model: nn.Module) -> str | None:
    """`peft`'s task type of a model; with ``SEQ_CLS``, the classification head trains too."""
    from transformers.models.auto import modeling_auto

    names = {kind.__name__ for kind in type(model).__mro__}
    if names & set(modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values()):
        return "SEQ_CLS"
    if names & set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
        return "CAUSAL_LM"
    return None


def _with_head(model: Any, modules: Iterable[str] | None) -> list[str] | None:
    """The fully trained modules, including everything outside a classifier's backbone.

    `peft` itself knows only the two most common names of a head.
    """
    trained, backbone = list(modules or ()), model.base_model
    for name, child in model.named_children():
        if backbone is model or child is backbone:
            continue
        if any(True for _ in child.parameters()):
            trained.append(name)
    return list(dict.fromkeys(trained)) or None


@contextmanager
def _building(model: nn.Module, seed: int, what: str) -> Iterator[None]:
    """Seed the block, use the model's meta device, and translate errors into the suite's."""
    import torch

    meta = any(parameter.is_meta for parameter in model.parameters())
    with ExitStack() as stack:
        stack.enter_context(isolated_rng(seed))
        stack.enter_context(_quiet())
        if meta:
            # Otherwise `peft` allocates the adapter's weights in memory before moving them.
            stack.enter_context(torch.device("meta"))
        try:
            yield
        except Warning:
            raise  # not a rejection: the caller has turned warnings into errors
        except Exception as error:  # any error of the tuner's code
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            if meta and isinstance(error, RuntimeError):  # NotImplementedError is one
                raise BenchError(
                    f"{what} needs the base weights to start from, and this model is on "
                    f"the meta device, without weights: {reason}"
                ) from error
            raise UsageError(
                f"{what} does not fit this {type(model).__name__} with these settings: {reason}"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence `peft` warnings that a user of the suite cannot act on."""
    with warnings.catch_warnings():
        # transformers 5 renamed an attribute that `peft` reads from every model it adapts.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        # `peft` corrects this setting itself for GPT-2's layers.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)
        # Shared weights are copied before a merge.
        warnings.filterwarnings("ignore", "Model with `tie_word_embeddings=True`", UserWarning)
        warnings.filterwarnings("ignore", ".*no longer tied after merging", UserWarning)
        yield
