"""What is on disk is what was written, or it is named: hashes, forms, versions, code."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from results_by_hand import Bench, items

from quanta_bench.errors import BenchError
from quanta_bench.results import predictions, provenance
from quanta_bench.results.integrity import DamagedError, NewerSchemaError
from quanta_bench.results.records import CodeVersion, Result
from quanta_bench.results.store import Store


@pytest.fixture
def result(bench: Bench) -> Result:
    return bench.result({"boolq": items([1, 0, 1]), "piqa": items([1, 0])})


def fresh(bench: Bench) -> Store:
    """A store that has read nothing yet."""
    return Store(bench.store.root)


def edit(store: Store, run: str, old: str, new: str) -> None:
    path = store.run_folder(run) / "result.json"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_hashes_are_those_of_sha256(bench: Bench, result: Result) -> None:
    folder = bench.store.run_folder(result.run)
    text = (folder / "predictions.jsonl").read_bytes()
    assert result.predictions_sha256 == hashlib.sha256(text).hexdigest()
    data = json.loads((folder / "result.json").read_text())
    checksum = data.pop("checksum")
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    assert checksum == hashlib.sha256(canonical.encode()).hexdigest()
    spec = json.dumps(data["evaluation"], sort_keys=True, separators=(",", ":"))
    assert data["spec_sha256"] == hashlib.sha256(spec.encode()).hexdigest()
    assert fresh(bench).result(result.run) == result


def test_other_white_space_is_no_damage(bench: Bench, result: Result) -> None:
    path = bench.store.run_folder(result.run) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    assert fresh(bench).result(result.run) == result


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"accuracy": 0.5', '"accuracy": 0.99', "checksum"),
        ('"accuracy": 0.5', '"accuracy": "NaN"', "checksum"),
        ('"accuracy": 0.5', '"accuracy": NaN', "checksum"),
        ('"learning_rate": 0.5', '"learning_rate": 99.0', "checksum"),
        ('"split": "test"', '"split": "validation"', "spec"),
        ('"status": "complete"', '"status": "complete", "more": 1', "checksum"),
        ("}", "", "unreadable"),
    ],
)
def test_an_edited_record_is_refused(
    bench: Bench, result: Result, old: str, new: str, reason: str
) -> None:
    edit(bench.store, result.run, old, new)
    with pytest.raises(DamagedError) as caught:
        fresh(bench).result(result.run)
    assert caught.value.reason == reason
    assert result.run in str(caught.value)


def test_every_flipped_bit_is_noticed(bench: Bench, result: Result) -> None:
    path = bench.store.run_folder(result.run) / "predictions.jsonl"
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedError, match="predictions"):
            fresh(bench).result(result.run)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_missing_lines_are_noticed_also_without_a_hash(
    bench: Bench, result: Result, count: int
) -> None:
    folder = bench.store.run_folder(result.run)
    text = (folder / "predictions.jsonl").read_bytes()
    some = b"".join(text.splitlines(keepends=True)[:count])
    unhashed = result.model_copy(update={"predictions_sha256": ""})
    with pytest.raises(DamagedError, match="items of"):
        predictions.item_scores(some, folder, unhashed)
    assert len(predictions.item_scores(text, folder, unhashed)["boolq"].ids) == 3


def test_compressed_predictions_are_the_same_predictions(bench: Bench, result: Result) -> None:
    folder = bench.store.run_folder(result.run)
    plain = fresh(bench).predictions(result.run)
    text = (folder / "predictions.jsonl").read_bytes()
    (folder / "predictions.jsonl").unlink()
    (folder / "predictions.jsonl.gz").write_bytes(gzip.compress(text))
    store = fresh(bench)
    assert store.result(result.run) == result
    assert store.predictions(result.run) == plain
    (folder / "predictions.jsonl.gz").write_bytes(gzip.compress(text)[:-20])
    with pytest.raises(DamagedError, match="gzip"):
        fresh(bench).result(result.run)


def test_missing_predictions_are_missing_and_no_damage(bench: Bench, result: Result) -> None:
    (bench.store.run_folder(result.run) / "predictions.jsonl").unlink()
    store = fresh(bench)
    assert store.result(result.run) == result
    assert store.predictions(result.run) is None
    assert store.item_scores(result.run) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_json_does_not_have_is_not_stored(
    bench: Bench, result: Result, value: float
) -> None:
    line = {"task": "boolq", "id": "7", "group": "g", "log_likelihoods": [0.0, value]}
    with pytest.raises(BenchError, match="Item 7 of boolq"):
        bench.store.write_run(result.model_copy(update={"run": "other"}), [line])
    assert fresh(bench).result("other") is None


def test_a_newer_record_is_named_and_left(bench: Bench, result: Result) -> None:
    edit(bench.store, result.run, '"schema_version": 2', '"schema_version": 3')
    store = fresh(bench)
    with pytest.raises(NewerSchemaError, match="later version of quanta-bench"):
        store.result(result.run)
    assert list(store.results()) == []
    assert "later version" in store.notices[0]


def test_a_copy_under_another_name_is_refused(bench: Bench, result: Result) -> None:
    folder = bench.store.run_folder(result.run)
    folder.rename(folder.with_name("lora-000000000000-000000000000"))
    with pytest.raises(DamagedError, match="it is the run"):
        fresh(bench).result("lora-000000000000-000000000000")


def test_one_damaged_run_and_a_foreign_folder_leave_the_others(
    bench: Bench, result: Result
) -> None:
    other = bench.result({"boolq": items([1, 0, 1]), "piqa": items([1, 0])})
    edit(bench.store, result.run, '"accuracy": 0.5', '"accuracy": 0.9')
    foreign = bench.store.root / "runs" / "foo"
    foreign.mkdir()
    (foreign / "result.json").write_text("{}")
    store = fresh(bench)
    assert [one.run for one in store.results()] == [other.run]
    assert len(store.notices) == 2


def test_what_is_set_aside_is_kept(bench: Bench, result: Result) -> None:
    store = bench.store
    for expected in ("checksum", "checksum-2"):
        folder = store.run_folder(result.run)
        content = (folder / "result.json").read_bytes()
        store.set_aside(folder, DamagedError(folder, "checksum", "changed"))
        aside = store.root / "set-aside" / f"{result.run}-{expected}"
        assert (aside / "result.json").read_bytes() == content
        assert store.result(result.run) is None
        assert str(aside) in store.notices[-1]
        store.write_run(result, [])
    gone = store.run_folder("nothing")
    store.set_aside(gone, DamagedError(gone, "checksum", "another process was faster"))


def test_a_changed_file_is_read_again_and_no_other(bench: Bench, result: Result) -> None:
    store = fresh(bench)
    assert store.result(result.run) is store.result(result.run)
    assert store.item_scores(result.run) is store.item_scores(result.run)
    edit(bench.store, result.run, '"accuracy": 0.5', '"accuracy": 0.99')
    with pytest.raises(DamagedError):
        store.result(result.run)


def test_records_of_version_1_load_and_are_stale(tmp_path: Path) -> None:
    record = Path(__file__).with_name("record_version_1.json")
    name = json.loads(record.read_bytes())["run"]
    path = tmp_path / "runs" / name / "result.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(record.read_bytes())
    result = Store(tmp_path).result(name)
    assert result is not None
    assert result.schema_version == 1
    assert provenance.stale(result) == ["its code was not recorded"]


# --- code -------------------------------------------------------------------------------------


PLUGIN = {
    "__init__": "",
    "a": "from plug import b\nX = 1\n",
    "b": "def f():\n    return 1\n",
    "other": "Y = 2\n",
}


def plugin_hash(root: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    (root / "plug").mkdir(parents=True)
    for name, text in files.items():
        (root / "plug" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(root))
    provenance._top_level.cache_clear()
    provenance.source_hash.cache_clear()
    return provenance.source_hash("plug.a")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"a": 'from plug import b\n\n\nX = 1  # why\n"""What."""\n'}, True),
        ({"a": "from plug import b\nX = 2\n"}, False),
        ({"b": "def f():\n    'Doc.'\n    return 1\n"}, True),
        ({"b": "def f():\n    return '# 1'\n"}, False),
        ({"other": "Y = 3\n"}, True),
        ({"__init__": "from plug import other\n"}, False),
    ],
)
def test_the_hash_of_a_plug_in_changes_with_its_code_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], same: bool
) -> None:
    """Its own module and what that imports; not comments, docstrings or other modules."""
    before = plugin_hash(tmp_path / "1", PLUGIN, monkeypatch)
    after = plugin_hash(tmp_path / "2", {**PLUGIN, **change}, monkeypatch)
    provenance._top_level.cache_clear()
    assert (before == after) is same


def test_bare_source_keeps_hashes_in_strings_and_drops_comments() -> None:
    text = 'def f():\n    """Doc."""\n    # why\n    return "# no comment"  # but this\n'
    assert provenance.bare_source(text) == 'def f():\n    return "# no comment"'


def test_a_result_is_stale_where_code_differs_and_only_then(result: Result) -> None:
    assert provenance.stale(result) == []
    other = CodeVersion(version=1, source="0" * 64)
    method = {**result.training.code, "method:lora": other}
    training = result.training.model_copy(update={"code": method})
    changed = result.model_copy(update={"training": training})
    assert provenance.stale(changed) == ["the method lora has changed"]
    task = result.model_copy(update={"code": {**result.code, "task:piqa": other}})
    assert provenance.stale(task) == ["the task piqa has changed"]
    suite = result.model_copy(update={"code": {**result.code, "suite": other}})
    assert provenance.stale(suite) == ["the suite has changed"]
