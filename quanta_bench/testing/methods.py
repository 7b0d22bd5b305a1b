"""What every method has to do, as tests: subclass `MethodBattery` in a test module.

A method is tried on a LLaMA of two layers with random weights, 64 wide, whose query projections map
64 to 64 and whose value projections 64 to 32. A claim that it makes is held against what it does.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from quanta_bench.method import BenchError, Method, UsageError
from quanta_bench.models.held_products import still
from quanta_bench.plugins import METHODS
from quanta_bench.testing.training import (
    IDS,
    Trained,
    base_model,
    logits,
    logits_in_a_fresh_process,
    train,
)
from quanta_bench.utils.settings import settings_of


class MethodBattery:
    """The tests of a method. A subclass names it::

        class TestNormScales(MethodBattery):
            method = NormScales

    Class attributes:
        method: the class under test.
        settings: its settings; without them its defaults, or those of its embedded row where a
            setting has no default.
        reads_weights: the start depends on the base's weights, so that the method cannot be
            counted on a model without them and has to say so.
        checkpointing: works with gradient checkpointing; a method that does not has to refuse it.
    """

    method: ClassVar[type[Method[Any]]]
    settings: ClassVar[Mapping[str, Any] | None] = None
    reads_weights: ClassVar[bool] = False
    checkpointing: ClassVar[bool] = True

    @classmethod
    def given(cls) -> dict[str, Any]:
        """The settings that the method is tried with."""
        if cls.settings is not None:
            return dict(cls.settings)
        required = any(field.is_required() for field in cls.method.Config.model_fields.values())
        return dict(cls.method.rows["embedded"].config) if required else {}

    @classmethod
    def make(cls) -> Method[Any]:
        """The method with these settings."""
        return cls.method.from_settings(cls.given())

    @classmethod
    def trained(cls) -> Trained:
        """The model after twenty steps, made once; a test that changes it trains its own."""
        return _trained(cls)  # type: ignore[arg-type]  # a class is hashable

    def test_it_is_registered_under_its_name(self) -> None:
        """Otherwise no command finds it, and a saved run cannot be read."""
        name = self.method.name
        if name not in METHODS and not _is_installed(self.method.__module__):
            pytest.skip(f"{name!r} is not installed yet; `pip install -e .` registers it")
        assert METHODS.get(name) is self.method

    def test_it_says_what_it_is(self) -> None:
        """Tables, plans and help pages print these words."""
        method = self.make()
        assert method.title
        assert method.source, "`source` names the paper, or says that there is none"
        for profile, row in method.rows.items():
            assert row.label, profile
            settings = self.method.from_settings(row.config).config
            nested = {
                key for value in dict(settings).values() if isinstance(value, dict) for key in value
            }
            unknown = set(row.origin) - set(dict(settings)) - nested - set(row.training)
            assert unknown == set(), f"origins of no setting in the {profile} row"
        for name in ("mergeable", "exact_start", "cacheable", "stackable"):
            claim = getattr(method, name)
            assert claim or claim.reason, f"`{name}` is denied without a reason"
        undescribed = [s.name for s in settings_of(self.method.Config) if not s.meaning]
        assert undescribed == [], "settings without a line under `Attributes:`"

    def test_bad_settings_are_refused_in_words(self) -> None:
        """A misspelt key names the right one; a bad value names its key."""
        good = {**dict(self.make().config), **self.given()}
        with pytest.raises(UsageError, match="no setting 'no_such_setting'"):
            self.method.from_settings({**good, "no_such_setting": 1})
        for key in self.method.Config.model_fields:
            with pytest.raises(UsageError, match=f"Did you mean .*{key!r}"):
                self.method.from_settings({**good, f"{key}x": 1})
            with pytest.raises(UsageError, match=key):
                self.method.from_settings({**good, key: object()})

    def test_a_module_that_is_not_there_is_refused_in_words(self) -> None:
        """The message names the misspelt module and a near one of the model."""
        if "target_modules" not in self.method.Config.model_fields:
            pytest.skip("it has no target modules")
        method = self.method.from_settings({**self.given(), "target_modules": ["q_prj"]})
        with pytest.raises(UsageError, match=r"'q_prj'.*'q_proj'"):
            method.adapt(base_model(), seed=0)

    def test_start_equals_the_base_or_it_says_otherwise(self) -> None:
        """`exact_start` is what the model does before the first step."""
        method, base = self.make(), base_model()
        expected = logits(base)
        difference = (logits(method.adapt(base, seed=3)) - expected).abs().max()
        if method.exact_start:
            assert difference < 1e-5
        else:
            assert difference > 1e-5

    def test_start_depends_on_the_seed_alone(self) -> None:
        """Not on the global random state, which other libraries use and which it leaves alone."""
        starts = []
        for outer in (1, 2):
            method, base = self.make(), base_model()
            random.seed(outer)
            np.random.seed(outer)
            torch.manual_seed(outer)
            before = _random_state()
            model = method.adapt(base, seed=3)
            assert _random_state() == before, "adapt moved the global random state"
            starts.append({**model.state_dict()})
        torch.testing.assert_close(starts[0], starts[1], rtol=0, atol=0)

    def test_only_declared_parameters_train(self) -> None:
        """What `trainable` lists moves, and nothing else does."""
        run = self.trained()
        declared = {id(value) for value in run.trainable.values()}
        assert bool(declared) is run.method.trains
        for name, value in run.model.named_parameters():
            assert value.requires_grad is (id(value) in declared), name
        still = [
            name for name, start in run.start.items() if torch.equal(start, run.trainable[name])
        ]
        assert still == [], "declared as trainable, and did not move in twenty steps"
        for name, (value, before) in run.base.items():
            if id(value) not in declared:
                assert torch.equal(value, before), f"{name} of the base moved"

    def test_it_learns(self) -> None:
        """Two lines of text become likelier."""
        run = self.trained()
        assert run.logits.shape == (*IDS.shape, 97)
        if run.method.trains:
            assert run.losses[-1] < run.losses[0] - 0.02

    def test_it_trains_in_float32_on_a_bfloat16_base(self) -> None:
        """In bfloat16 a small step would round to nothing."""
        run = train(self.make(), dtype=torch.bfloat16, steps=2)
        if not run.method.trains:
            return
        assert run.losses[1] == run.losses[1], "the loss is NaN"
        assert {value.dtype for value in run.trainable.values()} == {torch.float32}
        assert run.optimizer is not None
        for value in run.trainable.values():
            assert run.optimizer.state[value]["exp_avg"].dtype is torch.float32
            assert run.optimizer.state[value]["exp_avg_sq"].dtype is torch.float32
        assert _lost_steps(run) == []

    def test_gradient_checkpointing_gives_the_same_gradients(self) -> None:
        """It saves memory and changes nothing else; or it is refused."""
        gradients = []
        for checkpointing in (False, True):
            method, base = self.make(), base_model()
            if not method.trains:
                return
            if checkpointing:
                _checkpoint(base)
            if checkpointing and not self.checkpointing:
                with pytest.raises((UsageError, ValueError), match="gradient checkpointing"):
                    method.adapt(base, seed=3)
                return
            model = method.adapt(base, seed=3).train()
            assert base.model.layers[0].gradient_checkpointing is checkpointing
            torch.manual_seed(0)
            model(input_ids=IDS, labels=IDS).loss.backward()
            gradients.append({name: value.grad for name, value in method.trainable(model).items()})
        assert gradients[0].keys() == gradients[1].keys()
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)

    def test_saved_is_loaded_in_a_fresh_process(self, tmp_path: Path) -> None:
        """A run is scored again long after its process has ended."""
        run = self.trained()
        base_model().save_pretrained(tmp_path / "base")
        run.method.save(run.model, tmp_path / "adapter")
        pickled = [
            path.name for ending in ("*.bin", "*.pt", "*.pkl") for path in tmp_path.rglob(ending)
        ]
        assert pickled == [], "only safetensors are loaded without running code"
        found = logits_in_a_fresh_process(run.method, tmp_path / "adapter", tmp_path / "base")
        torch.testing.assert_close(found, run.logits, rtol=0, atol=1e-6)

    def test_merged_equals_unmerged(self) -> None:
        """`merge` gives the plain base model with the same outputs, or is refused."""
        run = train(self.make(), steps=5)
        expected = run.logits
        if not run.method.mergeable:
            with pytest.raises(BenchError, match="cannot be merged"):
                run.method.merge(run.model)
            return
        merged = run.method.merge(run.model)
        assert type(merged) is type(base_model())
        assert {name for name, _ in merged.named_parameters()} == set(run.base)
        torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_scored_equals_unscored(self, dtype: torch.dtype) -> None:
        """What is kept while weights stand still changes no output, no weight and no later pass."""
        run = train(self.make(), dtype=dtype, steps=5)
        weights = {name: value.clone() for name, value in run.model.state_dict().items()}
        low = dtype is torch.bfloat16
        with torch.autocast("cpu", dtype, enabled=low):
            expected = logits(run.model)
            with still(run.method, run.model):
                # Layers see more vectors than they are wide.
                inside = [logits(run.model) for _ in range(8)]
            outside = logits(run.model)
        for found in inside:
            size = expected.abs().max()
            assert (found - expected).abs().max() <= (0.02 if low else 1e-5) * size
        assert torch.equal(outside, expected)
        after = run.model.state_dict()
        assert after.keys() == weights.keys()
        assert all(torch.equal(after[name], value) for name, value in weights.items())
        assert not any("forward" in vars(module) for module in run.model.modules())

    def test_count_without_weights_is_the_real_one(self) -> None:
        """A plan counts parameters on the meta device, where no weight takes memory."""
        method = self.make()
        if self.reads_weights:
            with pytest.raises(BenchError, match="meta device"):
                method.adapt(base_model("meta"), seed=0)
            return
        model = method.adapt(base_model("meta"), seed=0)
        assert all(value.is_meta for value in model.parameters())
        counts = [
            sum(value.numel() for value in values.values())
            for values in (method.trainable(model), self.trained().trainable)
        ]
        assert counts[0] == counts[1]


@cache
def _trained(battery: type[MethodBattery]) -> Trained:
    return train(battery.make())


def _is_installed(module: str) -> bool:
    """Whether the top-level package of a module belongs to an installed distribution."""
    return module.partition(".")[0] in metadata.packages_distributions()


def _random_state() -> tuple[Any, ...]:
    """The states of Python's, NumPy's and torch's global generators."""
    return (
        random.getstate(),
        str(np.random.get_state()),
        torch.get_rng_state().tolist(),
    )


def _lost_steps(run: Trained) -> list[str]:
    """Parameters that a step below half a unit in the last place of bfloat16 does not move."""
    lost = []
    for name, value in run.trainable.items():
        value.grad = -value.detach() * 2.0**-10  # half a unit is 2^-9 to 2^-8 of a value
        before = value.detach().clone()
        torch.optim.SGD([value], lr=1.0).step()
        if bool(((value == before) & (before != 0)).any()):
            lost.append(name)
    return lost


def _checkpoint(model: Any) -> None:
    new = getattr(model, "activation_checkpointing_enable", None)  # its name in transformers 5.2x
    (new or model.gradient_checkpointing_enable)({"use_reentrant": False})
