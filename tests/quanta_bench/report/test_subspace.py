"""Subspace similarity against projections, and updates against the matrices that made them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_llama
from transformers import LlamaForCausalLM

from baselines.lora import Lora
from quanta_bench.errors import UsageError
from quanta_bench.report import subspace

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*deprecated:FutureWarning")


def orthonormal(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(random).Q


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 9), st.data())
def test_similarity_is_the_overlap_of_projectors(width: int, data: st.DataObject) -> None:
    m, n = data.draw(st.integers(1, width)), data.draw(st.integers(1, width))
    left, right = orthonormal(width, m, 1), orthonormal(width, n, 2)
    found = subspace.similarity(left, right)
    for i in range(1, m + 1):
        for j in range(1, n + 1):
            first = left[:, :i] @ left[:, :i].T
            second = right[:, :j] @ right[:, :j].T
            expected = torch.trace(first @ second) / min(i, j)
            torch.testing.assert_close(found[i - 1, j - 1], expected)
    assert (found <= 1 + 1e-12).all()


def test_a_subspace_holds_itself_and_none_of_its_complement() -> None:
    basis = orthonormal(6, 6, 3)
    same = subspace.similarity(basis[:, :3], basis[:, :3])
    torch.testing.assert_close(same, torch.ones(3, 3, dtype=torch.float64))
    apart = subspace.similarity(basis[:, :3], basis[:, 3:])
    torch.testing.assert_close(apart, torch.zeros(3, 3, dtype=torch.float64))


def test_random_subspaces_are_as_alike_as_chance_says() -> None:
    torch.manual_seed(0)
    width, count = 24, 400

    def spans(size: int) -> torch.Tensor:
        return torch.linalg.qr(torch.randn(count, width, size, dtype=torch.float64)).Q

    pairs = zip(spans(3), spans(8), strict=True)
    mean = torch.stack([subspace.similarity(*pair) for pair in pairs]).mean(0)
    for i, j in ((1, 1), (3, 2), (2, 7), (3, 8)):
        assert float(mean[i - 1, j - 1]) == pytest.approx(subspace.by_chance(i, j, width), rel=0.15)


def test_updates_of_different_widths_are_not_compared() -> None:
    with pytest.raises(UsageError, match="widths 4 and 5"):
        subspace.similarity(torch.eye(4), torch.eye(5))


def test_spectrum_and_ranks() -> None:
    update = torch.diag(torch.tensor([3.0, 4.0, 0.0]))
    found = subspace.spectrum(update)
    assert found.values.tolist() == pytest.approx([4.0, 3.0, 0.0])
    assert found.rank == 2
    assert found.effective_rank == pytest.approx(49 / 25)
    assert found.right[:, 0].abs().tolist() == pytest.approx([0, 1, 0])
    assert subspace.spectrum(torch.zeros(2, 3)).effective_rank == 0
    assert subspace.spectrum(torch.zeros(2, 3)).rank == 0


def tiny() -> LlamaForCausalLM:
    return tiny_llama(
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=31,
    )


def test_updates_are_what_the_adapter_adds(tmp_path: Path) -> None:
    method = Lora.from_settings({"r": 3, "alpha": 6})
    adapted = method.adapt(tiny(), seed=0)
    name = "model.layers.1.self_attn.v_proj"
    layer = adapted.get_submodule(f"base_model.model.{name}")
    b, a = layer.lora_B["default"].weight, layer.lora_A["default"].weight
    with torch.no_grad():
        b.normal_(generator=torch.Generator().manual_seed(1))
    expected = (2 * b @ a).detach().clone()
    method.save(adapted, tmp_path)
    found = subspace.updates(method, tiny(), tmp_path, [name])
    torch.testing.assert_close(found[name].matrix, expected, rtol=1e-4, atol=1e-5)
    assert found[name].bound == 3
    with pytest.raises(UsageError, match=r"layers\.9\.self_attn\.v_proj.*Did you mean"):
        subspace.updates(method, tiny(), tmp_path, [name.replace(".1.", ".9.")])
