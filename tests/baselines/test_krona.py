"""KronA against `torch.kron`, against `peft`'s LoKr, and against the counts that are printed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoKrConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from baselines.krona import Krona, KronaAdapter, KronaConfig
from quanta_bench.method import UsageError
from quanta_bench.models.meta import count, meta_model

SIZE = st.integers(1, 6)


def part(side: int, rows: int, columns: int, scale: float = 1.0) -> KronaAdapter:
    """A random part in float64, for B of (rows, columns)."""
    made = KronaAdapter(KronaConfig(side=side, scale=scale), side * columns, side * rows).double()
    generator = torch.Generator().manual_seed(side + 10 * rows + 100 * columns)
    for parameter in made.parameters():
        parameter.data.normal_(generator=generator)
    return made


@given(SIZE, SIZE, SIZE, st.lists(st.integers(0, 3), max_size=3), st.floats(0.1, 10))
@settings(deadline=None)
@torch.no_grad()
def test_part_is_the_kronecker_product(
    side: int, rows: int, columns: int, batch: list[int], scale: float
) -> None:
    made = part(side, rows, columns, scale)
    x = torch.randn(*batch, side * columns, dtype=torch.float64)
    dense = scale * torch.kron(made.a, made.b)
    torch.testing.assert_close(made(x), x @ dense.T)
    torch.testing.assert_close(made.matrix(), dense)
    assert torch.linalg.matrix_rank(dense) == made.rank_bound()


@torch.no_grad()
def test_same_as_lokr_of_peft(tiny: Any, logits: Any) -> None:
    # LoKr puts the smaller factor first, so A of side 4 before B of (16, 16) or (8, 16).
    ours = Krona.from_settings({"side": 4}).adapt(tiny(), seed=0)
    targets = ["q_proj", "v_proj"]
    config = LoKrConfig(r=64, alpha=64, decompose_factor=4, target_modules=targets)
    theirs = get_peft_model(tiny(), config)
    base = logits(tiny())
    adapted = 0
    for name, module in theirs.named_modules():
        if hasattr(module, "lokr_w1"):
            kron = ours.get_submodule(name).adapter("default")
            for factor, own in ((module.lokr_w1, kron.a), (module.lokr_w2, kron.b)):
                own.normal_(0, 0.3)
                factor["default"].copy_(own)
            adapted += 1
    assert adapted == 4
    expected = logits(theirs)
    assert (expected - base).abs().max() > 1e-2
    torch.testing.assert_close(logits(ours), expected, rtol=1e-4, atol=1e-5)
    merged, oracle = ours.merge_and_unload(), theirs.merge_and_unload()
    torch.testing.assert_close(merged.state_dict(), oracle.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "side", "trainable", "percent"),
    [
        ("llama2-7b", 64, 524_288, 0.008),
        ("llama2-7b", 256, 4_210_688, 0.062),
        ("llama2-7b", 1024, 67_109_888, 0.996),
    ],
)
def test_counts_of_table_f5(model: str, side: int, trainable: int, percent: float) -> None:
    found = count(meta_model(model), Krona.from_settings({"side": side}))
    assert found.trainable == found.added == trainable
    assert round(100 * found.of_base, 3) == percent


def test_count_of_table_f6() -> None:
    found = count(meta_model("llama3-8b"), Krona.from_settings(Krona.rows["paper"].config))
    assert found.trainable == 32 * (256**2 + 16**2 + 256**2 + 4 * 16)
    assert round(100 * found.of_total, 3) == 0.052


def test_embedded_row_is_below_lora() -> None:
    method = Krona.from_settings(Krona.rows["embedded"].config)
    assert count(meta_model("smollm2-135m"), method).trainable == 30 * (2 * 64**2 + 9**2 + 3 * 9)


def test_start(tiny: Any) -> None:
    methods = [Krona.from_settings({"side": 32}).adapt(tiny(), seed) for seed in (0, 1)]
    parts = [
        model.get_submodule(f"base_model.model.model.layers.{layer}.self_attn.q_proj").adapter(
            "default"
        )
        for model in methods
        for layer in (0, 1)
    ]
    for made in parts:
        assert made.b.abs().max() == 0
        assert 0.9 / math.sqrt(32) < made.a.abs().max() <= 1 / math.sqrt(32)
    different = {tuple(made.a.flatten().tolist()) for made in parts}
    assert len(different) == 4  # by seed and by module


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_neither_the_matrix_nor_a_copy_of_a_for_each_token_is_made() -> None:
    made = KronaAdapter(KronaConfig(side=32), 256, 512)
    made.reset(torch.Generator().manual_seed(0))
    x = torch.randn(2, 20, 256, requires_grad=True)
    with Largest() as largest:
        made(x).sum().backward()
    assert largest.elements == 2 * 20 * 512  # the output, and less than 40 * 32^2 or 256 * 512


def test_a_side_that_does_not_divide_is_refused_before_anything_changes(tiny: Any) -> None:
    model = tiny()
    with pytest.raises(UsageError) as refusal:
        Krona.from_settings({"side": 64}).adapt(model, seed=0)
    message = str(refusal.value)
    for word in ("side=64", "v_proj", "64 in", "32 out", "1, 2, 4, 8, 16, 32"):
        assert word in message
    assert model.state_dict().keys() == tiny().state_dict().keys()


@pytest.mark.parametrize(
    ("field", "value"),
    [("side", 0), ("side", 2.5), ("side", True), ("scale", 0), ("scale", -1), ("scale", math.nan),
     ("scale", math.inf)],
)  # fmt: skip
def test_bad_values_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"KronaConfig: {field}={value}"):
        KronaConfig(**{field: value})
    if value is not True:  # which the settings read as 1
        with pytest.raises(UsageError, match=field):
            Krona.from_settings({field: value})


def test_scale_scales_the_update(tiny: Any) -> None:
    updates = []
    for scale in (1.0, 2.5):
        model = Krona.from_settings({"scale": scale}).adapt(tiny(), seed=0)
        layer = model.get_submodule("base_model.model.model.layers.0.self_attn.v_proj")
        layer.adapter("default").b.data.fill_(0.5)
        updates.append(layer.get_delta_weight("default"))
    torch.testing.assert_close(updates[1], 2.5 * updates[0])


def test_ranks_of_an_adapted_model() -> None:
    model = meta_model("llama3-8b")
    method = Krona.from_settings({"side": 256})
    ranks = method.ranks(method.adapt(model, seed=0))
    assert len(ranks) == 64
    of = {name.rpartition(".")[2]: bound["update"] for name, bound in ranks.items()}
    assert of == {"q_proj": (0, 256 * 16), "v_proj": (0, 256 * 4)}


def test_every_size_fits() -> None:
    sizes = [size["side"] for size in Krona.sizes(meta_model("smollm2-135m"))]
    assert sizes == [n for n in range(1, 193) if 192 % n == 0]
    for side in (sizes[0], sizes[-1]):
        found = count(meta_model("smollm2-135m"), Krona.from_settings({"side": side}))
        q, v = side**2 + (576 // side) ** 2, side**2 + (576 // side) * (192 // side)
        assert found.trainable == 30 * (q + v)
