"""A pass over the rows of several runs costs few operations more than a pass over those of one."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tiny_models import tiny_llama
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from quanta_bench.models.stacking import Rows, StackedModel, twin
from quanta_bench.plugins import build_method

LAYERS, ROWS, LENGTH = 6, 2, 8
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "alpha": 8},
    "quanta": {"dims": (4, 4, 4)},
    "krona": {"side": 8},
    "mora": {"r": 2},
    "series": {"bottleneck": 4},
}
IDS = torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) * 7 % 90


class Operations(TorchDispatchMode):
    """Counts the operations that compute something: on a GPU, each of them is a launch.

    Args:
        frozen: the model whose weights are asked for.
    """

    def __init__(self, frozen: nn.Module) -> None:
        super().__init__()
        self.count = 0
        self.products: Counter[str] = Counter()
        self._frozen = {
            value.untyped_storage().data_ptr(): name for name, value in frozen.named_parameters()
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith(("empty", "new_empty", "_unsafe_view")):
            self.count += 1
        if "mm" in name or name == "matmul":
            for value in args:
                if isinstance(value, Tensor):
                    weight = self._frozen.get(value.untyped_storage().data_ptr())
                    self.products[weight or ""] += 1
        return func(*args, **(kwargs or {}))


@dataclass
class Runs:
    """Some runs over one tiny LLaMA, with their optimisers."""

    methods: list[str]
    base: nn.Module = field(
        default_factory=lambda: tiny_llama(num_hidden_layers=LAYERS).requires_grad_(False)
    )

    def __post_init__(self) -> None:
        twins, self.models, self.trained = [], [], []
        for name in self.methods:
            method = build_method(name, SETTINGS[name])
            twins.append(twin(self.base))
            self.models.append(method.adapt(twins[-1], 0).train())
            self.trained.append([*method.trainable(self.models[-1]).values()])
        groups = [[*dict.fromkeys(self.methods)].index(name) for name in self.methods]
        self.stack = StackedModel(self.base, twins, self.trained, groups).train()
        # One kernel takes all tensors of a run, as on a GPU.
        self.optimizers = [
            torch.optim.AdamW(values, lr=1e-2 / (n + 1), fused=True)
            for n, values in enumerate(self.trained)
        ]

    def step(self, passes: list[tuple[Any, Tensor]]) -> None:
        for model, ids in passes:
            logits = model(input_ids=ids, use_cache=False).logits
            torch.autograd.backward(logits.square().mean((1, 2)).sum())
        for optimizer, values in zip(self.optimizers, self.trained, strict=True):
            if values[0].grad is not None:
                nn.utils.clip_grad_norm_(values, 1.0)
                optimizer.step()
                optimizer.zero_grad()

    def alone(self, run: int, passes: int = 1) -> None:
        self.step([(self.models[run], IDS)] * passes)

    def together(self, passes: int = 1) -> None:
        number = len(self.methods)
        with self.stack.of([ROWS] * number) as model:
            self.step([(model, IDS.repeat(number, 1))] * passes)


def operations(runs: Runs, step: Any, *args: Any) -> Operations:
    step(*args)  # the first step of an optimiser makes its moments
    with Operations(runs.base) as counted:
        step(*args)
    return counted


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("number", [5, 10])
@pytest.mark.parametrize("method", SETTINGS)
def test_a_step_of_many_runs_takes_few_operations_more_than_that_of_one(
    method: str, number: int, passes: int
) -> None:
    """Copying each run's gradients out of the stacked ones alone would take a quarter more."""
    runs = Runs([method] * number)
    one = operations(runs, runs.alone, 0, passes)
    many = operations(runs, runs.together, passes)
    assert many.count <= 1.3 * one.count


def test_two_methods_take_less_than_twice_the_operations_of_one() -> None:
    """Each method has products of its own, with the frozen weights of its layers too."""
    runs = Runs(["lora"] * 5 + ["quanta"] * 5)
    lora, quanta = (operations(runs, runs.alone, run) for run in (0, 5))
    many = operations(runs, runs.together)
    assert many.count <= 2 * (lora.count + quanta.count) / 2


@pytest.mark.parametrize("method", ["lora", "quanta"])
def test_frozen_weights_are_multiplied_once_for_all_runs(method: str) -> None:
    runs = Runs([method] * 5)
    one, many = operations(runs, runs.alone, 0), operations(runs, runs.together)
    one.products.pop(""), many.products.pop("")
    assert len(one.products) > 6 * LAYERS
    assert many.products == one.products


class Plain(nn.Linear):
    """A layer of another class than the base's, by which it is known to be replaced."""


class Tied(nn.Module):
    """A layer that has one tensor under two names."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, outputs, bias=False)
        self.second = nn.Linear(outputs, outputs)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x).tanh())
        return result


@pytest.mark.parametrize("kind", [Plain, Tied])
def test_gradients_of_several_passes_are_added_up_for_each_run(kind: Any) -> None:
    """Passes that hold all runs, some or a single one, with equally many rows or not."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Tanh(), nn.Linear(4, 4)).double().requires_grad_(False)
    twins = [twin(base) for _ in range(3)]
    for adapted in twins:
        adapted[1] = kind(4, 4).double()
    trained = [[*adapted[1].parameters()] for adapted in twins]
    stack = StackedModel(base, twins, trained, [0] * 3)
    inputs = torch.randn(5, 3, 2, 4, dtype=torch.float64)
    counts = [(2, 2, 2), (2, 2, 0), (0, 0, 2), (1, 2, 1), (2, 1, 0)]

    for rows, count in zip(inputs, counts, strict=True):
        with stack.of(count) as model:
            batch = torch.cat([rows[run, : count[run]] for run in stack.order(count)])
            model(batch).square().sum().backward()
    found = [[value.grad for value in values] for values in trained]
    for run, adapted in enumerate(twins):
        adapted.zero_grad()
        for rows, count in zip(inputs, counts, strict=True):
            adapted(rows[run, : count[run]]).square().sum().backward()
        for value, gradient in zip(trained[run], found[run], strict=True):
            torch.testing.assert_close(gradient, value.grad)


class Started(nn.Linear):
    """A layer less what a frozen copy of its bias gave."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("start", torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - self.get_buffer("start")


def test_frozen_tensors_are_stacked_once_whatever_runs_share_a_pass() -> None:
    """Of 16 runs there are 65,535 selections, and each stack is as large as its layers."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(4, 4)).double().requires_grad_(False)
    twins = [twin(base) for _ in range(4)]
    for adapted in twins:
        adapted[0] = Started(4, 4).double()
    trained = [[*adapted[0].parameters()] for adapted in twins]
    stack = StackedModel(base, twins, trained, [0] * 4)
    (layer,) = [module for module in stack.modules() if hasattr(module, "_fixed")]
    inputs = torch.randn(4, 2, 4, dtype=torch.float64)
    sizes = []
    for count in itertools.product((0, 2), repeat=4):
        if sum(count) < 4:
            continue
        with stack.of(count) as model:
            batch = torch.cat([inputs[run, : count[run]] for run in stack.order(count)])
            found = model(batch)
        expected = torch.cat([twins[run](inputs[run, : count[run]]) for run in stack.order(count)])
        torch.testing.assert_close(found, expected)
        sizes.append(sum(t.numel() for held in layer._fixed.values() for t in held.values()))
    assert set(sizes) == {4 * 4}


def test_runs_with_equally_many_rows_stand_together() -> None:
    rows = Rows([0, 0, 0, 1, 0])
    assert rows.divided([8, 16, 8, 8, 0]) == [((0, 2), 8), ((1,), 16), ((3,), 8)]
