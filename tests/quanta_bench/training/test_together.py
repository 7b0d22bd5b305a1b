"""Runs that are trained together give what each gives alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from quanta_bench.data.pools import Pools
from quanta_bench.errors import DivergedError
from quanta_bench.models.loading import ModelRef, load_model
from quanta_bench.models.stacking import StackedModel, twin
from quanta_bench.plugins import build_method
from quanta_bench.spec import Seeds, TrainingSpec
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.together import Passes, passes_of, train_together
from quanta_bench.training.trainer import train

CPU = torch.device("cpu")
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "alpha": 8},
    "quanta": {"dims": (4, 4, 4)},
    "krona": {"side": 8},
    "mora": {"r": 2},
    "peft": {"type": "VERA", "settings": {"r": 8, "target_modules": ["q_proj", "v_proj"]}},
}


@dataclass
class Made:
    """A run's parts."""

    model: Any
    method: Any
    spec: TrainingSpec
    data: BenchData

    def train(self, folder, turn=None, advance=lambda done, total: None):
        return train(
            self.model,
            self.method,
            self.spec,
            self.data,
            folder,
            device=CPU,
            precision="32-true",
            advance=advance,
            turn=turn,
        )

    def weights(self):
        return {n: v.detach().clone() for n, v in self.method.trainable(self.model).items()}


@pytest.fixture(scope="module")
def pools():
    return Pools()


@pytest.fixture
def make(tiny_model, llm_adapters, pools):
    """Build runs over one base, as twins of it."""

    def build(*runs, **common):
        base = load_model(ModelRef(".", f"local:{tiny_model}"), torch.float32)
        made, twins = [], []
        for run in runs:
            values = {"method": "lora", "learning_rate": 1e-2, **common, **run}
            values.setdefault("settings", SETTINGS.get(values["method"], {}))
            seed = values.pop("seed", 0)
            spec = TrainingSpec(
                tasks=("boolq", "piqa"),
                source=f"local:{llm_adapters}",
                seeds=Seeds(init=seed, order=seed, sample=seed),
                **{"train_items": 10, "validation_items": 4, "batch_size": 4, **values},
            )
            method = build_method(spec.method, spec.settings)
            twins.append(twin(base.model))
            model = method.adapt(twins[-1], seed)
            made.append(
                Made(model, method, spec, BenchData(spec, pools, base.tokenizer, packed=True))
            )
        return base.model, twins, made

    return build


def passes(base, twins, made, budget=1024):
    groups = [[*dict.fromkeys(m.spec.method for m in made)].index(m.spec.method) for m in made]
    trained = [[*m.method.trainable(m.model).values()] for m in made]
    return Passes(
        StackedModel(base, twins, trained, groups),
        [m.data.objective for m in made],
        budget,
        lambda: torch.autocast("cpu", enabled=False),
    )


def compare(make, tmp_path, *runs, budget=1024, **common):
    """Train the runs alone and together, and compare all that comes out."""
    alone = make(*runs, **common)[2]
    expected = [one.train(tmp_path / f"alone{n}") for n, one in enumerate(alone)]
    base, twins, made = make(*runs, **common)
    works = [
        lambda turn, one=one, n=n: one.train(tmp_path / f"together{n}", turn)
        for n, one in enumerate(made)
    ]
    found = train_together(works, passes(base, twins, made, budget))
    for one, other, left, right in zip(alone, made, expected, found, strict=True):
        assert not isinstance(right, BaseException), right
        assert left.losses == pytest.approx(right.losses, rel=1e-5, abs=1e-6)
        assert left.tokens == right.tokens
        assert left.best.step == right.best.step
        for before, after in zip(left.validations, right.validations, strict=True):
            assert before == pytest.approx(after, rel=1e-5)
        weights = other.weights()
        for name, value in one.weights().items():
            # AdamW divides a gradient near zero by its own size, and so makes of its rounding a
            # difference of the rate's size: whole tensors are compared, not their entries.
            assert (weights[name] - value).norm() <= 1e-3 * value.norm(), name
    return found


def test_learning_rates_of_a_method(make, tmp_path):
    compare(make, tmp_path, *({"learning_rate": 10.0**-n} for n in range(1, 4)))


def test_seeds_with_batches_of_their_own(make, tmp_path):
    compare(make, tmp_path, *({"seed": n} for n in range(3)), loss="answer")


def test_methods_and_rates_in_passes_of_a_few_rows(make, tmp_path):
    """Passes that hold some of the runs only, and runs of unequal length."""
    runs = [
        {"method": "lora"},
        {"method": "lora", "seed": 1, "train_items": 6},
        {"method": "quanta"},
        {"method": "quanta", "seed": 1},
        {"method": "krona"},
    ]
    compare(make, tmp_path, *runs, budget=400)


@pytest.mark.parametrize("budget", [60, 400, 10_000])
def test_every_micro_batch_is_in_one_pass_within_the_budget(budget):
    shapes = [(4, 90), (4, 10), (4, 20), (4, 100), (4, 11), (4, 21), (4, 9)]
    found = passes_of(shapes, budget)
    assert sorted(number for numbers in found for number in numbers) == list(range(len(shapes)))
    for numbers in found:
        widest = max(shapes[number][1] for number in numbers)
        assert len(numbers) == 1 or 4 * len(numbers) * widest <= budget


def test_long_micro_batches_do_not_pad_short_ones():
    shapes = [(4, 90), (4, 10), (4, 20), (4, 100), (4, 11), (4, 21), (4, 9)]
    assert passes_of(shapes, 10_000) == [[3, 0], [5, 2, 4, 1, 6]]


def test_a_run_that_diverges_ends_alone(make, tmp_path):
    runs = [{"learning_rate": 10.0**-n} for n in (2, 3, 4)]
    alone = [one.train(tmp_path / f"alone{n}") for n, one in enumerate(make(*runs[::2])[2])]
    base, twins, made = make(*runs)

    def spoil(done, total):
        next(iter(made[1].method.trainable(made[1].model).values())).data.fill_(torch.nan)

    first, second, third = train_together(
        [
            lambda turn: made[0].train(tmp_path / "first", turn),
            lambda turn: made[1].train(tmp_path / "second", turn, spoil),
            lambda turn: made[2].train(tmp_path / "third", turn),
        ],
        passes(base, twins, made),
    )
    assert isinstance(second, DivergedError)
    assert "step 2" in str(second)
    for before, after in zip(alone, (first, third), strict=True):
        assert before.losses == pytest.approx(after.losses, rel=1e-5)


def test_stopped_runs_resume_alone_and_together(make, tmp_path):
    """A checkpoint does not know with whom its run was trained."""
    runs = [{"learning_rate": 10.0**-n} for n in (1, 2)]
    whole = [one.train(tmp_path / f"whole{n}") for n, one in enumerate(make(*runs)[2])]

    def stop(done, total):
        if done == total - 1:
            raise KeyboardInterrupt

    base, twins, made = make(*runs)
    works = [
        lambda turn, one=one, n=n: one.train(tmp_path / f"run{n}", turn, stop)
        for n, one in enumerate(made)
    ]
    assert all(
        isinstance(end, BaseException) for end in train_together(works, passes(base, twins, made))
    )
    base, twins, made = make(*runs)
    first = made[0].train(tmp_path / "run0")
    (second,) = train_together(
        [lambda turn: made[1].train(tmp_path / "run1", turn)], passes(base, twins[1:], made[1:])
    )
    for expected, resumed in zip(whole, (first, second), strict=True):
        assert resumed.resumed
        assert resumed.losses == pytest.approx(expected.losses, rel=1e-5)


def test_shares_of_time_sum_to_the_whole(make, tmp_path):
    found = compare(make, tmp_path, *({"seed": n} for n in range(2)))
    elapsed = max(one.elapsed for one in found)
    assert 0.5 * elapsed < sum(one.seconds for one in found) < 1.1 * elapsed
