"""Training: the best checkpoint is kept, and a stopped run goes on as if it had not been."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.models.loading import ModelRef, load_model
from quanta_bench.plugins import build_method
from quanta_bench.spec import TrainingSpec
from quanta_bench.training import trainer
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.module import FineTuning, Validation
from quanta_bench.training.objectives import Judgement
from quanta_bench.training.trainer import restore, train
from quanta_bench.utils.energy import EnergyMeter

LORA = {"r": 4, "alpha": 8, "target_modules": ("q_proj", "v_proj")}


@pytest.fixture(scope="module")
def pools():
    return Pools()


@pytest.fixture
def make(tiny_model, llm_adapters, pools):
    """Build the pieces of a run on the tiny model."""

    def build(method="lora", dtype=torch.float32, **changes):
        settings = {"method": method, "settings": LORA if method == "lora" else {}}
        spec = TrainingSpec(
            tasks=("boolq", "piqa"),
            source=f"local:{llm_adapters}",
            **{**settings, "train_items": 12, "batch_size": 4, "learning_rate": 1e-2, **changes},
        )
        built = build_method(spec.method, spec.settings)
        base = load_model(ModelRef(".", f"local:{tiny_model}"), dtype)
        model = built.adapt(base.model, 0)
        data = BenchData(spec, pools, base.tokenizer, packed=True)
        return model, built, spec, data

    return build


def run(made, folder, advance=lambda done, total: None, precision="32-true", energy=None):
    model, method, spec, data = made
    return train(
        model,
        method,
        spec,
        data,
        folder,
        device=torch.device("cpu"),
        precision=precision,
        advance=advance,
        energy=energy,
    )


def weights(made):
    model, method, *_ = made
    return {name: value.detach().clone() for name, value in method.trainable(model).items()}


def validation(made):
    """The validation of a model, computed outside Lightning."""
    model, method, spec, data = made
    module = FineTuning(model, method, spec, data.steps, data)
    module.log = lambda name, value: None
    with torch.no_grad():
        for batch in data.val_dataloader():
            module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    return module.validations[-1]


def test_the_best_checkpoint_is_kept_not_the_last_and_not_the_first(make, tmp_path, monkeypatch):
    """The public code of QuanTA loads the lowest step it finds instead."""
    made = make(epochs=2, validations=3)
    seen = []
    scores = iter([0.2, 0.9, 0.4])

    def score(self):
        seen.append(weights(made))
        metric = next(scores)
        self.validations.append(Validation(self.global_step, metric, 0.0))
        self.log("validation/selection", metric)
        self._judged.clear()

    monkeypatch.setattr(FineTuning, "on_validation_epoch_end", score)
    trained = run(made, tmp_path)
    assert len(seen) == 3
    kept = weights(made)
    assert all(torch.equal(kept[name], seen[1][name]) for name in kept)
    assert not all(torch.equal(kept[name], seen[2][name]) for name in kept)
    assert trained.best == (8, 0.9, 0.0)


@pytest.mark.parametrize("stop_after", [5, None])
def test_a_run_whose_folder_moved_keeps_its_best_checkpoint(
    make, tmp_path, monkeypatch, stop_after
):
    """Stopped between two validations, or after the last one."""
    metrics = {4: 0.9, 8: 0.2, 12: 0.4}

    def score(self):
        metric = metrics[self.global_step]
        self.validations.append(Validation(self.global_step, metric, 0.0))
        self.log("validation/selection", metric)
        self._judged.clear()

    class StopError(Exception):
        pass

    def stop(done, total):
        if done == stop_after:
            raise StopError

    monkeypatch.setattr(FineTuning, "on_validation_epoch_end", score)
    settings = {"epochs": 2, "validations": 3}
    with nullcontext() if stop_after is None else pytest.raises(StopError):
        run(make(**settings), tmp_path / "before", stop)
    kept = torch.load(tmp_path / "before/best.ckpt", weights_only=True)["state_dict"]
    (tmp_path / "before").rename(tmp_path / "after")
    made = make(**settings)
    found = run(made, tmp_path / "after")
    assert found.resumed
    assert found.best == (4, 0.9, 0.0)
    assert all(torch.equal(kept[f"model.{name}"], value) for name, value in weights(made).items())


def test_the_kept_weights_have_the_reported_metric(make, tmp_path):
    made = make(epochs=2, validations=3)
    trained = run(made, tmp_path)
    assert validation(made)[1:] == pytest.approx(trained.best[1:], abs=1e-6)
    assert trained.best in trained.validations


@pytest.mark.parametrize(("stop_after", "goes_on"), [(4, 5), (7, 5), (9, 9)])
def test_a_stopped_run_goes_on_where_it_was(make, tmp_path, stop_after, goes_on):
    settings = {**LORA, "dropout": 0.3}  # the random numbers have to go on too
    whole = make(epochs=2, validations=3, settings=settings)
    expected = run(whole, tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop(done, total):
        if done > stop_after:
            raise StopError

    with pytest.raises(StopError):
        run(make(epochs=2, validations=3, settings=settings), tmp_path / "parts", stop)
    again = make(epochs=2, validations=3, settings=settings)
    steps = []
    found = run(again, tmp_path / "parts", lambda done, total: steps.append(done))
    assert found.resumed
    assert steps == list(range(goes_on, 13))
    assert found.losses == expected.losses
    assert found.tokens == expected.tokens
    assert found.validations == expected.validations
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(again).values(), weights(whole).values(), strict=True)
    )


def test_the_energy_of_a_stopped_run_is_that_of_both_parts(make, tmp_path):
    class Counter:
        """10 J a step, as a counter of the device would have it."""

        joules = 0.0

        def advance(self, done, total):
            self.joules += 10
            if done == self.stop_after:
                raise StopError

        def __init__(self, stop_after=None):
            self.stop_after = stop_after
            self.meter = EnergyMeter(lambda: [self.joules], [0.0])

    class StopError(Exception):
        pass

    first, second = Counter(stop_after=7), Counter()
    with pytest.raises(StopError):
        run(make(epochs=2, validations=3), tmp_path, first.advance, energy=first.meter)
    found = run(make(epochs=2, validations=3), tmp_path, second.advance, energy=second.meter)
    assert found.joules == 120  # of 12 steps; those after the checkpoint were repeated
    assert run(make(), tmp_path / "unmeasured").joules is None


def test_a_counter_that_wraps_around_between_checkpoints_is_read_often_enough(
    make, tmp_path, monkeypatch
):
    """A processor's wraps around within minutes; a checkpoint may come after an hour."""
    monkeypatch.setattr(trainer, "METER_SECONDS", 0.0)
    used = [0.0]

    def advance(done, total):
        used[0] += 10

    meter = EnergyMeter(lambda: [used[0] % 25], [25.0])
    assert run(make(epochs=2, validations=1), tmp_path, advance, energy=meter).joules == 120


def test_the_same_seeds_give_the_same_run_and_other_ones_do_not(make, tmp_path):
    losses = []
    for number, seeds in enumerate([{}, {}, {"order": 1}, {"sample": 1}]):
        torch.rand(number)  # the global random state must not matter
        losses.append(run(make(seeds=seeds), tmp_path / str(number)).losses)
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert losses[0] != losses[3]


def test_the_global_random_state_is_left_alone(make, tmp_path):
    made = make()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(made, tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_dropout_acts_in_training(make, tmp_path):
    """A loaded model is in evaluation mode, and Lightning would leave it there."""
    plain = run(make(), tmp_path / "plain").losses
    dropped = run(make(settings={**LORA, "dropout": 0.5}), tmp_path / "dropped").losses
    assert plain[0] == pytest.approx(dropped[0])  # B is zero at first, so nothing to drop
    assert plain[1:] != dropped[1:]


@pytest.mark.parametrize("method", ["lora", "full", "quanta"])
def test_what_trains_is_float32_under_autocast(make, tmp_path, method):
    """Steps smaller than half a unit in the last place of bfloat16 would be lost."""
    dtype = torch.float32 if method == "full" else torch.bfloat16
    settings = {} if method != "lora" else LORA
    if method == "quanta":
        settings = {"dims": (4, 4, 4), "target_modules": ("q_proj",)}
    made = make(method, dtype, settings=settings, learning_rate=1e-6)
    before = weights(made)
    assert all(value.dtype is torch.float32 for value in before.values())
    run(made, tmp_path, precision="bf16-mixed")
    states = torch.load(tmp_path / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    assert all(state["exp_avg"].dtype is torch.float32 for state in states.values())
    assert any(not torch.equal(before[name], value) for name, value in weights(made).items())


def test_accumulated_parts_make_the_same_steps(make, tmp_path):
    """A batch of four in two parts of two."""
    made = make(accumulate=2)
    found = run(made, tmp_path / "parts")
    assert made[3].steps == 6
    assert found.losses == pytest.approx(run(make(), tmp_path / "whole").losses, rel=1e-4)


def test_checkpoints_hold_what_is_trained_and_nothing_else(make, tmp_path):
    made = make()
    run(made, tmp_path)
    saved = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    assert set(saved) == {f"model.{name}" for name in weights(made)}


@pytest.mark.parametrize("loss", ["answer", "answer+prompt"])
def test_language_modelling_losses_train_and_are_validated_by_choices(make, tmp_path, loss):
    made = make(loss=loss, epochs=4)
    trained = run(made, tmp_path)
    assert sum(trained.losses[-3:]) < sum(trained.losses[:3])
    assert 0 <= trained.best.metric <= 1


def test_the_learning_rate_rises_then_falls_to_nothing(make):
    model, method, spec, data = make(epochs=10, warmup=0.2)
    found = FineTuning(model, method, spec, data.steps, data).configure_optimizers()
    factor = found["lr_scheduler"].lr_lambdas[0]
    rates = [factor(step) for step in range(data.steps)]
    warm = round(0.2 * data.steps)
    assert rates[:warm] == sorted(rates[:warm])
    assert rates[warm] == 1
    assert rates[warm:] == sorted(rates[warm:], reverse=True)
    assert rates[-1] == pytest.approx(1 / (data.steps - warm))


def test_intervals_cover_all_batches_in_order(make):
    *_, data = make(epochs=3, validations=4)
    assert [len(interval) for interval in data.intervals] == [4, 5, 5, 4]
    assert data.steps == 18
    items = [item.example.id for interval in data.intervals for batch in interval for item in batch]
    assert sorted(items) == sorted(3 * [item.example.id for item in data.train_items])


def test_of_checkpoints_with_equal_metrics_the_one_with_the_smaller_loss_is_kept(
    make, tmp_path, monkeypatch
):
    """Lightning keeps what is logged in float32: the difference has to survive that."""
    losses = iter([1.32, 1.30, 1.31])

    def judge(self, batch, batch_idx):
        self._judged = [Judgement(0, 1.0, 0.0), Judgement(0, 0.0, 0.0)]

    plain = FineTuning.on_validation_epoch_end

    def end(self):
        loss = next(losses)
        self._judged = [Judgement(0, 1.0, loss), Judgement(0, 0.0, loss)]
        plain(self)

    monkeypatch.setattr(FineTuning, "validation_step", judge)
    monkeypatch.setattr(FineTuning, "on_validation_epoch_end", end)
    trained = run(make(epochs=2, validations=3), tmp_path)
    assert trained.best == (8, 0.5, 1.30)


# --- divergence -----------------------------------------------------------------------------------

BAD = [math.nan, math.inf]


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(make, tmp_path):
    made = make()
    with torch.no_grad():
        next(iter(made[1].trainable(made[0]).values())).fill_(float("nan"))
    with pytest.raises(BenchError) as error:
        run(made, tmp_path)
    assert str(error.value) == (
        "Training lora diverged at step 1 of 6: the loss is nan. The learning rate is 0.01: lower "
        "training.learning_rate, or compute in float32 (training.precision=float32)."
    )


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("last", [True, False])
def test_weights_that_are_not_finite_after_a_step_stop_the_run(
    make, tmp_path, monkeypatch, bad, last
):
    """After the last step no training loss shows what it made of the weights."""
    step = FineTuning._step

    def break_after(self):
        step(self)
        if self.global_step == (6 if last else 4):
            with torch.no_grad():
                next(iter(self.trainable().values()))[0] = bad

    monkeypatch.setattr(FineTuning, "_step", break_after)
    expected = "step 6 of 6: .* has weights that are not finite" if last else "step [45] of 6"
    with pytest.raises(BenchError, match=f"diverged at {expected}"):
        run(make(precision="float32"), tmp_path)
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in kept.values())


@pytest.mark.parametrize("bad", BAD)
def test_a_checkpoint_whose_outputs_are_not_finite_is_never_selected(make, tmp_path, bad):
    """Finite weights can overflow in the forward pass."""
    made = make()

    def spoil(module, inputs, output):
        return output if module.training else output * bad

    made[0].get_base_model().model.norm.register_forward_hook(spoil)
    message = r"step 2 of 6: in validation, (boolq|piqa), item .* is nan"
    with pytest.raises(BenchError, match=message):
        run(made, tmp_path)
    assert not (tmp_path / "best.ckpt").exists()


@pytest.mark.parametrize("bad", BAD)
def test_a_judge_that_gives_no_number_stops_the_run(make, tmp_path, bad):
    model, method, spec, data = make()
    options = {"precision": "32-true", "advance": lambda done, total: None}
    options |= {"device": torch.device("cpu"), "judge": lambda: bad}
    with pytest.raises(BenchError, match=f"step 2 of 6: the validation metric is {bad}"):
        train(model, method, spec, data, tmp_path, **options)


def test_a_checkpoint_file_that_is_not_finite_is_not_restored(make):
    model, method, spec, data = make()
    module = FineTuning(model, method, spec, data.steps, data)
    state = module.state_dict()
    name = next(iter(state))
    with pytest.raises(RuntimeError, match="is not finite"):
        restore(module, {**state, name: torch.full_like(state[name], math.nan)})


def test_answers_that_are_to_be_generated_are_learned_with_their_end(make, tmp_path):
    made = make(loss="answer", protocol="generate")
    model, *_, data = made
    end = model.config.eos_token_id
    for item in (*data.train_items, *data.validation_items):
        assert item.candidates[0][-1] == end
    plain = make(loss="answer")[3]
    assert all(item.candidates[0][-1] != end for item in plain.train_items)
