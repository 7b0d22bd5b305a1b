"""Results are whole or not there, and what cannot be read is said to be so."""

from __future__ import annotations

import os

import pytest

from quanta_bench.results.environment import environment
from quanta_bench.results.records import Result, TaskResult, TrainingRecord
from quanta_bench.results.store import Store
from quanta_bench.spec import EvaluationSpec, TrainingSpec


def training(name="abc"):
    return TrainingRecord(
        id=name,
        spec=TrainingSpec(method="lora"),
        model="tiny",
        model_fingerprint="f",
        data={},
        base_parameters=100,
        precision={"base": "float32", "arithmetic": "32-true"},
        environment=environment(),
    )


def result(name="lora-abc-def"):
    task = TaskResult(
        title="BoolQ",
        kind="choice",
        metric="accuracy",
        metrics={"accuracy": 0.5},
        items=2,
        groups=2,
        standard_error=0.5,
        seconds=1.0,
        data={},
    )
    return Result(
        run=name,
        training=training(),
        evaluation=EvaluationSpec(tasks=("boolq",)),
        protocol={},
        tasks={"boolq": task},
        evaluation_seconds=1.0,
        evaluation_environment=environment(),
    )


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    with store.write_training(training()) as folder:
        (folder / "adapter").mkdir()
        (folder / "adapter" / "weights").write_bytes(b"x" * 1000)
    return store


def test_what_is_written_is_read(store):
    stored = store.write_run(result(), [{"id": "1"}, {"id": "ü"}])
    assert store.result("lora-abc-def") == stored
    hashes = {"checksum", "spec_sha256", "predictions_sha256", "adapter", "adapter_bytes"}
    assert stored.model_dump(exclude=hashes) == result().model_dump(exclude=hashes)
    assert store.training("abc").model_dump(exclude=hashes) == training().model_dump(exclude=hashes)
    assert list(store.training("abc").adapter) == ["weights"]
    assert store.predictions("lora-abc-def") == [{"id": "1"}, {"id": "ü"}]
    assert [r.run for r in store.results()] == ["lora-abc-def"]


def test_the_adapter_lies_beside_the_result_and_takes_no_more_room(store):
    store.write_run(result(), [])
    linked = store.run_folder("lora-abc-def") / "adapter" / "weights"
    assert linked.read_bytes() == b"x" * 1000
    before = store.bytes_used()
    store.write_run(result("lora-abc-other"), [])
    assert store.bytes_used() - before < 1000 + 6000  # the result's own text, no second adapter


def test_files_that_others_remove_meanwhile_take_no_room(store, monkeypatch):
    before = store.bytes_used()
    walk = os.walk
    monkeypatch.setattr(
        os, "walk", lambda root: ((f, d, [*names, "gone.ckpt"]) for f, d, names in walk(root))
    )
    assert store.bytes_used() == before > 0


def test_without_hard_links_the_adapter_is_copied(store, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    store.write_run(result(), [])
    assert (store.run_folder("lora-abc-def") / "adapter" / "weights").stat().st_nlink == 1


def test_a_failure_half_way_leaves_nothing(store):
    def broken():
        yield {"id": "1"}
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        store.write_run(result(), broken())
    assert store.result("lora-abc-def") is None
    assert list((store.root / "runs").iterdir()) == []


def test_writing_again_replaces(store):
    store.write_run(result(), [{"id": "1"}])
    store.write_run(result(), [{"id": "2"}])
    assert store.predictions("lora-abc-def") == [{"id": "2"}]


def test_forgetting_a_training_leaves_its_results(store):
    store.write_run(result(), [])
    store.forget("abc")
    assert store.training("abc") is None
    assert store.result("lora-abc-def") is not None


def test_text_with_separators_of_lines_survives(store):
    """U+2028 and U+0085 stand unescaped in JSON, and str.splitlines splits at them."""
    store.write_run(result(), [{"id": "1", "text": "a\u2028b\x85c"}, {"id": "2"}])
    assert [line["id"] for line in store.predictions("lora-abc-def")] == ["1", "2"]


def test_numbers_that_json_does_not_have_survive(store):
    odd = training().model_copy(update={"losses": [1.0, float("nan"), float("inf")]})
    with store.write_training(odd):
        pass
    found = store.training("abc").losses
    assert found[0] == 1.0
    assert found[1] != found[1]
    assert found[2] == float("inf")
