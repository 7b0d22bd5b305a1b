"""Where memory runs out, a run goes on with less at a time and computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.evaluation import evaluators, likelihood
from quanta_bench.models.loading import ModelRef, load_model
from quanta_bench.plugins import build_method
from quanta_bench.runs.fitting import fit_to_memory
from quanta_bench.spec import EvaluationSpec, TrainingSpec
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.objectives import Continuations
from quanta_bench.training.trainer import TrainingOutcome, train
from quanta_bench.utils.out_of_memory import in_halves

LORA = {"r": 4, "alpha": 8, "target_modules": ("q_proj", "v_proj")}
CPU = torch.device("cpu")


@pytest.fixture
def make(tiny_model: Path, llm_adapters: Path) -> Any:
    """The pieces of a run on the tiny model."""

    def build(**changes: Any) -> tuple[Any, ...]:
        values = {"train_items": 12, "batch_size": 8, "validations": 1, **changes}
        model = {"name": ".", "source": f"local:{tiny_model}"}
        spec = TrainingSpec(
            tasks=("boolq", "piqa"), source=f"local:{llm_adapters}", method="lora", settings=LORA,
            model=model, **values,
        )  # fmt: skip
        method = build_method("lora", LORA)
        base = load_model(ModelRef(".", f"local:{tiny_model}"), torch.float32)
        adapted = method.adapt(base.model, 0)
        data = BenchData(spec, Pools(), base.tokenizer, packed=True, device=CPU)
        return adapted, method, spec, data, base.tokenizer

    return build


def run(made: Any, folder: Path) -> TrainingOutcome:
    model, method, spec, data, _ = made
    options = {"precision": "32-true", "advance": lambda done, total: None}
    return train(model, method, spec, data, folder, device=CPU, **options)


def bounded(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let memory run out for more than so many tokens; returns what was computed."""
    computed: list[int] = []
    original = Continuations.loss

    def loss(self: Any, model: Any, batch: Any) -> Any:
        if batch.input_ids.numel() > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        computed.append(batch.input_ids.numel())
        return original(self, model, batch)

    monkeypatch.setattr(Continuations, "loss", loss)
    return computed


@pytest.mark.parametrize("loss", ["candidates", "answer"])
def test_a_step_for_which_memory_runs_out_is_computed_in_smaller_parts(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    whole = run(make(loss=loss), tmp_path / "whole")
    assert whole.halvings == 0
    computed = bounded(monkeypatch, 400)
    made = make(loss=loss)
    parts = run(made, tmp_path / "parts")
    assert 1 <= parts.halvings <= 3
    assert parts.micro_batch_tokens == made[3].tokens <= 400
    # Later steps are cut at once, also those that had been laid out before.
    assert sum(computed) >= parts.tokens
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    assert parts.best.loss == pytest.approx(whole.best.loss, rel=1e-4)
    assert parts.tokens == whole.tokens


def test_an_item_that_does_not_fit_alone_is_an_error_that_says_what_to_do(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded(monkeypatch, 20)
    with pytest.raises(BenchError, match=r"a single item of \d+ tokens .*max_length \(now 512\)"):
        run(make(), tmp_path)


def test_halves_stand_in_the_order_of_the_whole() -> None:
    asked = []

    def compute(some: Any) -> list[int]:
        asked.append(len(some))
        if len(some) > 2:
            raise torch.OutOfMemoryError
        return [10 * one for one in some]

    assert in_halves(compute, range(7)) == [0, 10, 20, 30, 40, 50, 60]
    assert asked == [7, 3, 1, 2, 4, 2, 2]

    def never(_: Any) -> list[int]:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        in_halves(never, range(3))


def test_scores_are_the_same_where_memory_runs_out(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, spec, _, tokenizer = make()
    ((task, examples), *_) = Pools().sample(spec.tasks, spec.source, "test", 8, 0)
    scoring = EvaluationSpec(tasks=spec.tasks, source=spec.source)
    done: list[int] = []
    context = evaluators.Context(model.eval(), tokenizer, scoring, True, True, CPU, done.append)
    expected = evaluators.choose(context, task, examples)
    original = likelihood.log_likelihoods

    def most_two(model: Any, batch: Any) -> Any:
        if len(batch.items) > 2:
            raise torch.OutOfMemoryError
        return original(model, batch)

    monkeypatch.setattr(likelihood, "log_likelihoods", most_two)
    found = evaluators.choose(context, task, examples)
    assert sum(done) == 2 * len(examples)
    for one, other in zip(found, expected, strict=True):
        assert one.example == other.example
        assert one.detail["log_likelihoods"] == pytest.approx(
            other.detail["log_likelihoods"], rel=1e-5
        )


def test_a_run_is_fitted_to_the_memory_that_is_free(make: Any) -> None:
    """Less memory: smaller micro-batches, then recomputation; the prediction stays within it."""
    _, method, spec, data, _ = make(batch_size=64, train_items=24)

    def fitted(free: float) -> tuple[int, bool, int]:
        data.tokens, data.recomputed = 16384, False
        fit_to_memory(data, spec, method, free=round(free), wide=True, mixed=False)
        return data.tokens, data.recomputed, data.predicted_bytes

    whole, least = fitted(1e9), fitted(1)
    assert (whole[1], least[1]) == (False, True)
    assert whole[0] > 16 * least[0]
    assert least[0] == data.longest
    between = [least[2] + share * (whole[2] - least[2]) for share in (0.9, 0.5, 0.02)]
    found = [fitted((size + 1000) / 0.9) for size in between]
    for (_, _, predicted), size in zip(found, between, strict=True):
        assert least[2] <= predicted <= size + 1000
    assert [recomputed for _, recomputed, _ in found] == [False, False, True]
    assert found[0][0] > found[1][0] >= 512


def test_less_of_a_base_that_is_spread_or_of_4_bits_has_to_fit(make: Any) -> None:
    _, method, spec, data, _ = make()
    packed = spec.model_copy(update={"quantization": "nf4"})

    def predicted(spec: TrainingSpec, shards: int) -> int:
        data.tokens, data.predicted_bytes = 16384, None
        fit_to_memory(data, spec, method, free=10**9, wide=True, mixed=False, shards=shards)
        assert data.predicted_bytes is not None
        return data.predicted_bytes

    whole = predicted(spec, 1)
    # Of two layers, one is gathered and one gathered ahead: nothing is saved.
    assert predicted(spec, 4) == whole
    assert predicted(packed, 1) < whole


def test_a_large_base_that_is_spread_needs_its_part(make: Any) -> None:
    from quanta_bench.models.meta import outside_layers
    from quanta_bench.runs.fitting import _held

    outside, base = outside_layers("llama2-70b"), 68_976_648_192
    assert outside == 2 * 32_000 * 8192
    # A quarter, and two of its 80 layers.
    assert _held("llama2-70b", base, 4) == pytest.approx(
        outside + (base - outside) * (1 / 4 + 2 / 80)
    )


def test_a_model_that_cannot_be_predicted_keeps_the_usual_budget(make: Any) -> None:
    _, method, spec, data, _ = make()
    unknown = spec.model_copy(update={"model": spec.model.model_copy(update={"name": "nobody/x"})})
    fit_to_memory(data, unknown, method, free=10**6, wide=True, mixed=False)
    assert data.predicted_bytes is None
    assert not data.recomputed


def test_moments_of_eight_bits_train_as_well_and_go_on(make: Any, tmp_path: Path) -> None:
    """The state of bitsandbytes passes through a checkpoint that holds nothing but tensors."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    options = {"optimizer": "adamw-8bit", "learning_rate": 1e-2, "epochs": 3}
    whole = run(make(**options), tmp_path / "whole")
    kept = torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)
    moments = next(iter(kept["optimizer_states"][0]["state"].values()))
    assert "state1" in moments or "__bnb_optimizer_quant_state__" in moments
    plain = run(make(**{**options, "optimizer": "adamw"}), tmp_path / "plain")
    assert whole.losses == pytest.approx(plain.losses, rel=0.05)
    assert sum(whole.losses[-2:]) < sum(whole.losses[:2])
