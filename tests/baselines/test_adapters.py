"""Series and parallel adapters against plain layers hooked into a plain model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftConfig, get_peft_model
from torch import Tensor, nn

from baselines.adapters import Parallel, Series
from baselines.bottleneck import Bottleneck, ParallelConfig, SeriesConfig
from quanta_bench.method import BenchError, UsageError
from quanta_bench.models.meta import count, meta_model

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x * torch.sigmoid(x),
}


def adapters(model: nn.Module) -> dict[str, Bottleneck]:
    """The adapters by the names that their modules have in the base model."""
    return {
        name.removeprefix("base_model.model.").rpartition(".")[0].rpartition(".")[0]: module
        for name, module in model.named_modules()
        if isinstance(module, Bottleneck)
    }


def weights(adapter: Bottleneck) -> tuple[Tensor, Tensor]:
    return adapter.get_parameter("down.weight").detach(), adapter.get_parameter(
        "up.weight"
    ).detach()


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_series_is_a_hook_on_the_input_or_on_the_output(
    activation: str, train: Any, tiny: Any, logits: Any
) -> None:
    settings = {"bottleneck": 5, "activation": activation, "scale": 0.5}
    run = train(Series.from_settings(settings), steps=5)
    function = FUNCTIONS[activation]
    plain = tiny()
    found = adapters(run.model)
    assert len(found) == 6
    for name, adapter in found.items():
        down, up = weights(adapter)
        assert down.shape == (5, 64)
        assert up.shape == (64, 5)
        assert up.abs().max() > 0

        def adapt(x: Tensor, down: Tensor = down, up: Tensor = up) -> Tensor:
            return x + 0.5 * function(x @ down.T) @ up.T

        layer = plain.get_submodule(name)
        if name.endswith("down_proj"):
            layer.register_forward_hook(lambda _, x, y, adapt=adapt: adapt(y))
        else:
            layer.register_forward_pre_hook(lambda _, x, adapt=adapt: (adapt(x[0]),))
    torch.testing.assert_close(run.logits, logits(plain), rtol=1e-5, atol=1e-5)
    assert (run.logits - logits(tiny())).abs().max() > 1e-2


def test_parallel_is_added_to_the_output(train: Any, tiny: Any, logits: Any) -> None:
    settings = {"bottleneck": 3, "scale": 2.0, "target_modules": ("v_proj", "up_proj")}
    run = train(Parallel.from_settings(settings), steps=5)
    plain = tiny()
    found = adapters(run.model)
    assert len(found) == 4
    for name, adapter in found.items():
        down, up = weights(adapter)
        layer = plain.get_submodule(name)
        assert down.shape == (3, layer.in_features)
        assert up.shape == (layer.out_features, 3)

        def hook(_: nn.Module, x: Any, y: Tensor, down: Tensor = down, up: Tensor = up) -> Tensor:
            return y + 2 * torch.tanh(x[0] @ down.T) @ up.T

        layer.register_forward_hook(hook)
    torch.testing.assert_close(run.logits, logits(plain), rtol=1e-5, atol=1e-5)
    assert (run.logits - logits(tiny())).abs().max() > 1e-2


def test_before_names_modules_as_targets_do(tiny: Any) -> None:
    settings = {
        "target_modules": ["q_proj", "k_proj", "gate_proj", "up_proj", "down_proj"],
        "before": ["model.layers.0.self_attn.q_proj", "mlp.gate_proj"],
    }
    adapted = adapters(Series.from_settings(settings).adapt(tiny(), seed=0))
    before = {name for name, adapter in adapted.items() if adapter.position == "input"}
    assert before == {
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.gate_proj",
        "model.layers.1.mlp.gate_proj",
    }
    assert {adapter.position for name, adapter in adapted.items() if name not in before} == {
        "output"
    }
    widths = {name: adapter.in_features for name, adapter in adapted.items() if ".0." in name}
    assert widths["model.layers.0.self_attn.k_proj"] == 32  # of its output
    assert widths["model.layers.0.mlp.up_proj"] == 96
    assert widths["model.layers.0.mlp.down_proj"] == 64
    assert (
        SeriesConfig(before=["proj"]).position("mlp.up_proj") == "output"
    )  # not the end of a name


def test_before_names_what_the_model_has(tiny: Any) -> None:
    with pytest.raises(UsageError, match=r"before: .*'gate_prj'.*'gate_proj'"):
        Series.from_settings({"before": ["gate_prj"]}).adapt(tiny(), seed=0)


@pytest.mark.parametrize("kind", [Series, Parallel])
def test_starts(kind: Any, tiny: Any, logits: Any) -> None:
    expected = logits(tiny())
    zero = kind.from_settings({"bottleneck": 64})
    model = zero.adapt(tiny(), seed=0)
    assert zero.exact_start
    assert torch.equal(logits(model), expected)
    for adapter in adapters(model).values():
        down, up = weights(adapter)
        assert up.abs().max() == 0
        bound = 1 / math.sqrt(adapter.in_features)  # of Kaiming-uniform with a = sqrt(5)
        assert 0.99 * bound < down.abs().max() <= bound
    normal = kind.from_settings({"bottleneck": 64, "start": "normal"})
    model = normal.adapt(tiny(), seed=0)
    assert not normal.exact_start
    assert (logits(model) - expected).abs().max() > 1e-4
    for adapter in adapters(model).values():
        for weight in weights(adapter):
            assert weight.std() == pytest.approx(0.02, rel=0.1)
            assert weight.mean().abs() < 0.002


@pytest.mark.parametrize(
    ("model", "method", "settings", "parameters", "printed", "denominator"),
    [
        # DROP (Table 2); commonsense (Table 3).
        ("llama2-7b", Series, Series.rows["paper"].config, 50_331_648, "0.747%", "base"),
        ("llama2-7b", Parallel, Parallel.rows["paper"].config, 50_331_648, "0.747%", "base"),
        ("llama-7b", Series, {"target_modules": ["down_proj"]}, 67_108_864, "0.99%", "base+added"),
        (
            "llama-7b",
            Parallel,
            {"target_modules": ["up_proj", "down_proj"]},
            247_463_936,
            "3.54%",
            "base+added",
        ),
        ("llama-13b", Series, {"target_modules": ["down_proj"]}, None, "0.80%", "base+added"),
        (
            "llama-13b",
            Parallel,
            {"target_modules": ["up_proj", "down_proj"]},
            None,
            "2.89%",
            "base+added",
        ),
    ],
)
def test_counts_of_the_paper(
    model: str,
    method: Any,
    settings: dict[str, Any],
    parameters: int | None,
    printed: str,
    denominator: Any,
) -> None:
    found = count(meta_model(model), method.from_settings({"bottleneck": 256, **settings}))
    assert parameters in (None, found.trainable)
    digits = len(printed.rstrip("%").partition(".")[2])
    assert f"{found.share(denominator):.{digits}%}" == printed


def test_sizes_grow(tiny: Any) -> None:
    for method in (Series, Parallel):
        counts = [
            count(tiny("meta"), method.from_settings(settings)).trainable
            for settings in list(method.sizes(tiny("meta")))[:4]
        ]
        assert counts == [counts[0] * factor for factor in (1, 2, 3, 4)]


@pytest.mark.parametrize("kind", [SeriesConfig, ParallelConfig])
def test_merging_is_refused_with_the_reason(kind: Any, tiny: Any) -> None:
    model = get_peft_model(tiny(), kind(bottleneck=2, target_modules=["up_proj"]))
    with pytest.raises(ValueError, match="is not linear"):
        model.merge_and_unload()
    with pytest.raises(BenchError, match="'series' cannot be merged: an activation between"):
        Series.from_settings({}).merge(model)


@pytest.mark.parametrize("method", [Series, Parallel])
def test_settings_are_the_fields_of_the_configuration(method: Any) -> None:
    config = method.tuner_config
    own = {field.name for field in dataclasses.fields(config)}
    own -= {"seed", *(field.name for field in dataclasses.fields(PeftConfig))}
    settings = method.from_settings({}).config
    assert own == set(dict(settings))
    for name in own - {"target_modules"}:
        assert getattr(config(), name) == getattr(settings, name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bottleneck": 0}, "bottleneck: Input should be greater than or equal to 1"),
        ({"activation": "sine"}, "activation: Input should be 'tanh', 'relu'"),
        ({"scale": 0}, "scale: Input should be greater than 0"),
        ({"start": "kaiming"}, "start: Input should be 'zero' or 'normal'"),
        ({"befor": []}, "Did you mean 'before'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Series.from_settings(settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"bottleneck": 0},
            "SeriesConfig: bottleneck=0: Input should be greater than or equal to 1",
        ),
        ({"activation": "sine"}, "activation='sine': Input should be 'tanh'"),
        ({"scale": -1.0}, "scale=-1.0: Input should be greater than 0"),
        ({"start": "one"}, "start='one': Input should be 'zero' or 'normal'"),
        ({"before": "up_proj"}, "before='up_proj': Input should be a valid list"),
    ],
)
def test_bad_configurations(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeriesConfig(**fields)
