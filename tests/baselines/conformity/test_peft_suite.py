"""Our tuners in the tests that `peft` has for its own: `TestPeftCustomModel`.

They stand in `peft`'s source distribution, which pip fetches once (``tests/peft_source.py``); this
module is skipped where it cannot. The tests beside this one need no such thing and cover the same
ground.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.quanta import QuantaLinear
from baselines.tuners.layer import AdaptedLinear
from tests.baselines.conformity.tuners import TUNERS, Tuner, perturb
from tests.peft_source import SourceMissingError, peft_source

try:
    PEFT_SOURCE = peft_source()
except SourceMissingError as error:
    pytest.skip(str(error), allow_module_level=True)

COMMON = ["test_name", "model_id", "config_cls", "config_kwargs"]

MERGES = "the test merges, and this adapter is not linear"
NAN = "the test trains with a learning rate of 0.5, at which a QTHA adapter becomes NaN"

EXCLUDED: dict[str, dict[str, str]] = {
    "test_delete_merged_adapter_only_rejects_the_merged_one": {"not_mergeable": MERGES},
    "test_delete_merged_adapter_raises_without_mutation": {"not_mergeable": MERGES},
    "test_disable_adapters_with_merging": {"not_mergeable": MERGES},
    "test_forward_bfloat16": {"not_mergeable": MERGES},
    "test_forward_bfloat16_no_autocast": {"not_mergeable": MERGES},
    "test_forward_float16": {"not_mergeable": MERGES},
    "test_forward_float16_no_autocast": {"not_mergeable": MERGES},
    "test_merge_layers": {"not_mergeable": MERGES},
    "test_merge_layers_fp16": {"not_mergeable": MERGES},
    "test_merge_layers_is_deterministic_in_train_mode": {"not_mergeable": MERGES},
    "test_merge_layers_is_idempotent": {"not_mergeable": MERGES},
    "test_parameters_after_loading_model": {"qtha": NAN},
    "test_safe_merge": {"not_mergeable": MERGES},
}
"""By the test: the tuners that do not run it, by name or all that cannot be merged, and why."""

SMALL: dict[str, dict[str, Any]] = {  # what fits layers of any width
    "krona": {"side": 1},
    "quanta": {"dims": (4, 6), "rectangular": "pad"},
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "MLP": ("MLP", {"target_modules": ["lin0"]}),
    "modules_to_save": ("MLP", {"target_modules": ["lin0"], "modules_to_save": ["lin1"]}),
    "Conv1D": ("EmbConv1D", {"target_modules": ["conv1d"]}),
}


def load() -> Any:
    """The module with `peft`'s tests, which imports `diffusers` and does not use it here."""
    if "diffusers" not in sys.modules:
        stub: Any = types.ModuleType("diffusers")
        stub.StableDiffusionPipeline = type("StableDiffusionPipeline", (), {})
        sys.modules["diffusers"] = stub
    # Under a name of its own: both test trees are packages called "tests".
    package = types.ModuleType("peft_source_tests")
    package.__path__ = [str(PEFT_SOURCE / "tests")]
    sys.modules["peft_source_tests"] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("peft_source_tests.test_custom_models")


def checks() -> Iterator[Any]:
    """Every test that takes a configuration class, with each value of its other parameters."""
    tester = load().TestPeftCustomModel
    for name, test in inspect.getmembers(tester, inspect.isfunction):
        parameters = list(inspect.signature(test).parameters)[1:]
        if not name.startswith("test_") or parameters[:4] != COMMON:
            continue
        choices = []
        for mark in getattr(test, "pytestmark", []):
            names = mark.args[0] if mark.name == "parametrize" else ""
            names = [part.strip() for part in names.split(",")] if isinstance(names, str) else names
            if names != COMMON and mark.name == "parametrize":
                rows = [row if len(names) > 1 else (row,) for row in mark.args[1]]
                choices.append([dict(zip(names, row, strict=True)) for row in rows])
        for index, choice in enumerate(itertools.product(*choices)):
            options = {key: value for part in choice for key, value in part.items()}
            label = f"{name}-{index}" if options else name
            yield pytest.param(name, options, id=label)


def config_class(tuner: Tuner, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The configuration class with the ``init_weights=False`` of `peft`'s own: a random start."""
    if tuner is TUNERS["lora"]:
        return tuner.config
    base: Any = tuner.config

    class Config(base):  # type: ignore[misc]
        def __init__(self, *args: Any, init_weights: bool = True, **fields: Any) -> None:
            super().__init__(*args, **fields)
            vars(self)["init_weights"] = init_weights

    def randomised(update_layer: Callable[..., None]) -> Callable[..., None]:
        def update(self: Any, adapter_name: str, config: Any, name: str) -> None:
            update_layer(self, adapter_name, config, name)
            if not getattr(config, "init_weights", True) and not config.inference_mode:
                adapter = getattr(self, self.adapter_layer_names[0])[adapter_name]
                perturb([value for value in adapter.parameters() if not value.is_meta], scale=0.5)

        return update

    for layer in (AdaptedLinear, QuantaLinear):
        monkeypatch.setattr(layer, "update_layer", randomised(layer.update_layer))
    return Config


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tuner_name", TUNERS)
@pytest.mark.parametrize(("check", "options"), list(checks()))
def test_as_peft_tests_its_own(
    check: str,
    options: dict[str, Any],
    tuner_name: str,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    tuner = TUNERS[tuner_name]
    excluded = EXCLUDED.get(check, {})
    reason = excluded.get(tuner_name) or (tuner.not_mergeable and excluded.get("not_mergeable"))
    if reason:
        pytest.skip(reason)
    model_id, targets = MODELS[model]
    settings = {**tuner.settings, **SMALL.get(tuner_name, {}), **targets}
    tester = load().TestPeftCustomModel()
    if "tmp_path" in inspect.signature(getattr(tester, check)).parameters:
        options = {**options, "tmp_path": tmp_path}
    torch.manual_seed(0)
    config = config_class(tuner, monkeypatch)
    getattr(tester, check)(tuner_name, model_id, config, settings, **options)
