"""Runs: what names them, what is computed, what is stored, and what is never computed twice."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from quanta_bench.data.pools import Pools, draw
from quanta_bench.errors import BenchError, UsageError
from quanta_bench.evaluation import evaluators
from quanta_bench.models import precision
from quanta_bench.results.store import Store
from quanta_bench.runs import identity, runner
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec

LORA = {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def pools():
    return Pools()


@pytest.fixture
def run(tmp_path, pools):
    return Runner(Store(tmp_path / "results"), Silent(), pools)


@pytest.fixture
def make(tiny_model, llm_adapters):
    def job(method="lora", evaluation=None, **training):
        settings = {"lora": LORA, "quanta": {"dims": [4, 4, 4]}}.get(method, {})
        return Job(
            method,
            TrainingSpec(
                **{
                    "model": ModelSpec(name=".", source=f"local:{tiny_model}"),
                    "method": method,
                    "settings": settings,
                    "tasks": ("boolq", "piqa"),
                    "source": f"local:{llm_adapters}",
                    "train_items": 8,
                    "learning_rate": 1e-2,
                    **training,
                }
            ),
            EvaluationSpec(
                **{
                    "tasks": ("boolq", "piqa"),
                    "source": f"local:{llm_adapters}",
                    **(evaluation or {}),
                }
            ),
        )

    return job


def test_a_result_says_everything_about_a_run(run, make, monkeypatch):
    # As in a process of its own: the memory of later runs cannot be measured separately.
    monkeypatch.setattr(runner, "_computed", 0)
    result = run.run(make())
    stored = json.loads((run.store.run_folder(result.run) / "result.json").read_text())
    assert stored["schema_version"] == 2
    assert stored["status"] == "complete"
    assert stored["protocol"] == {
        "put": "choice-text",
        "loss": "candidates",
        "trained_as": "choice-text",
        "normaliser": "token_mean",
    }
    assert stored["tasks"]["boolq"]["items"] == 12
    assert stored["training"]["trainable_parameters"] == 2 * (4 * (64 + 64) + 4 * (64 + 32))
    assert stored["training"]["steps"] == 2
    assert stored["training"]["environment"]["packages"]["torch"]
    assert stored["training"]["peak_memory_bytes"] > 10e6
    assert stored["training"]["tokens"] > 0
    assert stored["training"]["model_fingerprint"]
    assert not (run.store.root / "unfinished" / result.training.id).exists()


def test_the_predictions_add_up_to_the_scores(run, make):
    result = run.run(make())
    lines = run.store.predictions(result.run)
    for task in ("boolq", "piqa"):
        mine = [line for line in lines if line["task"] == task]
        right = [line["accuracy"] for line in mine]
        assert sum(right) / len(right) == result.tasks[task].metrics["accuracy"]
        for line in mine:
            means = [
                total / n for total, n in zip(line["log_likelihoods"], line["tokens"], strict=True)
            ]
            assert line["prediction"] == means.index(max(means))
            assert line["accuracy"] == float(line["prediction"] == line["gold"])


def test_nothing_is_computed_twice(run, make, monkeypatch):
    first = run.run(make())
    monkeypatch.setattr("quanta_bench.models.loading.load_model", None)
    assert run.run(make()) == first


def test_a_new_evaluation_does_not_train_again(run, make, monkeypatch):
    first = run.run(make())
    monkeypatch.setattr("quanta_bench.training.trainer.train", None)
    second = run.run(make(evaluation={"normaliser": "sum"}))
    assert second.training == first.training
    assert second.run != first.run


@pytest.mark.parametrize("method", ["lora", "quanta", "full"])
def test_a_reloaded_model_scores_as_the_trained_one_did(run, make, method):
    """The second evaluation comes from disk, the first from the model still in memory."""
    first = run.run(make(method))
    second = run.run(make(method, evaluation={"tasks": ("piqa", "boolq")}))
    key = lambda line: (line["task"], line["id"])  # noqa: E731
    lines = [sorted(run.store.predictions(r.run), key=key) for r in (first, second)]
    for one, other in zip(*lines, strict=True):
        assert one["log_likelihoods"] == pytest.approx(other["log_likelihoods"], rel=1e-6)


def test_fresh_runs_again(run, make):
    first = run.run(make())
    again = run.run(make(), fresh=True)
    assert again.run == first.run
    assert again.training.losses == first.training.losses
    assert again.evaluation_seconds != first.evaluation_seconds


def test_the_base_is_one_run_whatever_the_seed_and_the_training(run, make):
    names = {
        run.identify(PlannedRun.of(make("none", seeds={"init": seed}, learning_rate=rate))).run
        for seed in (0, 1)
        for rate in (1e-3, 1e-4)
    }
    assert len(names) == 1


def test_what_names_a_run(run, make):
    """Every setting that a result depends on, and no default written out."""
    base = run.identify(PlannedRun.of(make())).training
    assert run.identify(PlannedRun.of(make(settings={**LORA, "dropout": 0.0}))).training == base
    changes = [
        {"learning_rate": 2e-2},
        {"seeds": {"init": 1}},
        {"seeds": {"order": 1}},
        {"settings": {**LORA, "r": 8}},
        {"protocol": "choice-label"},
        {"loss": "answer"},
        {"train_items": 9},
        {"tasks": ("boolq",)},
    ]
    names = [run.identify(PlannedRun.of(make(**change))).training for change in changes]
    assert len({base, *names}) == len(changes) + 1


def test_the_precision_of_this_machine_names_a_run_and_another_is_found(run, make, monkeypatch):
    job = PlannedRun.of(make("none"))
    monkeypatch.setattr(precision, "_fast_dtypes", {"cpu": torch.float32})
    here = Runner(run.store, Silent(), Pools())
    computed = here.compute(job)
    assert computed.training.precision["arithmetic"] == "32-true"
    monkeypatch.setattr(precision, "_fast_dtypes", {"cpu": torch.bfloat16})
    there = Runner(run.store, Silent(), Pools())
    assert there.identify(job).run != computed.run
    assert there.find(job) == computed
    own = there.compute(job)
    assert own.training.precision["arithmetic"] == "bf16-mixed"
    assert (there.find(job), here.find(job)) == (own, computed)
    explicit = PlannedRun.of(make("none", precision="float32"))
    assert there.identify(explicit).run == here.identify(explicit).run


def test_other_data_under_the_same_name_is_another_run(run, make, llm_adapters, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(llm_adapters, copy)
    job = make(source=f"local:{copy}")
    names = [Runner(run.store, Silent(), Pools()).identify(PlannedRun.of(job)).training]
    path = copy / "dataset" / "boolq" / "train.json"
    path.write_text(path.read_text().replace("even", "odd"))
    names.append(Runner(run.store, Silent(), Pools()).identify(PlannedRun.of(job)).training)
    assert names[0] != names[1]


@pytest.mark.parametrize("method", ["lora", "quanta"])
def test_the_adapter_beside_the_result_is_one_that_peft_loads(run, make, tiny_model, method):
    import baselines.quanta  # noqa: F401  registers the tuner with peft

    result = run.run(make(method))
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    plain = base(torch.tensor([[5, 6, 7]])).logits
    loaded = PeftModel.from_pretrained(base, run.store.run_folder(result.run) / "adapter")
    assert not torch.allclose(loaded(torch.tensor([[5, 6, 7]])).logits, plain)


@pytest.mark.parametrize(
    ("protocol", "loss"),
    [("choice-label", "candidates"), ("choice-label", "answer"), ("generate", "answer+prompt")],
)
def test_the_other_protocols_run(run, make, protocol, loss):
    evaluation = {"protocol": protocol, "items": 4}
    result = run.run(make(protocol=protocol, loss=loss, evaluation=evaluation))
    assert result.protocol["put"] == protocol
    assert result.protocol["loss"] == loss
    assert all(0 <= task.metrics["accuracy"] <= 1 for task in result.tasks.values())


def test_the_checkpoint_of_generated_answers_is_chosen_by_their_score(run, make, monkeypatch):
    """Paper, Appendix E.2. The model answers well at the first of three validations only."""
    asked = []

    def generate(model, tokenizer, prompts, **_):
        asked.append([prompt.context for prompt in prompts])
        return [(targets[p.context] if len(asked) == 1 else "no idea", 0) for p in prompts]

    monkeypatch.setattr(evaluators, "generate", generate)
    job = make(
        protocol="generate",
        loss="answer",
        select="score",
        tasks=("boolq",),
        validations=3,
        train_items=24,
        validation_items=6,
        evaluation={"protocol": "generate", "tasks": ("boolq",), "items": 2},
    )
    pool = run.pools.get("boolq", job.training.source, "validation")
    prompts = [pool.task.prompt(item, "generate") for item in draw(pool.examples, 6, 0)]
    targets = {prompt.context: prompt.target for prompt in prompts}
    record = run.run(job).training
    assert [set(texts) == set(targets) for texts in asked] == [True, True, True, False]
    assert [metric for _, metric, _ in record.validations] == [1, 0, 0]
    assert record.best_step == record.validations[0][0] < record.steps
    losses = [loss for _, _, loss in record.validations]
    assert losses[0] > losses[-1]  # by likelihood the last would have been kept


def test_text_to_predict_has_no_score_to_choose_by(run, make):
    job = make(tasks=("wikitext2",), loss="answer", select="score", evaluation={"items": 2})
    with pytest.raises(UsageError, match="Leave select at 'likelihood'"):
        run.run(job)


def test_a_loss_over_candidates_needs_candidates(run, make):
    with pytest.raises(UsageError, match="Use the loss 'answer'"):
        run.run(make(protocol="generate", evaluation={"protocol": "generate"}))


def test_a_protocol_that_a_task_does_not_know_is_refused(run, make, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "1 + 1 =", "choices": ["2", "3"], "answer": 0}\n' * 30)
    job = make(tasks=(f"jsonl:{path}",), protocol="choice-label")
    with pytest.raises(UsageError, match="does not support the protocol 'choice-label'"):
        PlannedRun.of(job)


def test_a_run_that_fails_leaves_no_result(run, make, monkeypatch):
    monkeypatch.setattr(evaluators, "evaluate", _fail)
    with pytest.raises(BenchError, match="broken"):
        run.run(make())
    assert list(run.store.results()) == []
    monkeypatch.undo()
    monkeypatch.setattr("quanta_bench.training.trainer.train", None)
    run.run(make())  # the training was whole and is not repeated


def _fail(*_):
    raise BenchError("broken")


def test_two_processes_do_not_compute_the_same_run(run, make):
    names = run.identify(PlannedRun.of(make()))
    other = Store(run.store.root)
    with other.leases.hold(names.training), pytest.raises(BenchError, match="is computing"):
        run.run(make())


def test_gradient_checkpointing_changes_no_number(run, make):
    plain = run.run(make()).training.losses
    saved = run.run(make(gradient_checkpointing=True)).training.losses
    assert saved == pytest.approx(plain, rel=1e-5)


def test_looking_for_a_result_downloads_no_model(run, make, monkeypatch):
    """The paper's grid names six models; they are fetched one by one, when their turn comes."""
    job = make(model=ModelSpec(name="meta-llama/Llama-2-7b-hf", source="hub"))
    monkeypatch.setattr(identity, "model_fingerprint", None)
    assert run.find(PlannedRun.of(job)) is None


def test_jobs_that_come_to_the_same_run_are_spelled_alike(run, make):
    assert PlannedRun.of(make("none", seeds={"init": 1})).key == PlannedRun.of(make("none")).key
    assert PlannedRun.of(make(seeds={"init": 1})).key != PlannedRun.of(make()).key
    run.run(make())
    assert run.find(PlannedRun.of(make())) is not None
