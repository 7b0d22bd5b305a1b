"""LoRETTA against its formula, with trains multiplied out from their flat cores."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, get_peft_model
from torch import Tensor, nn

from baselines.loretta import (
    LorettaAdp,
    LorettaAdpConfig,
    LorettaRep,
    LorettaRepConfig,
    TrainBottleneck,
    TrainProduct,
)
from baselines.tensor_train import TensorTrain
from quanta_bench.method import BenchError, UsageError
from quanta_bench.models.meta import count, meta_model

NORMS = ("input_layernorm", "post_attention_layernorm", "norm")


def row_major(train: TensorTrain) -> Tensor:
    """The matrix (in x out) of a train of row-major entries: one list of them, cut into rows."""
    entries = torch.ones(1, 1)
    for core in train.cores:
        left, out, size, right = core.shape
        # Inside a core the row's part of the mode stands before the column's.
        flat = core.detach().transpose(1, 2).reshape(left, size * out, right)
        entries = torch.einsum("er,rns->ens", entries, flat).reshape(-1, right)
    return entries.reshape(train.in_features, train.out_features)


def adapters(model: nn.Module, kind: type[Any]) -> dict[str, Any]:
    """The adapters by the names that their modules have in the base model."""
    return {
        name.removeprefix("base_model.model.").rpartition(".")[0].rpartition(".")[0]: module
        for name, module in model.named_modules()
        if isinstance(module, kind)
    }


@pytest.mark.parametrize("start", ["normal", "zero"])
def test_rep_adds_the_product_of_two_trains(start: str, train: Any, tiny: Any, logits: Any) -> None:
    settings = {"rank": 3, "bottleneck": 8, "alpha": 12, "start": start}
    run = train(LorettaRep.from_settings(settings), steps=5)
    plain = tiny()
    adapted = adapters(run.model, TrainProduct)
    assert len(adapted) == 4
    for name, adapter in adapted.items():
        layer = plain.get_submodule(name)
        a, b = row_major(adapter.a), row_major(adapter.b)
        assert a.shape == (layer.in_features, 8)
        assert b.shape == (8, layer.out_features)
        assert b.abs().max() > 0
        layer.weight.data += 12 / 8 * (a @ b).T
        adapted = run.model.get_submodule(f"base_model.model.{name}")
        update = adapted.get_delta_weight("default").float()
        torch.testing.assert_close(update, 12 / 8 * (a @ b).T)
    torch.testing.assert_close(run.logits, logits(plain), rtol=1e-5, atol=1e-5)
    assert (run.logits - logits(tiny())).abs().max() > 1e-2


def test_adp_is_a_hook_on_the_output(train: Any, tiny: Any, logits: Any) -> None:
    run = train(LorettaAdp.from_settings({"rank": 3, "bottleneck": 6}), steps=5)
    plain = tiny()
    adapted = adapters(run.model, TrainBottleneck)
    assert {name.rpartition(".")[2] for name in adapted} == {"gate_proj", "up_proj", "down_proj"}
    for name, adapter in adapted.items():
        down, up = row_major(adapter.down), row_major(adapter.up)
        biases = adapter.down.bias.detach(), adapter.up.bias.detach()
        layer = plain.get_submodule(name)
        assert down.shape == (layer.out_features, 6)
        assert up.shape == (6, layer.out_features)

        def hook(
            _: nn.Module,
            x: Any,
            y: Tensor,
            down: Tensor = down,
            up: Tensor = up,
            biases: tuple[Tensor, Tensor] = biases,
        ) -> Tensor:
            return y + torch.tanh(y @ down + biases[0]) @ up + biases[1]

        layer.register_forward_hook(hook)
    torch.testing.assert_close(run.logits, logits(plain), rtol=1e-5, atol=1e-5)
    assert (run.logits - logits(tiny())).abs().max() > 1e-2


def test_adp_adapts_an_input_where_told_to(tiny: Any) -> None:
    settings = {"target_modules": ["up_proj"], "before": ["layers.1.mlp.up_proj"]}
    adapted = adapters(LorettaAdp.from_settings(settings).adapt(tiny(), 0), TrainBottleneck)
    assert [(adapter.position, adapter.in_features) for adapter in adapted.values()] == [
        ("output", 96),
        ("input", 64),
    ]
    with pytest.raises(UsageError, match=r"before: .*'up_prj'"):
        LorettaAdp.from_settings({"before": ["up_prj"]}).adapt(tiny(), 0)


@pytest.mark.parametrize("kind", [LorettaRep, LorettaAdp])
def test_starts(kind: Any, tiny: Any, logits: Any) -> None:
    expected = logits(tiny())
    normal = kind.from_settings({"rank": 4})
    assert not normal.exact_start
    model = normal.adapt(tiny(), seed=0)
    assert (logits(model) - expected).abs().max() > 1e-4
    zero = kind.from_settings({"rank": 4, "start": "zero"})
    assert zero.exact_start
    model = zero.adapt(tiny(), seed=0)
    assert torch.equal(logits(model), expected)
    second = "b" if kind is LorettaRep else "up"
    trains = {
        name: module for name, module in model.named_modules() if isinstance(module, TensorTrain)
    }
    assert trains
    for name, train in trains.items():
        zeros = [core.abs().max() == 0 for core in train.cores]
        assert zeros == [False] * (len(zeros) - 1) + [name.endswith(f".{second}")]


def test_entries_start_as_published(tiny: Any) -> None:
    """Standard deviation sqrt(1 / (in + out)) of each matrix, over many seeds."""
    squares: dict[str, list[Tensor]] = {"a": [], "b": []}
    for seed in range(40):
        settings = {"rank": 6, "bottleneck": 16, "target_modules": ["v_proj"]}
        model = LorettaRep.from_settings(settings).adapt(tiny(), seed)
        for adapter in adapters(model, TrainProduct).values():
            for which in squares:
                squares[which].append(row_major(getattr(adapter, which)).square().mean())
    for which, widths in (("a", 64 + 16), ("b", 16 + 32)):
        adapted = torch.stack(squares[which]).mean().sqrt()
        assert adapted == pytest.approx(math.sqrt(1 / widths), rel=0.15)


@pytest.mark.parametrize(
    ("rank", "parameters", "printed"),
    [(8, 614_400, "0.009%"), (32, 5_591_040, "0.083%"), (128, 84_480_000, "1.254%")],
)
def test_counts_of_the_paper(rank: int, parameters: int, printed: str) -> None:
    settings = {**LorettaRep.rows["paper"].config, "rank": rank}
    adapted = count(meta_model("llama2-7b"), LorettaRep.from_settings(settings))
    # 64 pairs of trains on the modes 16-16-16-4-4-4, and 65 norms.
    assert adapted.trainable == parameters == 128 * (40 * rank**2 + 20 * rank) + 65 * 4096
    assert f"{adapted.of_base:.3%}" == printed


def test_norms_train_are_saved_and_are_merged(
    train: Any, tiny: Any, logits: Any, tmp_path: Path
) -> None:
    method = LorettaRep.from_settings({"rank": 2, "bottleneck": 4, "modules_to_save": NORMS})
    run = train(method, steps=5)
    norms = {name for name in run.trainable if "norm" in name}
    assert len(norms) == 5
    assert all((run.trainable[name] - 1).abs().max() > 1e-3 for name in norms)
    method.save(run.model, tmp_path)
    torch.testing.assert_close(logits(method.load(tiny(), tmp_path)), run.logits)
    expected = run.logits
    merged = method.merge(run.model)
    assert {name for name, _ in merged.named_parameters()} == set(run.base)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [LorettaRep, LorettaAdp])
def test_modes_given_are_used_and_saved(
    kind: Any, train: Any, tiny: Any, logits: Any, tmp_path: Path
) -> None:
    settings = {
        "rank": 2,
        "bottleneck": 4,
        "modes": {64: (8, 2, 16), 32: (2, 8, 4, 2)},
        "target_modules": ["q_proj", "v_proj"],
    }
    method = kind.from_settings(settings)
    run = train(method, steps=2)
    adapted = {
        tuple(a * b for a, b in zip(train.in_modes, train.out_modes, strict=True))
        for train in run.model.modules()
        if isinstance(train, TensorTrain)
    }
    assert adapted == {(8, 2, 16), (2, 8, 4, 2)}
    method.save(run.model, tmp_path)
    torch.testing.assert_close(logits(method.load(tiny(), tmp_path)), run.logits)


def test_ranks_bound_the_update(train: Any) -> None:
    run = train(LorettaRep.from_settings({"rank": 3, "bottleneck": 16}), steps=5)
    ranks = run.method.ranks(run.model)
    assert len(ranks) == 4
    for name, bounds in ranks.items():
        update = run.model.get_submodule(name).get_delta_weight("default").double()
        assert torch.linalg.matrix_rank(update, rtol=1e-6) <= bounds["update"][1] <= 16
    # 16 x 64 is 16-16-4 and 16 x 32 is 16-8-4: the rows end between two cores.
    assert {bounds["update"][1] for bounds in ranks.values()} == {3}


def test_sizes_grow(tiny: Any) -> None:
    for method in (LorettaRep, LorettaAdp):
        counts = [
            count(tiny("meta"), method.from_settings(settings)).trainable
            for settings in list(method.sizes(tiny("meta")))[:5]
        ]
        assert counts == sorted(set(counts))


def test_adp_cannot_be_merged(tiny: Any) -> None:
    model = get_peft_model(tiny(), LorettaAdpConfig(target_modules=["up_proj"]))
    with pytest.raises(ValueError, match="is not linear"):
        model.merge_and_unload()
    with pytest.raises(BenchError, match="'loretta_adp' cannot be merged: an activation between"):
        LorettaAdp.from_settings({}).merge(model)


@pytest.mark.parametrize("method", [LorettaRep, LorettaAdp])
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
        ({"rank": 0}, "rank: Input should be greater than or equal to 1"),
        ({"alpha": 0}, "alpha: Input should be greater than 0"),
        ({"start": "one"}, "start: Input should be 'zero' or 'normal'"),
        ({"modes": [4, 4]}, "modes"),
        ({"modes": {64: (16, 16)}}, r"sizes for width 64 whose product is not 64 \* bottlen"),
        ({"modes": {64: ()}}, "for width 64"),
        (
            {"modes": {64: (32, 12, 2)}, "bottleneck": 12},
            r"(?s)module .*q_proj.*the mode 32 is neither a divisor nor a multiple of the 12 rows",
        ),
        ({"ranks": 4}, "Did you mean 'rank'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str, tiny: Any) -> None:
    with pytest.raises(UsageError, match=message):
        LorettaRep.from_settings(settings).adapt(tiny(), seed=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank=0: Input should be greater than or equal to 1"),
        ({"bottleneck": 0}, "bottleneck=0: Input should be greater than or equal to 1"),
        ({"alpha": -1.0}, "alpha=-1.0: Input should be greater than 0"),
        ({"start": "one"}, "start='one': Input should be 'zero' or 'normal'"),
    ],
)
def test_bad_configurations(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"LorettaRepConfig: {message}"):
        LorettaRepConfig(**fields)
