"""The Triton kernels, in Triton's interpreter on the CPU, against matrices in double precision."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest

os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are defined, at their first use
pytest.importorskip("triton")

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from torch.profiler import profile
from triton.runtime import interpreter

from baselines.quanta import Circuit, Gate, fused
from baselines.quanta.layout import layout_of
from baselines.quanta.rectangular import WeightCircuit, fit_circuit

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernels are compiled where there is a GPU"
)

# Widths in and out, axes, construction: square, shrinking, growing, padded and cut, with axes that
# are powers of two and others, from two axes to five.
SHAPES: list[tuple[int, int, tuple[int, ...], Any]] = [
    (16, 16, (4, 4), "gate"),
    (64, 64, (4, 4, 4), "gate"),
    (24, 24, (4, 3, 2), "gate"),
    (24, 12, (4, 3, 2), "gate"),
    (12, 24, (4, 3, 2), "gate"),
    (36, 36, (3, 3, 2, 2), "gate"),
    (32, 32, (2, 2, 2, 2, 2), "gate"),
    (20, 28, (4, 3, 2), "pad"),
    (28, 20, (4, 3, 2), "pad"),
]
# The interpreter cuts numbers off where it makes bfloat16 of them.
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 0.05, torch.float16: 0.003}


@pytest.fixture(autouse=True)
def _bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter keeps bfloat16 as integers, and would multiply those."""
    multiply = interpreter.InterpreterBuilder.create_dot

    def number(handle: Any) -> Any:
        if handle.dtype != tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    monkeypatch.setattr(
        interpreter.InterpreterBuilder,
        "create_dot",
        lambda self, a, b, *others: multiply(self, number(a), number(b), *others),
    )


def gates_of(circuit: Circuit) -> list[Tensor]:
    shapes = circuit.gate_shapes
    return [torch.randn(shape) / (shape[2] * shape[3]) ** 0.5 for shape in shapes]


def reference(
    circuit: WeightCircuit,
    x: Tensor,
    gates: Sequence[Tensor],
    minus: Sequence[Tensor] | None,
    base: tuple[Tensor, Tensor] | None,
) -> Tensor:
    matrix = circuit.matrix(gates)
    if minus is not None:
        matrix = matrix - circuit.matrix(minus)
    y = x @ matrix.mT
    return y if base is None else y + x @ base[0].mT + base[1]


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("subtract", "add"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}-{shape[1]}-{shape[3]}")
def test_forward_and_gradients(shape: Any, subtract: bool, add: bool, dtype: torch.dtype) -> None:
    in_features, out_features, dims, rectangular = shape
    circuit = fit_circuit(in_features, out_features, dims, rectangular, None, "layer")
    layout = layout_of(circuit.circuit)
    assert layout is not None
    x = torch.randn(7, in_features).to(dtype).requires_grad_()
    gates = [gate.requires_grad_() for gate in gates_of(circuit.circuit)]
    minus = gates_of(circuit.circuit) if subtract else None
    base = None
    if add:
        base = torch.randn(out_features, in_features).to(dtype), torch.randn(out_features).to(dtype)
    weight, bias = base or (None, None)
    y = fused.run(
        layout, x, gates, minus=minus, out_features=out_features, weight=weight, bias=bias
    )
    toward = torch.randn_like(y)
    found = [y.detach(), *torch.autograd.grad(y, [x, *gates], toward)]

    def exact(tensor: Tensor) -> Tensor:
        return tensor.detach().to(dtype).double().requires_grad_()

    x64, gates64 = exact(x), [exact(gate) for gate in gates]
    expected = reference(
        circuit,
        x64,
        gates64,
        None if minus is None else [exact(gate) for gate in minus],
        None if base is None else (exact(base[0]), exact(base[1])),
    )
    gradients = torch.autograd.grad(expected, [x64, *gates64], toward.double())
    assert y.dtype == dtype
    assert [gradient.dtype for gradient in found[1:]] == [dtype, *[torch.float32] * len(gates)]
    for one, other in zip(found, [expected.detach(), *gradients], strict=True):
        assert difference(one, other) < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_equal_circuits_leave_the_base_layer_to_the_bit(dtype: torch.dtype) -> None:
    circuit = Circuit.all_pairs((4, 3, 2))
    layout, gates = layout_of(circuit), gates_of(circuit)
    assert layout is not None
    x = torch.randn(5, 24).to(dtype).requires_grad_()
    weight = torch.randn(24, 24).to(dtype)
    y = fused.run(layout, x, gates, minus=gates, out_features=24, weight=weight)
    assert torch.equal(y, x @ weight.mT)
    toward = torch.randn_like(y)
    assert torch.equal(torch.autograd.grad(y, x, toward)[0], toward @ weight)


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 64 * 7 + 5])
def test_any_number_of_vectors(tokens: int) -> None:
    """One tile, several, more than there are programs, and tiles that are not full."""
    circuit = Circuit.all_pairs((4, 4))
    layout, gates = layout_of(circuit), [gate.requires_grad_() for gate in gates_of(circuit)]
    assert layout is not None
    assert layout.block(torch.float32) == 64
    x, toward = torch.randn(tokens, 16), torch.randn(tokens, 16)
    y = fused.run(layout, x, gates, minus=None, out_features=16)
    expected = x @ circuit.matrix(gates).mT
    assert torch.allclose(y, expected, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(y, gates, toward), torch.autograd.grad(expected, gates, toward),
        strict=True,
    ):  # fmt: skip
        assert torch.allclose(one, other, atol=1e-4 * tokens**0.5)


def test_large_gates_are_added_up_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baselines.quanta.layout.SMALL_GATE", 64)
    test_forward_and_gradients((64, 64, (4, 4, 4), "gate"), True, True, torch.float32)
    layout = layout_of(Circuit.all_pairs((4, 4, 4)))
    assert layout is not None
    assert layout.groups == (0, 1, 2, 3)


def test_only_what_needs_gradients_gets_them() -> None:
    circuit = Circuit.all_pairs((4, 4))
    layout, gates = layout_of(circuit), gates_of(circuit)
    assert layout is not None
    x = torch.randn(3, 16)
    gates[0].requires_grad_()
    y = fused.run(layout, x, gates, minus=None, out_features=16)
    (gradient,) = torch.autograd.grad(y.sum(), gates[:1])
    assert gradient.shape == gates[0].shape
    assert not fused.run(layout, x, gates_of(circuit), minus=None, out_features=16).requires_grad


def test_views_whose_addresses_are_odd() -> None:
    circuit = Circuit.all_pairs((4, 3, 2))
    layout, gates = layout_of(circuit), gates_of(circuit)
    assert layout is not None
    rows = torch.randn(25 * 6).as_strided((5, 24), (25, 1), 1)
    y = fused.run(layout, rows, gates, minus=None, out_features=24)
    assert torch.allclose(y, rows @ circuit.matrix(gates).mT, atol=1e-5)


def test_few_operations() -> None:
    """Two to pack the gates, the frozen product, a kernel; then a product and three kernels."""
    circuit = Circuit.all_pairs((4, 4, 4))
    layout, gates = layout_of(circuit), [gate.requires_grad_() for gate in gates_of(circuit)]
    assert layout is not None
    x, weight = torch.randn(3, 64, requires_grad=True), torch.randn(64, 64)
    minus = [gate.detach() for gate in gates]
    with profile() as run:
        y = fused.run(layout, x, gates, minus=minus, out_features=64, weight=weight)
        y.backward(torch.ones_like(y))
    names = [event.name for event in run.events()]
    computing = ("aten::cat", "aten::mm", "aten::addmm", "aten::add_", "aten::sub", "aten::copy_")
    # The interpreter copies what a kernel reads and writes.
    own = [name for name in names if name in computing and name != "aten::copy_"]
    assert sorted(own) == ["aten::cat", "aten::mm", "aten::mm"]


@pytest.mark.parametrize(
    "circuit",
    [
        Circuit((4, 4), [Gate((0,))]),
        Circuit((4, 4), [Gate((1, 0))]),
        Circuit((4, 4), [Gate((0, 1), given=True)]),
        Circuit((2,), [Gate((0,), value=[[1, 0], [0, 1]])]),
        Circuit((4, 4), []),
    ],
)
def test_other_circuits_have_no_layout(circuit: Circuit) -> None:
    assert layout_of(circuit) is None


def test_what_does_not_fit_is_left_to_the_planner() -> None:
    wide = layout_of(Circuit.all_pairs((64, 64)))
    assert wide is not None
    assert wide.block(torch.bfloat16) == 0
    usual = layout_of(Circuit.all_pairs((16, 8, 8, 4)))
    assert usual is not None
    assert usual.block(torch.float64) == 0
    assert usual.block(torch.bfloat16) == 2
    assert usual.block(torch.float32) == 0
    assert usual.takes(1 << 20)
    large = layout_of(Circuit.all_pairs((16, 16, 16)))
    assert large is not None
    assert large.block(torch.bfloat16) == 4
    assert large.takes(4096)
    assert not large.takes(4097)
    assert not fused.fits(usual, torch.zeros(1, 4096), torch.bfloat16, 4096)  # not on a GPU
