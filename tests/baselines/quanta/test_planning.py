"""Plans of a circuit: every one gives the same vectors and gradients, and costs what it says."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from baselines.quanta import Circuit
from baselines.quanta.execution import MOST_KEPT, run
from baselines.quanta.planning import (
    MOST_AXES,
    Act,
    Plan,
    Rates,
    gate_by_gate,
    make_plan,
    planned_tokens,
)
from baselines.quanta.rates import CPU, GPU
from tests.baselines.quanta.test_circuit_engine import circuits, dense, random_gates

few = settings(max_examples=40, deadline=None)

rates = st.builds(
    Rates,
    gather=st.sampled_from([0.0, 25.0, 1e6]),
    run=st.sampled_from([0.0, 400.0]),
    copy=st.sampled_from([0.0, 7.0, 28.0, 1e3, 1e6]),
    product=st.sampled_from([0.0, 22.0, 1e3]),
    turn=st.sampled_from([0.0, 80.0, 1e4]),
    call=st.sampled_from([0.0, 10.0, 1e5, 1e9]),
)


def acts(circuit: Circuit) -> tuple[Act, ...]:
    return tuple(Act(step.axes, step.in_sizes, step.out_sizes) for step in circuit.steps)


def wanting(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.requires_grad_() for tensor in tensors]


@few
@given(circuit=circuits(), rate=rates, tokens=st.integers(1, 9), recompute=st.booleans())
def test_every_plan_is_the_dense_product_and_so_are_its_gradients(circuit, rate, tokens, recompute):
    if not circuit.gates or any(gate.fixed for gate in circuit.gates):
        return
    plan = make_plan(circuit.sizes, acts(circuit), rate, tokens)
    gates = wanting(random_gates(circuit))
    frozen = random_gates(circuit, seed=1)
    x = torch.randn(tokens, circuit.in_features, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(circuit.out_features, circuit.in_features, dtype=torch.float64)
    found = run(plan, x, [gates, frozen], recompute=recompute, weight=weight)

    matrix = torch.from_numpy(dense(circuit, [gate.detach() for gate in gates]))
    other = torch.from_numpy(dense(circuit, frozen))
    assert torch.allclose(found, x @ (matrix - other + weight).mT, atol=1e-9)

    reference = circuit._gate_by_gate(x, gates) - circuit._gate_by_gate(x, frozen) + x @ weight.mT
    toward = torch.randn_like(found)
    got = torch.autograd.grad((found * toward).sum(), [x, *gates])
    expected = torch.autograd.grad((reference * toward).sum(), [x, *gates])
    for one, two in zip(got, expected, strict=True):
        assert torch.allclose(one, two, atol=1e-8)


@few
@given(circuit=circuits(), rate=rates, tokens=st.sampled_from([1, 64, 4096]))
def test_a_plan_uses_every_gate_once_in_an_order_that_is_allowed(circuit, rate, tokens):
    if not circuit.gates:
        return
    plan = make_plan(circuit.sizes, acts(circuit), rate, tokens)
    order = [gate for block in plan.blocks for gate in block.gates]
    assert sorted(order) == list(range(len(circuit.gates)))
    for early, late in itertools.combinations(range(len(order)), 2):
        if set(circuit.steps[order[early]].axes) & set(circuit.steps[order[late]].axes):
            assert order[early] < order[late]
    for block in plan.blocks:
        assert math.prod(block.sizes) == block.batch * block.columns * block.rest


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("tokens", [1, 512])
@pytest.mark.parametrize(
    "sizes", [{}, {"first_in": 1}, {"first_out": 6}], ids=["square", "grows", "shrinks"]
)
def test_gradients_by_finite_differences(sizes, tokens, recompute):
    circuit = Circuit.all_pairs((3, 2, 2), **sizes)
    # Planned for few or many tokens, tried on three.
    plan = circuit.plan(tokens)
    gates = wanting(random_gates(circuit))
    frozen = random_gates(circuit, seed=1)
    x = torch.randn(3, circuit.in_features, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, *gates: Tensor) -> Tensor:
        return run(plan, x, [gates, frozen], recompute=recompute)

    assert torch.autograd.gradcheck(function, (x, *gates))


def test_equal_circuits_differ_by_exactly_nothing():
    circuit = Circuit.all_pairs((6, 6, 4, 4))
    gates = [gate.float() for gate in random_gates(circuit)]
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(37, 576, dtype=dtype)
        gates = [gate.to(dtype) for gate in gates]
        assert not circuit.apply(x, gates, minus=gates).any()


def test_the_frozen_circuit_gets_no_gradient():
    circuit = Circuit.all_pairs((3, 2))
    gates = wanting(random_gates(circuit))
    frozen = wanting(random_gates(circuit, seed=1))
    x = torch.randn(2, 6, dtype=torch.float64)
    circuit.apply(x, gates, minus=frozen).sum().backward()
    assert all(gate.grad is not None for gate in gates)
    assert all(gate.grad is None for gate in frozen)


def saved_bytes(function) -> int:
    """What a forward pass keeps for its backward pass, each storage once."""
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    del result
    return sum(storages.values())


@pytest.mark.parametrize("minus", [False, True], ids=["folded", "unfolded"])
@pytest.mark.parametrize("dims", [(9, 8, 8), (6, 6, 4, 4)])
def test_recomputing_keeps_the_vectors_alone(dims, minus):
    circuit = Circuit.all_pairs(dims)
    gates = wanting([gate.float() for gate in random_gates(circuit)])
    tokens = 2048
    x = torch.randn(tokens, 576, requires_grad=True)
    other = [gate.detach().clone() for gate in gates] if minus else None

    def kept(recompute: bool) -> float:
        size = saved_bytes(lambda: circuit.apply(x, gates, minus=other, recompute=recompute))
        return size / x.nbytes

    matrices = 2 * 576 * 576 * 4 / x.nbytes  # gates and the matrices made of them, at most
    assert 1 <= kept(True) < 1 + matrices
    plan = circuit.plan(tokens)
    assert kept(False) == pytest.approx(1 + plan.kept / 576, abs=matrices)


def test_a_large_call_recomputes_by_itself():
    circuit = Circuit.all_pairs((9, 8, 8))
    gates = wanting([gate.float() for gate in random_gates(circuit)])
    plan = circuit.plan(4096)
    enough = MOST_KEPT // (plan.kept * 4)
    for tokens, recomputes in ((enough, False), (enough + 1, True)):
        x = torch.randn(tokens, 576, requires_grad=True)
        kept = saved_bytes(lambda x=x: circuit.apply(x, gates))
        assert (kept < 1.5 * x.nbytes) == recomputes


def test_what_is_dear_decides_what_is_merged():
    circuit = Circuit.all_pairs((6, 6, 4, 4))
    cheap_calls = Rates(gather=0, run=0, copy=0, turn=0, product=0, call=0)
    assert make_plan(circuit.sizes, acts(circuit), cheap_calls, 512).multiply_adds == (
        circuit.multiply_adds()
    )
    assert make_plan(circuit.sizes, acts(circuit), cheap_calls, 512).cost == (
        512 * circuit.multiply_adds()
    )
    # Where moving is dear beyond all else, only the matrices' own making moves anything.
    dear_moves = cheap_calls._replace(copy=1e9, gather=1e9, turn=1e9)
    merged = make_plan(circuit.sizes, acts(circuit), dear_moves, 10**6)
    assert merged.copies == 0
    assert len(merged.blocks) < len(circuit.gates)


def test_vectors_stand_first_or_last_by_what_it_costs():
    circuit = Circuit.all_pairs((9, 8, 8))
    for dear, last in (("turn", False), ("gather", True)):
        rates = CPU._replace(**{dear: 1e9})
        plan = make_plan(circuit.sizes, acts(circuit), rates, 512)
        # A first block on the last axes reads the vectors as they come in either case.
        assert {block.last for block in plan.blocks[1:]} == {last}


def test_a_plan_can_be_read():
    plan = Circuit.all_pairs((16, 8, 8, 4)).plan(tokens=512)
    text = str(plan)
    assert f"{plan.multiply_adds:,} multiply-adds per vector" in text
    assert f"{plan.copies} copies" in text
    assert text.count("matrix on axes") == len(plan.blocks)
    assert plan == Circuit.all_pairs((16, 8, 8, 4)).plan(tokens=600)
    assert isinstance(plan, Plan)


def test_a_plan_is_for_one_vector_or_more():
    with pytest.raises(ValueError, match="tokens is 0"):
        Circuit.all_pairs((3, 2)).plan(0)


@pytest.mark.parametrize(("tokens", "planned"), [(1, 1), (2, 2), (3, 2), (511, 256), (512, 512)])
def test_plans_are_for_powers_of_two(tokens, planned):
    assert planned_tokens(tokens) == planned


def test_many_axes_are_applied_gate_by_gate():
    circuit = Circuit.all_pairs((2,) * (MOST_AXES + 1))
    assert circuit.plan(64) == gate_by_gate(circuit.sizes, acts(circuit))
    with pytest.raises(ValueError, match="gate by gate"):
        make_plan(circuit.sizes, acts(circuit), CPU, 64)


def test_a_gpu_merges_more():
    circuit = Circuit.all_pairs((6, 6, 4, 4))
    own = [make_plan(circuit.sizes, acts(circuit), rates, 4096) for rates in (CPU, GPU)]
    assert len(own[1].blocks) <= len(own[0].blocks)


def test_double_precision_is_not_rounded_on_the_way():
    circuit = Circuit.all_pairs((6, 6, 4, 4))
    gates = random_gates(circuit)
    x = torch.randn(8, 576, dtype=torch.float64)
    expected = x @ torch.from_numpy(dense(circuit, gates)).mT
    found = circuit.apply(x, gates)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))


def test_one_graph_for_batches_of_any_length():
    circuit = Circuit.all_pairs((4, 3, 2))
    gates = [nn.Parameter(gate.float()) for gate in random_gates(circuit)]
    frozen = [gate.detach().clone() + 0.1 for gate in gates]
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: circuit.apply(x, gates, minus=frozen),
        backend=backend,
        fullgraph=True,
        dynamic=True,
    )
    for tokens in (5, 6, 300, 1000):
        x = torch.randn(tokens, 24)
        assert torch.allclose(
            compiled(x), circuit.apply(x, gates, minus=frozen), rtol=1e-4, atol=1e-4
        )
    assert len(graphs) == 1
