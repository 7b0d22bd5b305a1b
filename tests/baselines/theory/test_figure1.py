"""Planted ranks: the tasks, trainings side by side against one alone, and the experiment."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.func import vmap

from baselines.lora import Lora
from baselines.quanta.circuit import Circuit
from baselines.quanta.method import Quanta
from baselines.theory import lanes
from baselines.theory.contest import CONTENDERS, RATES, SEEDS, Contender, measure, rate_of, tune
from baselines.theory.lanes import Lane, Learner
from baselines.theory.planted import SHARE, TASKS, LinearMap, Task
from quanta_bench.experiment import Conditions, UsageError


@pytest.mark.parametrize("task", TASKS)
def test_planted_changes_have_their_rank_and_equal_norms(task: Task) -> None:
    base = task.base(torch.Generator().manual_seed(0))
    weights = dict(base.named_parameters())
    for rank in task.ranks:
        planted = task.plant(base, rank, torch.Generator().manual_seed(rank))
        assert planted
        for name, changed in planted.items():
            change = (changed - weights[name]).double()
            assert torch.linalg.matrix_rank(change, rtol=1e-4) == rank
            norms = change.norm() / weights[name].double().norm()
            assert norms.item() == pytest.approx(SHARE, rel=1e-5)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda one: one.title)
def test_a_lane_is_a_training_of_its_own(contender: Contender) -> None:
    task, steps = LinearMap(), 12
    settings = dict(contender.settings)
    if contender.targets:
        settings["target_modules"] = task.targets
    method = contender.method.from_settings(settings)
    asked = [Lane(seed, rank, rate) for seed in (0, 5) for rank in (2, 64) for rate in (1e-3, 0.1)]
    found = Learner(task, method, [0, 5]).errors(asked, steps)

    lane = Lane(5, 2, 0.1)
    base = task.base(lanes._generator(5, 0))
    teacher = copy.deepcopy(base)
    planted = task.plant(base, 2, lanes._generator(5, 1, 2))
    teacher.load_state_dict(planted)
    student = method.adapt(copy.deepcopy(base), 5)
    trained = list(method.trainable(student).values())
    optimizer = torch.optim.Adam(trained)
    stream = lanes._generator(5, 2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lane.rate * lanes._factor(step / steps)
        x = task.inputs(task.batch, stream)
        optimizer.zero_grad()
        (student(x) - teacher(x).detach()).square().mean().backward()
        optimizer.step()
    x = task.inputs(task.test, lanes._generator(5, 3))
    with torch.no_grad():
        left = (student(x) - teacher(x)).norm() / (base(x) - teacher(x)).norm()
    assert found[lane] == pytest.approx(left.item(), rel=1e-3)


def test_lora_learns_its_rank_and_no_more() -> None:
    task = LinearMap()
    method = Lora.from_settings({"r": 6, "target_modules": task.targets})
    learner = Learner(task, method, [0])
    found = learner.errors([Lane(0, 4, 1e-2), Lane(0, 64, 1e-2)], steps=200)
    change = learner.changed[64]["q_proj.weight"] - learner.base["q_proj.weight"]
    values = torch.linalg.svdvals(change[0])
    best = (values[6:].norm() / values.norm()).item()
    assert found[Lane(0, 4, 1e-2)] < 0.05
    assert best * 0.97 < found[Lane(0, 64, 1e-2)] < best * 1.1


def test_a_training_that_diverges_is_infinitely_bad_and_alone() -> None:
    task = LinearMap()
    method = Quanta.from_settings({"dims": (4, 4, 4), "target_modules": task.targets})
    found = Learner(task, method, [0]).errors([Lane(0, 4, 1e30), Lane(0, 4, 1e-2)], steps=10)
    assert found[Lane(0, 4, 1e30)] == math.inf
    assert found[Lane(0, 4, 1e-2)] < 1


def test_rates_grow_until_both_neighbours_are_worse() -> None:
    class Known:
        """Errors with their least at 10^-4.5 for rank 1 and 10^-0.5 for rank 2."""

        def errors(self, asked: list[Lane], steps: int) -> dict[Lane, float]:
            best = {1: -4.5, 2: -0.5}
            return {one: 1 + abs(math.log10(one.rate) - best[one.rank]) for one in asked}

    best = tune(Known(), (1, 2), (7,), steps=1, grows=True)  # type: ignore[arg-type]
    assert best == {1: -9, 2: -1}
    held = tune(Known(), (1, 2), (7,), steps=1, grows=False)  # type: ignore[arg-type]
    assert held == {1: RATES[0], 2: RATES[-1]}
    assert [rate_of(place) for place in (-6, -5, -4)] == [1e-3, 3.2e-3, 1e-2]


def test_a_curve_has_a_value_for_each_seed_and_names_its_rate() -> None:
    curve = measure(LinearMap(), CONTENDERS[0], SEEDS[:2], Conditions(quick=True))
    assert curve.size == "768"
    assert [point.x for point in curve.points] == [1, 64]
    for point in curve.points:
        assert len(set(point.values)) == 2
        assert all(0 < value < 1.5 for value in point.values)
        assert point.setting.startswith("learning rate ")


def test_sizes_are_nearly_equal() -> None:
    sizes = {}
    for contender in CONTENDERS:
        settings = dict(contender.settings)
        if contender.targets:
            settings["target_modules"] = LinearMap.targets
        method = contender.method.from_settings(settings)
        sizes[contender.title] = Learner(LinearMap(), method, [0]).parameters
    assert sizes.pop("Full fine-tuning") == 64 * 64
    # KronA has no size between 272 and 1,028 at this width.
    assert sizes.pop("KronA 32") == 32**2 + 2**2
    assert all(768 <= size <= 1.05 * 768 for size in sizes.values())


def test_the_whole_experiment_in_short() -> None:
    from baselines.theory.figure1 import PlantedRank

    said: list[str] = []
    outcome = PlantedRank().run(Conditions(quick=True, seeds=(3, 4), tell=said.append))
    assert len(said) == len(TASKS) * len(CONTENDERS)
    for panel, task in zip(outcome.panels, TASKS, strict=True):
        measured = [curve for curve in panel.curves if not curve.reference]
        assert [curve.name for curve in measured] == [one.title for one in CONTENDERS]
        for curve in measured:
            assert [point.x for point in curve.points] == [task.ranks[0], task.ranks[-1]]
            assert all(len(point.values) == 2 for point in curve.points)
            # Twenty steps are few, and yet better than none.
            assert all(value < 1 for point in curve.points for value in point.values)
    (bound,) = (curve for curve in outcome.panels[0].curves if curve.reference)
    assert bound.points[0].values == (0.0, 0.0)
    assert all(0.7 < value < 0.8 for value in bound.points[1].values)
    assert "over 2 seeds" in outcome.caption
    assert "QuanTA 4-4-4 0." in outcome.caption


def test_seeds_that_tune_are_refused() -> None:
    from baselines.theory.figure1 import PlantedRank

    with pytest.raises(UsageError, match="1001, 1002 choose the learning rates"):
        PlantedRank().run(Conditions(quick=True, seeds=(0, 1001)))


def test_circuits_run_under_vmap() -> None:
    circuit = Circuit.all_pairs((4, 3, 2))
    generator = torch.Generator().manual_seed(0)
    gates = [torch.randn(5, *shape, generator=generator) for shape in circuit.gate_shapes]
    x = torch.randn(5, 7, 24, generator=generator)
    found = vmap(lambda *given: circuit.apply(given[0], given[1:], minus=given[1:]))(x, *gates)
    assert not found.any()
    found = vmap(lambda *given: circuit.apply(given[0], given[1:]))(x, *gates)
    for place in range(5):
        alone = circuit.apply(x[place], [gate[place] for gate in gates])
        torch.testing.assert_close(found[place], alone)
