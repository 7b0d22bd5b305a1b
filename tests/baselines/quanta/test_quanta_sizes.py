"""Axis sizes chosen and checked, rectangular weights both ways, the configuration."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftConfig

from baselines.quanta import QuantaConfig, choose_dims
from baselines.quanta.dims import MAX_AXES, MIN_AXES, all_pairs_parameters, can_split
from baselines.quanta.initial import kaiming_gates_
from baselines.quanta.rectangular import WeightCircuit, fit_circuit
from baselines.tuners.initial import generator_for


@pytest.mark.parametrize(
    ("width", "budget", "dims"),
    [
        (576, None, (9, 8, 8)),
        (576, 10_000, (6, 6, 4, 4)),
        (768, None, (12, 8, 8)),
        (4096, None, (16, 16, 16)),
        (4096, 50_000, (8, 8, 8, 8)),
        (5120, None, (20, 16, 16)),
        (8192, None, (32, 16, 16)),
        (11008, None, (43, 16, 16)),
        (48, None, (4, 4, 3)),
    ],
)
def test_chosen_dims(width: int, budget: int | None, dims: tuple[int, ...]):
    assert choose_dims(width, budget=budget) == dims


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20_000))
def test_chosen_dims_multiply_to_the_width_and_are_balanced(width: int):
    if not can_split(width):
        with pytest.raises(ValueError, match="nearest widths"):
            choose_dims(width)
        return
    dims = choose_dims(width)
    assert math.prod(dims) == width
    assert list(dims) == sorted(dims, reverse=True)
    assert MIN_AXES <= len(dims) <= MAX_AXES
    assert dims[0] <= 4 * dims[-1]


def test_prime_width_names_the_nearest_choices():
    with pytest.raises(
        ValueError, match=r"577 has no even split.*576 \(9-8-8\) and 585 \(13-9-5\)"
    ):
        choose_dims(577)


def test_budget_too_small_names_the_smallest():
    with pytest.raises(ValueError, match=r"100 parameters; the smallest is 4-4-4-3-3 with 1,713"):
        choose_dims(576, budget=100)
    assert all_pairs_parameters((4, 4, 4, 3, 3)) == 3 * 256 + 6 * 144 + 81


@pytest.mark.parametrize("width", [0, -4, 3.0, True])
def test_bad_width(width: object):
    with pytest.raises(ValueError, match="width is a positive integer"):
        choose_dims(width)  # type: ignore[arg-type]


def test_first_axis_follows_the_divisor():
    assert choose_dims(8192, divisor=8) == (32, 16, 16)
    assert choose_dims(576, divisor=3) == (9, 8, 8)
    assert choose_dims(36, divisor=2) == (4, 3, 3)
    assert choose_dims(48, divisor=3) == (3, 4, 4)


# Rectangular weights.


def fit(in_features: int, out_features: int, dims=None, rectangular="gate", budget=None):
    return fit_circuit(in_features, out_features, dims, rectangular, budget, "h.0.proj")


def gates_for(circuit: WeightCircuit) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=torch.float64) for shape in circuit.circuit.gate_shapes]


@pytest.mark.parametrize("dims", [(4, 3, 2), (4, 3), (4, 2, 3, 2)])
@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("grows", [False, True])
def test_rectangular_gate_is_the_padded_square_circuit_sliced(
    dims: tuple[int, ...], factor: int, grows: bool
):
    wide = math.prod(dims)
    narrow = wide // factor
    shape = (narrow, wide) if grows else (wide, narrow)
    square, small = fit(*shape, dims, "pad"), fit(*shape, dims)
    gates = gates_for(square)
    sliced = [
        gate[tuple(map(slice, shape))]
        for gate, shape in zip(gates, small.circuit.gate_shapes, strict=True)
    ]
    x = torch.randn(5, shape[0], dtype=torch.float64)
    assert torch.allclose(small.apply(x, sliced), square.apply(x, gates))
    assert torch.allclose(small.matrix(sliced), square.matrix(gates))
    assert small.matrix(sliced).shape == shape[::-1]
    saved = square.circuit.parameter_count() - small.circuit.parameter_count()
    side = dims[0] * dims[-1 if grows else 1]  # the first or last gate on the first axis
    assert saved == side * side * (factor - 1) // factor


@pytest.mark.parametrize("widths", [(20, 24), (24, 30), (30, 20), (40, 50)])
def test_padded_circuit_is_its_matrix(widths: tuple[int, int]):
    circuit = fit(*widths, (4, 3, 2), "pad")
    gates = gates_for(circuit)
    x = torch.randn(5, widths[0], dtype=torch.float64)
    assert circuit.matrix(gates).shape == widths[::-1]
    assert torch.allclose(circuit.apply(x, gates), x @ circuit.matrix(gates).mT)


def test_parameter_counts_of_rectangular_layers():
    # LLaMA's up and down projections with 16-16-4-4, padded and cut as in the paper's counts.
    for widths in ((4096, 11008), (11008, 4096), (4096, 4096)):
        circuit = fit(*widths, (16, 16, 4, 4), "pad")
        assert circuit.circuit.parameter_count() == 82_176
    # LLaMA3's value projection: the last gate, 16-8, has a quarter of the rows.
    assert fit(4096, 1024, (16, 8, 8, 4)).circuit.parameter_count() == 43_008 - 128 * 96
    assert fit(4096, 1024, (16, 8, 8, 4), "pad").circuit.parameter_count() == 43_008


def test_automatic_dims_of_rectangular_layers():
    assert fit(576, 192).dims == (9, 8, 8)
    assert fit(192, 576).dims == (9, 8, 8)
    assert fit(4096, 11008, rectangular="pad").dims == (16, 16, 16)
    assert fit(577, 1000, rectangular="pad").dims == choose_dims(585)


@pytest.mark.parametrize(
    ("widths", "dims", "message"),
    [
        (
            (96, 96),
            (8, 8),
            r"'h.0.proj' \(96 -> 96\): dims \(8, 8\) multiply to 64, not to its wid",
        ),
        ((96, 96), (8, 8), r"nearest dims: 8-12 or 12-8 or"),
        ((64, 96), None, 'neither width is a multiple.*pass rectangular="pad"'),
        ((64, 16), (2, 8, 4), r"first of dims \(2, 8, 4\) is not a multiple of 4.*4-4-4"),
        ((577, 577), None, r"'h.0.proj' \(577 -> 577\).*576 \(9-8-8\)"),
    ],
)
def test_misfits_name_the_module_and_what_would_fit(widths, dims, message):
    with pytest.raises(ValueError, match=message):
        fit(*widths, dims)


# Initial gates.


def test_initial_gates_depend_on_seed_and_name_only():
    def draw(seed: int, name: str) -> torch.Tensor:
        gate = torch.empty(4, 3, 4, 3)
        kaiming_gates_([gate], generator_for(seed, name))
        return gate

    before = torch.random.get_rng_state()
    first = draw(0, "a")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(draw(0, "a"), first)
    assert not torch.equal(draw(1, "a"), first)
    assert not torch.equal(draw(0, "b"), first)


def test_initial_gates_are_kaiming_uniform():
    gate = torch.empty(8, 16, 32, 16)
    kaiming_gates_([gate], generator_for(0, "x"))
    reference = torch.empty(8 * 16, 32 * 16)
    torch.nn.init.kaiming_uniform_(reference, a=math.sqrt(5))
    bound = 1 / math.sqrt(512)
    assert gate.abs().max() <= bound
    assert gate.abs().max() > 0.99 * bound
    assert abs(gate.std() / reference.std() - 1) < 0.02


# Configuration.


def test_config_is_saved_and_loaded(tmp_path):
    config = QuantaConfig(
        dims={"q_proj": (4, 4, 4), ".*": None}, target_modules=["q_proj"], seed=3, dropout=0.1
    )
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "QUANTA"
    for loaded in (PeftConfig.from_pretrained(tmp_path), QuantaConfig.from_pretrained(tmp_path)):
        assert type(loaded) is QuantaConfig
        assert loaded == config


def test_dims_by_module():
    config = QuantaConfig(dims={"q_proj": [4, 2], r"1\.mlp\.up": None, ".*": (2, 2)})
    assert config.dims_for("model.layers.0.q_proj") == (4, 2)
    assert config.dims_for("layers.1.mlp.up") is None
    assert config.dims_for("layers.11.mlp.up") == (2, 2)  # a pattern starts after a dot
    with pytest.raises(ValueError, match=r"no pattern of dims matches module 'v'.*'q_proj'"):
        QuantaConfig(dims={"q_proj": (4, 2)}).dims_for("v")
    same = QuantaConfig(dims={"q_proj": (4, 2), "0.q_proj": (4, 2)})
    assert same.dims_for("layers.0.q_proj") == (4, 2)
    differ = QuantaConfig(dims={"q_proj": (4, 2), "0.q_proj": (2, 4)})
    assert differ.dims_for("layers.1.q_proj") == (4, 2)
    with pytest.raises(ValueError, match=r"several patterns.*'layers.0.q_proj' and differ: 'q_pr"):
        differ.dims_for("layers.0.q_proj")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": (8,)}, r"dims=\(8,\) has 1 axes"),
        ({"dims": (8, 1)}, r"dims=\(8, 1\) has 1; a size is at least 2"),
        ({"dims": (8, 2.5)}, "dims"),
        ({"dims": "16-8"}, "dims='16-8': Input should be a valid tuple"),
        ({"dims": {"q": (8,)}}, r"dims\['q'\]=\(8,\)"),
        ({"dims": {"(": (8, 8)}}, r"pattern '\('"),
        ({"dropout": -0.1}, r"dropout=-0\.1: Input should be greater"),
        ({"dropout": 1.0}, r"dropout=1\.0: Input should be less"),
        ({"rectangular": "cut"}, "rectangular='cut': Input should be 'gate' or 'pad'"),
        ({"seed": "a"}, "seed='a'"),
        ({"parameter_budget": 0}, "parameter_budget=0"),
        ({"layers_pattern": "h"}, "layers_pattern='h' is given without layers_to_transform"),
    ],
)
def test_config_errors(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        QuantaConfig(**fields)


def test_a_large_prime_is_refused_with_the_nearest_sizes():
    with pytest.raises(ValueError, match="nearest"):
        choose_dims(104_729)
