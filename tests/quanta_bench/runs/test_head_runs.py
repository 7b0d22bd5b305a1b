"""Runs of an encoder with a classification head: stored, resumed, loaded again, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from glue_files import write_glue
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from quanta_bench.cli.single_run import job as job_of_words
from quanta_bench.data.pools import Pools
from quanta_bench.errors import UsageError
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec
from quanta_bench.suites.compatibility import check_protocols
from quanta_bench.task import Task

LORA = {"r": 4, "alpha": 8, "target_modules": ["query", "value"]}
Make = Callable[..., Job]


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("glue")
    write_glue(root, 24)
    return root


@pytest.fixture
def make(tiny_roberta: Path, glue: Path) -> Make:
    def job(task: str = "rte", method: str = "lora", **changes: Any) -> Job:
        evaluation = changes.pop("evaluation", {})
        common = {"tasks": (task,), "source": f"local:{glue}", "protocol": "head"}
        training = {
            "model": ModelSpec(name=".", source=f"local:{tiny_roberta}"),
            "method": method,
            "settings": LORA if method == "lora" else {},
            "loss": "labels",
            "learning_rate": 1e-2,
            "precision": "float32",
            **common,
            **changes,
        }
        return Job(method, TrainingSpec(**training), EvaluationSpec(**{**common, **evaluation}))

    return job


def runner(folder: Path, reporter: Silent | None = None) -> Runner:
    return Runner(Store(folder), reporter or Silent(), Pools())


def outputs(runs: Runner, run: str) -> dict[str, list[float]]:
    return {line["id"]: line["outputs"] for line in runs.store.predictions(run)}


@pytest.mark.parametrize(("task", "count"), [("rte", 2), ("stsb", 1)])
def test_peft_and_transformers_alone_repeat_the_stored_answers(
    task: str, count: int, make: Make, tiny_roberta: Path, tmp_path: Path
) -> None:
    runs = runner(tmp_path)
    result = runs.run(make(task))
    found = outputs(runs, result.run)
    pool = runs.pools.get(task, result.evaluation.source, "test")
    assert found.keys() == {item.id for item in pool.examples}

    tokenizer = AutoTokenizer.from_pretrained(tiny_roberta)
    with torch.random.fork_rng():
        base = AutoModelForSequenceClassification.from_pretrained(tiny_roberta, num_labels=count)
    model = PeftModel.from_pretrained(base, runs.store.run_folder(result.run) / "adapter").eval()
    for item in pool.examples:
        inputs = tokenizer(*item.fields["sentences"], return_tensors="pt")
        with torch.no_grad():
            said = model(**inputs).logits[0].tolist()
        assert found[item.id] == pytest.approx(said, abs=1e-5)
    assert result.training.best_validation == max(v[1] for v in result.training.validations)


def test_a_second_evaluation_comes_from_disk_with_the_same_answers(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = runner(tmp_path)
    for method in ("lora", "full"):
        first = runs.run(make(method=method))
        with monkeypatch.context() as patch:
            patch.setattr("quanta_bench.training.trainer.train", None)
            second = runs.run(make(method=method, evaluation={"max_length": 60}))
        assert second.run != first.run
        expected = outputs(runs, first.run)
        for item, said in outputs(runs, second.run).items():
            assert said == pytest.approx(expected[item], abs=1e-5)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(make: Make, tmp_path: Path) -> None:
    class Stops(Silent):
        def training(self, done: int, total: int) -> None:
            if 2 * done > total:
                raise KeyboardInterrupt

    job = make("stsb", settings={**LORA, "dropout": 0.3}, validations=3)
    whole = runner(tmp_path / "whole")
    expected = whole.run(job)
    with pytest.raises(KeyboardInterrupt):
        runner(tmp_path / "parts", Stops()).run(job)
    parts = runner(tmp_path / "parts")
    found = parts.run(job)
    assert (found.training.resumed, expected.training.resumed) == (True, False)
    assert found.training.losses == expected.training.losses
    assert outputs(parts, found.run) == outputs(whole, expected.run)


def test_seeds_of_the_start_change_the_head_too(make: Make, tmp_path: Path) -> None:
    runs = runner(tmp_path)
    losses = [
        runs.run(make(train_items=4, epochs=1, seeds={"init": seed})).training.losses[0]
        for seed in (0, 1)
    ]
    # LoRA starts at the base's own outputs, so the first loss is the head's alone.
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": ("rte", "sst2")}, "answers one task, and these are rte, sst2"),
        ({"protocol": "choice-text", "loss": "candidates"}, "trained as 'choice-text' and scored"),
        ({"method": "none"}, "'none' trains nothing"),
        ({"loss": "candidates"}, "with the loss 'candidates'. Use the loss 'labels'"),
        ({"evaluation": {"forgetting": "running_text"}}, "predicts no text"),
        ({"task": "piqa"}, "'piqa' does not support the protocol 'head'"),
        ({"task": "wikitext2"}, "'wikitext2' does not support the protocol 'head'"),
        (
            {"protocol": "choice-text", "evaluation": {"protocol": "choice-text"}},
            "with the loss 'labels'. Use the loss 'candidates' or 'answer'",
        ),
    ],
)
def test_what_a_head_cannot_do_is_refused_before_anything_is_read(
    changes: dict[str, Any], said: str, make: Make, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        runner(tmp_path).run(make(**changes))
    assert not any(tmp_path.rglob("*.json"))


def test_a_model_that_has_other_modules_is_named_by_its_class(make: Make, tmp_path: Path) -> None:
    settings = {"target_modules": ["q_proj"]}
    with pytest.raises(UsageError, match="'q_proj' in this RobertaForSequenceClassification"):
        runner(tmp_path).run(make(settings=settings))


def test_a_strangers_task_joins_in(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that it needs is a number of outputs, and the texts."""
    from quanta_bench.task import Example

    class Ends(Task):
        name = "ends"
        title = "Ends"
        protocols = ("head",)
        kind = "classify"
        outputs = 3

        def examples(self, source: Any, split: str) -> list[Example]:
            return [Example(f"{split}{n}", str(n), {"text": "a" * n}, n % 3) for n in range(9)]

        def prompt(self, example: Example, protocol: str) -> Any:
            raise NotImplementedError

        def texts(self, example: Example) -> tuple[str, ...]:
            return (example.fields["text"],)

    modules = ("plugins", "data.pools", "training.objectives", "suites.compatibility")
    for module in (*modules, "protocols.head", "runs.runner"):
        monkeypatch.setattr(f"quanta_bench.{module}.find_task", lambda _: Ends())
    runs = runner(tmp_path)
    result = runs.run(make("ends", epochs=2))
    assert result.tasks["ends"].chance == pytest.approx(1 / 3)
    assert {len(said) for said in outputs(runs, result.run).values()} == {3}
    Ends.outputs = 0
    with pytest.raises(UsageError, match="'ends' does not say how many outputs"):
        runner(tmp_path / "none").run(make("ends"))


def test_the_loss_follows_from_the_protocol_on_the_command_line(glue: Path) -> None:
    settings = {"training.protocol": "head", "target_modules": ["query", "value"]}
    made = job_of_words("lora", ["sst2"], settings, 0, "hub:roberta-base", f"local:{glue}")
    assert (made.training.loss, made.training.protocol) == ("labels", "head")
    check_protocols(made.training, made.evaluation)
