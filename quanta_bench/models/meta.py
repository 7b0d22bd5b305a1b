"""Models without weights, for fast and exact parameter counts of any method on any model.

The configurations of the tables' models are shipped in ``configs``, one JSON file per model, so
that neither a model hub nor memory for weights is needed. For a model in a folder, its
configuration is enough.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quanta_bench.errors import SourceError, UsageError, did_you_mean
from quanta_bench.models.folders import read_configuration
from quanta_bench.plugins import build_method
from quanta_bench.sources.names import read_words
from quanta_bench.spec import Denominator, canonical
from quanta_bench.utils.fingerprint import file_digest, text_digest

if TYPE_CHECKING:
    from torch import nn

    from quanta_bench.method import Method


@dataclass(frozen=True)
class Count:
    """Parameters of a method on a model.

    Attributes:
        trainable: trainable parameters.
        base: parameters of the base model; tied ones count once.
        added: trainable parameters that are not the base's own.
    """

    trainable: int
    base: int
    added: int

    @property
    def of_base(self) -> float:
        """Trainable / base: the percentage of the paper's Tables 1, 2 and F.5, as a fraction."""
        return self.trainable / self.base

    @property
    def of_total(self) -> float:
        """Trainable / (base + added): that of Tables 3, 4 and F.6, as a fraction."""
        return self.trainable / (self.base + self.added)

    def share(self, denominator: Denominator) -> float:
        """The fraction with the given denominator."""
        return self.of_base if denominator == "base" else self.of_total


def known_models() -> tuple[str, ...]:
    """Names of the models whose configuration is shipped, sorted."""
    return tuple(
        sorted(
            entry.name.removesuffix(".json")
            for entry in files("quanta_bench.models").joinpath("configs").iterdir()
            if entry.name.endswith(".json")
        )
    )


def meta_model(name: str, layers: int | None = None) -> nn.Module:
    """A model on the meta device: all its layers and shapes in float32, no weights.

    Args:
        name: one of `known_models`, its name on the hub, that of another model on the hub whose
            ``config.json`` was downloaded, with ``@REVISION`` unless it is that of ``main``, or
            ``local:DIR`` for a folder in the hub's layout, of which only ``config.json`` is read.
            Builds a sequence classifier if the configuration names one, else a causal language
            model.
        layers: number of layers to build; by default the model's own.

    Raises:
        UsageError: no such model is shipped, or `transformers` refuses the configuration.
        SourceError: the folder has no configuration, or one whose architecture `transformers`
            does not have itself or whose implementation it would download: a folder chooses no
            code.
    """
    import torch
    import transformers

    kind, config = _configuration(name)
    if layers is not None:
        config.num_hidden_layers = layers
    with torch.device("meta"), _refusing(name):
        model: nn.Module = getattr(transformers, kind).from_config(config, dtype=torch.float32)
    return model.eval()


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Say which configuration `transformers` refuses: its checks and layers raise what they like.

    Raises:
        UsageError: it refused this one.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"The configuration of {name} is refused by transformers: "
            f"{type(error).__name__}: {reason}"
        ) from error


def layers_of(name: str) -> int:
    """The number of layers of a model of `meta_model`."""
    return int(_configuration(name)[1].get_text_config().num_hidden_layers)


def width_of(name: str) -> int:
    """The hidden size of a model of `meta_model`."""
    return int(_configuration(name)[1].get_text_config().hidden_size)


def vocabulary(name: str) -> int:
    """The vocabulary size of a model of `meta_model`."""
    return int(_configuration(name)[1].get_text_config().vocab_size)


def outside_layers(name: str) -> int:
    """Parameters of the embedding and the output layer of a model of `meta_model`."""
    config = _configuration(name)[1].get_text_config()
    tied = getattr(config, "tie_word_embeddings", False)
    return int(config.vocab_size * config.hidden_size * (1 if tied else 2))


def cache_bytes(name: str) -> int:
    """Bytes of the key/value cache per token of a model of `meta_model`, in bfloat16."""
    config = _configuration(name)[1].get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * 2 * config.num_hidden_layers * kept * width)


def hub_name(name: str) -> str:
    """A model's name on the hub; unknown names are returned unchanged."""
    return str(_description(name)["hub"]) if name in known_models() else name


def count(model: nn.Module, method: Method[Any], seed: int = 0) -> Count:
    """Count a method's parameters on a model.

    Args:
        model: the base model, on the meta device or with weights. It is adapted in place and
            must not be used afterwards.
        method: the method.
        seed: seed of the adapter's initialisation; the count does not depend on it.

    Raises:
        BenchError: the method does not fit the model, or needs weights.
    """
    own = {id(parameter): parameter.numel() for parameter in model.parameters()}
    return quantities(own, method.trainable(adapt_quietly(model, method, seed)).values())


def quantities(own: Mapping[int, int], trainable: Collection[nn.Parameter]) -> Count:
    """The count for a base, given as sizes by parameter id, and the trainable parameters."""
    return Count(
        trainable=sum(parameter.numel() for parameter in trainable),
        base=sum(own.values()),
        added=sum(parameter.numel() for parameter in trainable if id(parameter) not in own),
    )


def adapt_quietly(model: nn.Module, method: Method[Any], seed: int = 0) -> nn.Module:
    """Adapt a model that is neither trained nor saved, without warnings.

    A tuner's warnings concern merging and saving, for example with a tied output layer, and do not
    matter for a count.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return method.adapt(model, seed)


class Counts:
    """A cache of the counts of methods on models."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], Count] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def get(self, model: str, method: str, settings: Mapping[str, Any]) -> Count:
        """The count of a registered method with plain settings on a model of `meta_model`.

        Raises:
            BenchError: raised by `meta_model`, `build_method` or `count`.
        """
        built = build_method(method, settings)
        # Omitted settings and explicit defaults are the same.
        key = (model, method, canonical(built.config.model_dump(mode="json")))
        if key not in self._counts:
            self._counts[key] = count(meta_model(model), built)
        return self._counts[key]


def configuration_digest(name: str) -> str:
    """A hash of the configuration of a model of `meta_model`. Imports no library of models.

    Raises:
        UsageError: no such model is shipped.
        SourceError: the folder has no configuration, or it cannot be read.
    """
    path = _file(name)
    if path is None:
        return text_digest(canonical(_description(name)))
    try:
        return file_digest(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}.") from error


def _configuration(name: str) -> tuple[str, Any]:
    """The class of a model and its configuration."""
    path = _file(name)
    return _shipped(name) if path is None else _from_file(path)


def _file(name: str) -> Path | None:
    """The file of a model's configuration; ``None`` if it is shipped.

    Raises:
        UsageError: it is neither shipped nor here.
        SourceError: the folder has none.
    """
    if name.startswith("local:"):
        path = read_words(name)[1] / "config.json"
        if not path.is_file():
            raise SourceError(f"There is no model in {path.parent}: config.json is missing.")
        return path
    try:
        _description(name)
    except UsageError:
        if (downloaded := _downloaded(name)) is None:
            raise
        return downloaded
    return None


def fetch_configuration(name: str, revision: str = "main") -> None:
    """Download the configuration of a hub's model, unless it is here; a failure is not an error.

    With it, settings are fitted to the model before its weights are read; what is wrong with the
    model or the hub is said when they are.
    """
    from huggingface_hub import hf_hub_download

    if _is_shipped(name):
        return
    with suppress(Exception):  # the client raises errors of several HTTP libraries
        hf_hub_download(name, "config.json", revision=revision)


def _is_shipped(name: str) -> bool:
    try:
        _description(name)
    except UsageError:
        return False
    return True


def _downloaded(name: str) -> Path | None:
    """Where the configuration of a hub's ``NAME`` or ``NAME@REVISION`` is, if it was downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if "/" not in name:
        return None
    try:
        name, _, revision = name.partition("@")
        found = try_to_load_from_cache(name, "config.json", revision=revision or None)
    except HFValidationError:
        return None  # no name of a hub's model
    return Path(found) if isinstance(found, str) else None


def _shipped(name: str) -> tuple[str, Any]:
    """The class of a shipped model and its configuration."""
    import transformers

    description = _description(name)
    return description["class"], transformers.AutoConfig.for_model(**description["config"])


def _from_file(path: Path) -> tuple[str, Any]:
    """The class of a model and its configuration, from its folder's ``config.json``."""
    import transformers

    content = read_configuration(path)
    kind = str(content.get("model_type"))
    if kind not in transformers.CONFIG_MAPPING:
        raise SourceError(
            f"{path} is of the type {kind!r}, which this version of transformers does not have. "
            "Code of the folder's own is never run."
        )
    # A quantised model has the parameters of the plain one that it was made from.
    for key in ("auto_map", "quantization_config"):
        content.pop(key, None)
    with _refusing(str(path)):
        config = transformers.CONFIG_MAPPING[kind].from_dict(content)
        names = list(content.get("architectures") or ())
    classifies = any(str(name).endswith("ForSequenceClassification") for name in names)
    heads = (
        transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
        if classifies
        else transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    )
    if type(config) not in heads:
        raise SourceError(f"{path}: transformers has no causal language model of type {kind!r}.")
    head = "AutoModelForSequenceClassification" if classifies else "AutoModelForCausalLM"
    return head, config


def _description(name: str) -> dict[str, Any]:
    folder = files("quanta_bench.models").joinpath("configs")
    hub_names: list[str] = []
    plain = name.partition("@")[0]
    for known in known_models():
        description: dict[str, Any] = json.loads(folder.joinpath(f"{known}.json").read_text())
        if plain in (known, description["hub"]):
            return description
        hub_names.append(description["hub"])
    raise UsageError(
        f"No configuration of a model {name!r} is shipped. "
        + did_you_mean(name, (*known_models(), *hub_names))
    )
