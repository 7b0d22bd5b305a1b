"""Estimates against arithmetic by hand, and against runs that were made."""

from __future__ import annotations

from typing import Any

import pytest
from paths import STUDY

from quanta_bench.costs.gpu_hours import UTILISATION, Cost, Costs
from quanta_bench.costs.gpus import DEFAULT_GPU, GPUS, find_gpu
from quanta_bench.errors import UsageError
from quanta_bench.models.meta import Counts
from quanta_bench.results.records import Result
from quanta_bench.suites.grid import grid
from quanta_bench.suites.schema import Profile, RowSpec, Suite

LLAMA2_7B = 6_738_415_616
# Without the embeddings, which are looked up and not multiplied with.
MULTIPLIED = LLAMA2_7B - 32_000 * 4096
EVERYWHERE = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]


def cost(
    method: str,
    *,
    settings: dict[str, Any] | None = None,
    model: str = "llama2-7b",
    gpu: str = DEFAULT_GPU,
    task: str = "drop",
    scored: str = "",
    evaluation: dict[str, Any] | None = None,
    **training: Any,
) -> Cost:
    protocol = {"drop": "generate"}.get(task, "choice-label")
    row = RowSpec(method=method, settings=settings or {})
    profile = Profile(
        model=model,
        model_source="hub",
        rows=(row,),
        training={"tasks": [task], "protocol": protocol, **training},
        evaluation={"protocol": protocol, **(evaluation or {})},
    )
    suite = Suite(name="own", tasks=(scored or task,), profiles={"paper": profile})
    (one,) = grid(suite, "paper")
    return Costs(find_gpu(gpu), Counts()).row(one)


@pytest.fixture(scope="module")
def commonsense() -> Cost:
    """LoRA of rank 8 on LLaMA2-7B, three passes over COMMONSENSE170K."""
    return cost(
        "lora", settings={"r": 8}, task="commonsense170k", scored="boolq",
        loss="candidates", epochs=3, batch_size=16, max_length=256,
    )  # fmt: skip


def test_lora_on_commonsense170k_by_hand(commonsense: Cost) -> None:
    # Instructions of about 120 tokens with two to four answers of six.
    assert 3 * 170_020 * 100 < commonsense.training_tokens < 3 * 170_020 * 160
    # A frozen base multiplies with each weight forward and, for the inputs, backward.
    seconds = commonsense.training_tokens * 2 * 2 * MULTIPLIED / (UTILISATION * 312e12)
    assert commonsense.training_hours == pytest.approx(seconds / 3600, rel=0.1)
    assert commonsense.training_hours < commonsense.gpu_hours < 1.1 * commonsense.training_hours


def test_lora_of_7b_fits_one_gpu_and_its_parts_add_up(commonsense: Cost) -> None:
    assert commonsense.gpus == 1
    assert commonsense.weight_bytes == 2 * LLAMA2_7B + 4 * 4_194_304
    assert commonsense.optimizer_bytes == (4 + 8) * 4_194_304
    assert commonsense.memory_bytes == pytest.approx(
        commonsense.weight_bytes + commonsense.optimizer_bytes + commonsense.activation_bytes
    )


def test_full_fine_tuning_of_7b_fits_one_gpu_with_moments_of_eight_bits() -> None:
    words: dict[str, Any] = {"loss": "answer", "train_items": 100, "validation_items": 10}
    found = cost("full", optimizer="adamw-8bit", batch_size=4, **words)
    # Float32 weight and gradient, and two moments of a byte.
    assert found.weight_bytes + found.optimizer_bytes == 10 * LLAMA2_7B
    assert found.recomputed
    assert found.gpus == 1
    # Kept activations hold a bfloat16 copy of each weight that the arithmetic takes.
    assert (
        cost("full", gpu="h200-141gb", optimizer="adamw-8bit", **words).activation_bytes
        > 2 * MULTIPLIED
    )


def test_dora_of_13b_fits_one_gpu_as_in_its_paper() -> None:
    """In micro-batches, or recomputed; in one piece a batch takes 151 GB."""
    found = cost(
        "dora", model="llama2-13b", settings={"r": 32, "target_modules": EVERYWHERE},
        task="commonsense170k", scored="boolq", loss="candidates", batch_size=16, max_length=256,
    )  # fmt: skip
    assert found.gpus == 1
    assert found.recomputed or found.items < 16


def test_full_fine_tuning_of_7b_with_wide_moments_does_not_fit_one_gpu() -> None:
    words: dict[str, Any] = {"loss": "answer", "train_items": 100, "validation_items": 10}
    found = cost("full", optimizer="adamw", **words)
    # Float32 weight, gradient and two moments.
    assert found.weight_bytes + found.optimizer_bytes == 16 * LLAMA2_7B
    assert found.gpus > 1
    # Four times the operations of a forward pass, one of them because activations are recomputed,
    # and steps that move 28 bytes a parameter.
    seconds = found.training_tokens * 3.7 * 2 * MULTIPLIED / (UTILISATION * 312e12)
    steps = 13 * 28 * LLAMA2_7B / (UTILISATION * 2.039e12)
    assert found.training_hours * 3600 > seconds + steps


def test_llama2_70b_does_not_fit_one_gpu() -> None:
    found = cost("lora", model="llama2-70b", loss="answer", batch_size=4, train_items=100)
    assert found.weight_bytes > 2 * 68.9e9
    assert found.gpus >= 2


def test_generation_is_bound_by_reading_the_weights() -> None:
    found = cost("none", evaluation={"items": 1200})
    assert found.training_hours == found.training_tokens == found.optimizer_bytes == 0
    # 75 batches of 16; a model that was not trained writes all of the 50 tokens.
    # Keys and values of 32 layers, of the prompt and half of the answer on average.
    cached = 16 * (329.2 + 25) * 32 * 2 * 4096 * 2
    reading = 75 * 50 * (2 * LLAMA2_7B + cached) / (UTILISATION * 2.039e12)
    prompts = 1200 * 329.2 * 2 * MULTIPLIED / (UTILISATION * 312e12)
    assert found.gpu_hours * 3600 == pytest.approx(reading + prompts, rel=0.05)


def test_a_faster_gpu_takes_less_time_and_the_same_memory(commonsense: Cost) -> None:
    words: dict[str, Any] = {"loss": "answer", "train_items": 100, "validation_items": 10}
    slow, fast = (cost("lora", gpu=name, **words) for name in ("a100-80gb", "h100-80gb"))
    assert slow.memory_bytes == fast.memory_bytes
    assert GPUS["a100-80gb"].bfloat16 / GPUS["h100-80gb"].bfloat16 == pytest.approx(0.315, abs=0.01)
    assert 0.3 < fast.training_hours / slow.training_hours < 0.62


def test_recomputed_activations_take_less_memory_and_more_time() -> None:
    words: dict[str, Any] = {"loss": "answer", "train_items": 100, "validation_items": 10}
    plain, again = (cost("lora", gradient_checkpointing=on, **words) for on in (False, True))
    assert again.activation_bytes < plain.activation_bytes / 5
    assert plain.training_hours < again.training_hours < 1.6 * plain.training_hours


def test_checkpoints_chosen_by_answers_cost_what_scoring_these_costs() -> None:
    words: dict[str, Any] = {"loss": "answer", "train_items": 100, "validation_items": 160}
    plain, chosen = (
        cost("lora", select=by, validations=2, **words) for by in ("likelihood", "score")
    )
    scored, more = (
        cost("lora", evaluation={"items": items}, **words).gpu_hours for items in (160, 320)
    )
    each = chosen.training_hours - plain.training_hours
    assert each == pytest.approx(2 * (more - scored), rel=0.01)


@pytest.mark.parametrize(
    "run",
    [
        "lora-775ce3bd9930-025a1254eae3",
        "prefix-56b55382a5bb-025a1254eae3",
        "prefix-8b9620de5f9a-bf2961402a31",
    ],
)
def test_tokens_are_those_of_runs_that_were_made(run: str) -> None:
    """Runs whose candidates stand in rows of their own; lengths are those of other items."""
    result = Result.model_validate_json((STUDY / "runs" / run / "result.json").read_bytes())
    spec = result.training.spec
    training = spec.model_dump(mode="json", exclude_defaults=True)
    row = RowSpec(method=spec.method, settings=training.pop("settings", {}))
    for key in ("method", "model", "seeds"):
        training.pop(key, None)
    profile = Profile(model="smollm2-135m", rows=(row,), training=training)
    suite = Suite(name="own", tasks=spec.tasks, profiles={"embedded": profile})
    (one,) = grid(suite, "embedded")
    estimate = Costs(GPUS[DEFAULT_GPU], Counts()).row(one)
    assert estimate.training_tokens == pytest.approx(result.training.tokens, rel=0.1)


def test_an_unknown_gpu_is_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'a100-80gb'"):
        find_gpu("a100-80")
