"""MoRA against matrices written out from its definition, and against the counts that are printed.

Its update is D M C: C compresses, M is trained, D decompresses.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from baselines.mora import Mora, MoraAdapter, MoraConfig
from quanta_bench.method import UsageError
from quanta_bench.models.meta import count, meta_model

WIDTH = st.integers(1, 40)
TYPE = st.sampled_from([1, 6])
BOTH = pytest.mark.parametrize("mora_type", [1, 6])


def part(r: int, width: int, out: int, mora_type: Any) -> MoraAdapter:
    made = MoraAdapter(MoraConfig(r=r, mora_type=mora_type), width, out).double()
    made.square.data.normal_(generator=torch.Generator().manual_seed(r + 10 * width + 1000 * out))
    return made


def cyclic(rows: int, columns: int) -> Tensor:
    """Row i takes entry i mod columns: padding by wrapping around, and tiling, and cutting."""
    matrix = torch.zeros(rows, columns, dtype=torch.float64)
    for i in range(rows):
        matrix[i, i % columns] = 1
    return matrix


def rotation(position: int, side: int) -> Tensor:
    matrix = torch.zeros(side, side, dtype=torch.float64)
    half = side // 2
    for k in range(half):
        angle = position * 10000 ** (-2 * k / side)
        matrix[k, k] = matrix[k + half, k + half] = math.cos(angle)
        matrix[k, k + half] = -math.sin(angle)
        matrix[k + half, k] = math.sin(angle)
    return matrix


def dense(square: Tensor, width: int, out: int, mora_type: int) -> Tensor:
    side = len(square)
    chunks = math.ceil(width / side)
    padding = cyclic(chunks * side, width)
    if mora_type == 1:
        summing = torch.eye(side, dtype=torch.float64).repeat(1, chunks)
        return cyclic(out, side) @ square @ summing @ padding
    blocks = torch.block_diag(*(square @ rotation(j, side) for j in range(chunks)))
    return cyclic(out, chunks * side) @ blocks @ padding


@given(st.integers(1, 6), WIDTH, WIDTH, TYPE, st.lists(st.integers(1, 3), max_size=2))
@settings(deadline=None, max_examples=300)
@torch.no_grad()
def test_part_is_the_matrix_of_the_definition(
    r: int, width: int, out: int, mora_type: int, batch: list[int]
) -> None:
    made = part(r, width, out, mora_type)
    side = math.floor(math.sqrt((width + out) * r) + 0.5)
    if mora_type == 6:
        side = max(side - side % 2, 2)
    assert made.square.shape == (side, side)
    expected = dense(made.square, width, out, mora_type)
    x = torch.randn(*batch, width, dtype=torch.float64)
    torch.testing.assert_close(made(x), x @ expected.T)
    torch.testing.assert_close(made.matrix(), expected)
    # Almost any M reaches the bound, so a bound that is too low or too high shows.
    assert torch.linalg.matrix_rank(expected) == made.rank_bound()


@pytest.mark.parametrize(
    ("r", "trainable", "percent"),
    [(8, 4_194_304, 0.062), (32, 16_777_216, 0.249), (128, 67_108_864, 0.996)],
)
@BOTH
def test_counts_of_table_f5(mora_type: int, r: int, trainable: int, percent: float) -> None:
    found = count(meta_model("llama2-7b"), Mora.from_settings({"r": r, "mora_type": mora_type}))
    assert found.trainable == found.added == trainable
    assert round(100 * found.of_base, 3) == percent


def test_embedded_row_is_near_lora() -> None:
    found = count(meta_model("smollm2-135m"), Mora.from_settings(Mora.rows["embedded"].config))
    assert found.trainable == 30 * (96**2 + 78**2) == 459_000  # LoRA r=8 has 460,800


@BOTH
def test_trained_merges_and_starts_at_zero(mora_type: int, train: Any, logits: Any) -> None:
    run = train(Mora.from_settings({"r": 3, "mora_type": mora_type}), steps=5)
    assert all(start.abs().max() == 0 for start in run.start.values())
    assert all(value.abs().max() > 0 for value in run.trainable.values())
    expected = run.logits
    torch.testing.assert_close(logits(run.method.merge(run.model)), expected, rtol=1e-4, atol=1e-5)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@BOTH
def test_the_matrix_is_never_made(mora_type: Any) -> None:
    made = part(1, 300, 200, mora_type).float()
    x = torch.randn(3, 300, requires_grad=True)
    with Largest() as largest:
        made(x).sum().backward()
    assert largest.elements <= 3 * 14 * 22  # the padded input, and far less than 300 * 200


def test_angles_survive_a_change_of_precision() -> None:
    made = part(2, 20, 30, 6).float()
    cos, sin = made.cos.clone(), made.sin.clone()
    assert cos.shape == (2, 5)
    assert made.to(torch.bfloat16).cos.dtype is torch.bfloat16
    made.float()
    assert torch.equal(made.cos, cos)
    assert torch.equal(made.sin, sin)
    torch.testing.assert_close(cos[1].double(), rotation(1, 10).diagonal()[:5], rtol=0, atol=1e-7)


@pytest.mark.parametrize("assign", [False, True])
def test_a_part_made_on_the_meta_device_is_right_once_it_has_values(assign: bool) -> None:
    real = part(2, 20, 30, 6)
    with torch.device("meta"):
        made = MoraAdapter(MoraConfig(r=2, mora_type=6), 20, 30).double()
    assert made.cos.is_meta
    assert made(torch.empty(4, 20, dtype=torch.float64, device="meta")).shape == (4, 30)
    if not assign:
        made.to_empty(device="cpu")
    made.load_state_dict(real.state_dict(), assign=assign)
    x = torch.randn(4, 20, dtype=torch.float64)
    torch.testing.assert_close(made(x), real(x), rtol=0, atol=0)


def test_loads_without_memory_for_the_start(train: Any, tiny: Any, tmp_path: Path) -> None:
    run = train(Mora.from_settings({}), steps=2)
    run.method.save(run.model, tmp_path)
    loaded = PeftModel.from_pretrained(tiny(), str(tmp_path), low_cpu_mem_usage=True)
    found = loaded(input_ids=torch.tensor([[5, 9, 2, 7, 11, 3]])).logits
    torch.testing.assert_close(found, run.logits[:1], rtol=0, atol=1e-6)


def test_angles_are_not_saved() -> None:
    assert set(part(2, 20, 30, 6).state_dict()) == {"square"}


@pytest.mark.parametrize(("field", "value"), [("r", 0), ("r", 1.5), ("mora_type", 2)])
def test_bad_values_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"MoraConfig: {field}={value}"):
        MoraConfig(**{field: value})
    with pytest.raises(UsageError, match=field):
        Mora.from_settings({field: value})


def test_ranks_of_an_adapted_model() -> None:
    for mora_type, bounds in (
        (1, {"q_proj": 256, "v_proj": 202}),
        (6, {"q_proj": 4096, "v_proj": 1024}),
    ):
        method = Mora.from_settings({"mora_type": mora_type})
        ranks = method.ranks(method.adapt(meta_model("llama3-8b"), seed=0))
        of = {name.rpartition(".")[2]: bound["update"][1] for name, bound in ranks.items()}
        assert of == bounds


def test_sizes_grow() -> None:
    base = meta_model("smollm2-135m")
    counts = [
        sum(MoraAdapter(MoraConfig(**size), 576, out).square.numel() for out in (576, 192))
        for size in Mora.sizes(base)
    ]
    assert counts == sorted(counts)  # an even side rounds some of the larger ones to one size
    assert counts[0] < 2_000 < 140_000 < counts[-1]
