"""Limits that the data or the model exceed are refused, or counted, before anything is computed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_architectures import tiny
from tiny_models import byte_tokenizer, tiny_gpt2

from quanta_bench.data.pools import Pools
from quanta_bench.errors import UsageError
from quanta_bench.evaluation.limits import bound_on_new_tokens, check_evaluation, check_positions
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec
from quanta_bench.task import Task
from tasks.arithmetic import GSM8K

LONG = "the quick brown fox jumps over the lazy dog again"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    splits = ("train", "validation", "test")
    rows = [{**row, "split": splits[n % 3]} for n, row in enumerate(rows)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return f"jsonl:{path}"


def drawn(task: str) -> list[tuple[Task, Any]]:
    return list(Pools().sample((task,), "embedded", "test", None, 0))


def say(count: int, text: str) -> list[dict[str, Any]]:
    return [{"prompt": f"{n}: say it", "target": text} for n in range(count)]


def spec(task: str, **settings: Any) -> EvaluationSpec:
    return EvaluationSpec(tasks=(task,), protocol="generate", **settings)


def test_the_bound_on_new_tokens_has_one_owner(tmp_path: Path) -> None:
    [(task, _)] = drawn(write(tmp_path / "d.jsonl", say(6, LONG)))
    assert bound_on_new_tokens(task, [10, 50], None) == 51
    assert bound_on_new_tokens(task, [], None) == 32
    assert bound_on_new_tokens(task, [10, 20], None) == 32
    assert bound_on_new_tokens(task, [10, 50], 8) == 8
    # The papers' tasks have bounds of their own.
    assert bound_on_new_tokens(GSM8K(), [10, 500], None) == 256


def test_right_answers_that_cannot_be_given_are_refused(pair: Any, tmp_path: Path) -> None:
    task = write(tmp_path / "d.jsonl", say(24, LONG))
    check_evaluation(*pair, spec(task), drawn(task))
    with pytest.raises(
        UsageError, match=r"all 8 right answers are longer.*evaluation\.max_new_tokens=51"
    ):
        check_evaluation(*pair, spec(task, max_new_tokens=32), drawn(task))


@pytest.mark.parametrize("longest", [20, 32, 40, 44])
def test_prompts_that_hardly_have_room_are_refused(pair: Any, tmp_path: Path, longest: int) -> None:
    task = write(tmp_path / "d.jsonl", say(24, "abc"))
    limits = spec(task, max_length=longest, max_new_tokens=32)
    if longest >= 32 + 10 // 2:
        check_evaluation(*pair, limits, drawn(task))
        return
    with pytest.raises(UsageError, match=r"max_length=.*8 of 8 prompts.*max_length=4[0-9]"):
        check_evaluation(*pair, limits, drawn(task))


def test_candidates_have_to_leave_room_too(pair: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "p" * 30, "choices": ["a" * 30, f"{n}"], "answer": 0} for n in range(9)]
    task = write(tmp_path / "d.jsonl", rows)
    settings = {"tasks": (task,), "protocol": "choice-text"}
    check_evaluation(*pair, EvaluationSpec(**settings, max_length=61), drawn(task))
    with pytest.raises(UsageError, match=r"leaves 9 tokens for the prompt after reserving 31"):
        check_evaluation(*pair, EvaluationSpec(**settings, max_length=40), drawn(task))


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama", "roberta"])
@pytest.mark.parametrize("protocol", ["choice-text", "generate"])
def test_more_tokens_than_positions_are_refused(
    pair: Any, tmp_path: Path, kind: str, protocol: str
) -> None:
    model = tiny(kind, max_position_embeddings=64, is_decoder=True)
    answer = {"target": "abc"} if protocol == "generate" else {"choices": ["a", "b"], "answer": 0}
    rows = [{"prompt": f"{n}: " + "word " * 40, **answer} for n in range(6)]
    task = write(tmp_path / "d.jsonl", rows)
    limits = EvaluationSpec(tasks=(task,), protocol=protocol)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"positions for 6[24] tokens.*evaluation\.max_length=6"):
        check_evaluation(model, pair[1], limits, drawn(task))


def test_vectors_of_the_method_take_positions() -> None:
    model = tiny("gpt2")
    check_positions(model, 128, 1024, "training", "it")
    check_positions(model, 500, 128, "training", "it")
    with pytest.raises(UsageError, match=r"positions for 120 tokens.*training\.max_length=120"):
        check_positions(model, 128, 1024, "training", "it", extra=8)


def job(task: str, tiny_model: Path, method: str = "lora", **settings: Any) -> Job:
    training = TrainingSpec(
        method=method,
        model=ModelSpec(name=".", source=f"local:{tiny_model}"),
        tasks=(task,),
        protocol="generate",
        loss="answer",
        precision="float32",
    )
    return Job("x", training, spec(task, **settings))


def test_nothing_is_trained_where_nothing_can_be_scored(tmp_path: Path, tiny_model: Path) -> None:
    task = write(tmp_path / "d.jsonl", say(24, LONG))
    runner = Runner(Store(tmp_path / "r"), Silent(), Pools())
    with pytest.raises(UsageError, match="right answers are longer"):
        runner.run(job(task, tiny_model, max_new_tokens=32))
    assert not list((tmp_path / "r").rglob("*.ckpt"))
    assert not list((tmp_path / "r").rglob("training.json"))


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """The folder of a model with learned positions for 64 tokens."""
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path / "narrow")
    tiny_gpt2(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "narrow")
    return tmp_path / "narrow"


def say_again(count: int, long: int | None = None) -> list[dict[str, Any]]:
    """Items of which one, if any, has a long prompt."""
    prompts = [f"{n}: say it" + " again" * 20 * (n == long) for n in range(count)]
    return [{"prompt": prompt, "target": "abc"} for prompt in prompts]


def test_a_validation_item_longer_than_the_models_positions_is_refused(
    tmp_path: Path, narrow: Path
) -> None:
    task = write(tmp_path / "d.jsonl", say_again(24, long=1))
    runner = Runner(Store(tmp_path / "r"), Silent(), Pools())
    message = (
        r"positions for 64 tokens, and an item of training or validation.*training\.max_length"
    )
    with pytest.raises(UsageError, match=message):
        runner.run(job(task, narrow, "full"))
    assert not list((tmp_path / "r").rglob("*.ckpt"))


def test_a_text_for_forgetting_longer_than_the_models_positions_is_refused(
    tmp_path: Path, narrow: Path
) -> None:
    task = write(tmp_path / "d.jsonl", say_again(24))
    runner = Runner(Store(tmp_path / "r"), Silent(), Pools())
    with pytest.raises(UsageError, match=r"positions for 64 tokens.*evaluation\.max_length=64"):
        runner.run(job(task, narrow, "full", forgetting="running_text"))
    assert not list((tmp_path / "r").rglob("*.ckpt"))
    short = {"forgetting": "running_text", "forgetting_items": 1, "max_length": 64}
    assert runner.run(job(task, narrow, "full", **short)).forgetting["running_text"] > 1


def test_nothing_is_trained_where_no_checkpoint_can_be_scored(
    tmp_path: Path, tiny_model: Path
) -> None:
    """Scoring has room for prompts beside answers of 32 tokens, validation has not."""
    task = write(tmp_path / "d.jsonl", say_again(24))
    runner = Runner(Store(tmp_path / "r"), Silent(), Pools())
    made = job(task, tiny_model)
    limited = {"select": "score", "max_length": 34}
    made = replace(made, training=made.training.model_copy(update=limited))
    with pytest.raises(UsageError) as error:
        runner.run(made)
    message = str(error.value)
    assert "training.max_length=34 leaves 2 tokens for the prompt" in message
    assert message.endswith("to truncate none, or training.select=likelihood.")
    assert "evaluation" not in message
    assert not list((tmp_path / "r").rglob("*.ckpt"))


def test_what_is_cut_is_counted(tmp_path: Path, tiny_model: Path) -> None:
    rows = [
        {"prompt": f"{n}: " + ("say it" if n % 2 else "say all of it"), "target": text}
        for n, text in enumerate(["a", LONG] * 12)
    ]
    task = write(tmp_path / "d.jsonl", rows)
    runner = Runner(Store(tmp_path / "r"), Silent(), Pools())
    result = runner.run(job(task, tiny_model, "none", max_new_tokens=32, max_length=32 + 10))
    [scored] = result.tasks.values()
    assert (scored.items, scored.max_new_tokens, scored.long_answers) == (8, 32, 4)
    assert 0 < scored.cut_items < 8
