"""From a YAML file and a user's words to jobs, and what is said of words that are off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_suite import ROWS_BY_SIZE, SMALL

from quanta_bench.errors import UsageError
from quanta_bench.plugins import METHODS
from quanta_bench.runs.identity import normal_form
from quanta_bench.spec import ModelSpec, Seeds
from quanta_bench.suites.choice import Choice, parse_settings
from quanta_bench.suites.grid import GridRow, grid
from quanta_bench.suites.loading import check_tasks, load_suite, pick_profile, shipped
from quanta_bench.suites.schema import Suite


def labels(rows: list[GridRow]) -> list[str]:
    return [row.spec.label for row in rows]


def methods(rows: list[GridRow]) -> list[str]:
    return [row.spec.method for row in rows]


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("of", ["name", "number", "path"])
def test_shipped_suites_load_by_name_number_and_path(name: str, of: str) -> None:
    words = {"name": name, "number": name.removeprefix("table"), "path": str(shipped()[name])}
    suite = load_suite(words[of])
    assert suite.name == name
    for profile in suite.profiles:
        assert grid(suite, profile)


def test_an_unknown_table_names_the_near_ones_and_the_way_to_ones_own() -> None:
    with pytest.raises(UsageError, match=r"no table 'tabel3'\. Did you mean 'table3'.*\.yaml"):
        load_suite("tabel3")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no file .*none\.yaml"):
        load_suite(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "is not YAML: while parsing"),
        ("name: x", "at tasks: Field required"),
        ("- 1", "at the file: Input should be"),
        (
            SMALL.replace("title", "titel"),
            "at titel: There is no such key. Did you mean 'title'?",
        ),
        (SMALL.replace("tasks:", "task:"), "at task: There is no such key. Did you mean 'tasks'"),
        (
            SMALL.replace("seeds: [4", "sede: [4"),
            "at profiles.embedded.sede: There is no such key.",
        ),
        (
            SMALL.replace("label:", "labl:"),
            "at profiles.embedded.rows.1.labl: There is no such key. Did you mean 'label'?",
        ),
        (
            SMALL.replace("    rows:", "    lik: table3\n    rows:"),
            "at profiles.embedded.lik: There is no such key. Did you mean 'like'",
        ),
        (
            f"{SMALL}\ncolumns: [{{task: boolq, titel: x}}]",
            "columns.0.titel: There is no such key.",
        ),
        (SMALL.replace("[4, 5]", "[a]"), "at profiles.embedded.seeds.0: Input should be a valid"),
        (SMALL.split("\n      - none")[0] + " 3", "at profiles.embedded.rows"),
    ],
)
def test_a_bad_file_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_suite(str(path))
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


# --- the grid ---------------------------------------------------------------------------------


def test_a_row_takes_what_it_leaves_out_from_size_profile_and_method(mine: Suite) -> None:
    base, row = grid(mine, "embedded")
    (training, evaluation), second = row.jobs
    default = METHODS.get("lora").rows["embedded"]
    assert row.spec.label == "mine"
    assert training.settings == {"r": 2}  # its own point, not the default row's
    assert training.epochs == 4
    assert training.batch_size == 2
    assert training.train_items == 3
    # The method's own learning rate comes before the profile's.
    assert training.learning_rate == default.training["learning_rate"] != 0.5
    assert training.tasks == evaluation.tasks == ("boolq", "piqa")
    assert evaluation.items == 7
    assert row.seeds == (4, 5)
    assert training.seeds == Seeds(init=4, order=4, sample=0)
    assert second[0].seeds == Seeds(init=5, order=5, sample=0)
    assert row.origin["batch_size"] == "a guess"
    assert row.origin["r"] == "a wish"
    assert base.spec.label == "Base model"


def test_a_method_with_nothing_to_train_has_one_job_and_one_name(mine: Suite) -> None:
    base, row = grid(mine, "embedded")
    assert len(base.jobs) == 1
    assert base.seeds == (4,)
    other = grid(mine, "embedded", Choice(seeds=(9,), settings={"training.epochs": 3}))[0]
    # Neither seed nor training settings matter to it.
    assert normal_form(base.jobs[0][0])[0] == normal_form(other.jobs[0][0])[0]
    assert normal_form(row.jobs[0][0])[0] != normal_form(row.jobs[1][0])[0]


def test_sizes(mine: Suite) -> None:
    row = grid(mine, "embedded", Choice(size="huge"))[1]
    assert row.seeds == (6,)
    assert row.jobs[0][0].train_items == 999
    assert row.jobs[0][0].batch_size == 9
    assert grid(mine, "embedded", Choice(size="huge", seeds=(0, 1)))[1].seeds == (0, 1)


def test_a_size_has_rows_in_place_of_the_profiles(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ROWS_BY_SIZE)
    suite = load_suite(str(path))
    tiny, huge = (grid(suite, "embedded", Choice(size=size)) for size in ("", "huge"))
    assert [row.spec.method for row in tiny] == ["none", "lora"]
    assert [row.spec.method for row in huge] == ["dora", "lora"]
    default = METHODS.get("lora").rows["embedded"].training["learning_rate"]
    assert [row.jobs[0][0].learning_rate for row in (tiny[1], huge[1])] == [default, 0.25]


def test_overrides_come_last(mine: Suite) -> None:
    settings = {"training.epochs": 7, "evaluation.items": 1, "training.learning_rate": 0.25}
    training, evaluation = grid(mine, "embedded", Choice(settings=settings))[1].jobs[0]
    assert (training.epochs, training.learning_rate, evaluation.items) == (7, 0.25, 1)


def test_source_and_model_replace_every_rows(mine: Suite) -> None:
    choice = Choice(model="local:/m", source="local:/d")
    for row in grid(mine, "embedded", choice):
        assert row.model == ModelSpec(name=".", source="local:/m")
        for training, evaluation in row.jobs:
            assert training.model == row.model
            assert training.source == evaluation.source == "local:/d"
    paper = grid(load_suite("3"), "paper", Choice(model="llama2-7b"))
    assert {row.model for row in paper} == {
        ModelSpec(name="meta-llama/Llama-2-7b-hf", source="hub")
    }


def test_methods_select_in_the_suites_order_and_add(mine: Suite) -> None:
    def chosen(*words: str, **more: Any) -> list[str]:
        return methods(grid(mine, "embedded", Choice(methods=words, **more)))

    assert chosen() == ["none", "lora"]
    assert chosen("lora") == ["lora"]
    assert chosen("lora", "none") == ["none", "lora"]
    assert chosen("+quanta") == ["none", "lora", "quanta"]
    assert chosen("lora", "+quanta") == ["lora", "quanta"]
    # A method that the suite has no row of is added by its plain name too.
    assert chosen("quanta") == ["quanta"]
    assert chosen("+lora") == ["none", "lora"]
    every = chosen(all_rows=True)
    assert every[:2] == ["none", "lora"]
    assert sorted(every) == sorted(n for n in METHODS if "embedded" in METHODS.get(n).rows)


def test_an_added_row_is_the_methods_default_row(mine: Suite) -> None:
    row = grid(mine, "embedded", Choice(methods=("+quanta",)))[2]
    default = METHODS.get("quanta").rows["embedded"]
    assert row.spec.label == default.label
    assert row.spec.settings == dict(default.config)
    assert row.jobs[0][0].learning_rate == default.training["learning_rate"]


def test_one_method_in_many_rows_is_kept_whole() -> None:
    rows = grid(load_suite("3"), "paper", Choice(methods=("dora",)))
    assert set(methods(rows)) == {"dora"}
    assert len(rows) == 8


def test_a_suite_with_an_unknown_method_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "typo.yaml"
    path.write_text(SMALL.replace("- none", "- loraa"))
    with pytest.raises(UsageError, match=r"the method 'loraa', which is not .* 'lora'"):
        grid(load_suite(str(path)), "embedded")


def test_rows_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(
        SMALL.replace("- none", "- {method: none, label: A}\n      - {method: full, label: A}")
    )
    with pytest.raises(UsageError, match="several rows called 'A'"):
        grid(load_suite(str(path)), "embedded")


@pytest.mark.parametrize("seeds", [(2**32,), (-1,), (0, 0), (99999999999,)])
def test_seeds_out_of_range_or_twice_are_refused(mine: Suite, seeds: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="Seeds must be distinct integers from 0 to 4294967295"):
        grid(mine, "embedded", Choice(seeds=seeds))


def test_the_base_is_scored_on_the_items_of_every_seed(mine: Suite) -> None:
    def drawn(choice: Choice) -> list[list[tuple[int, int]]]:
        rows = grid(mine, "embedded", choice)
        return [[(t.seeds.sample, scored.sample) for t, scored in row.jobs] for row in rows]

    assert drawn(Choice()) == [[(0, 0)], [(0, 0), (0, 0)]]
    assert drawn(Choice(vary=("init", "sample"))) == [[(4, 4), (5, 5)]] * 2


def test_a_stream_that_no_seed_can_vary_is_refused(mine: Suite) -> None:
    with pytest.raises(UsageError, match=r"A seed cannot vary 'samples'\. Did you mean 'sample'"):
        grid(mine, "embedded", Choice(vary=("samples",)))


def test_a_broken_plug_in_is_a_row_with_the_reason_where_all_are_asked_for(
    mine: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    usable, _ = METHODS.usable()
    monkeypatch.setattr(METHODS, "usable", lambda: (usable, {"boom": "it cannot be imported."}))
    *others, boom = grid(mine, "embedded", Choice(all_rows=True))
    assert (boom.spec.method, boom.missing, boom.jobs) == ("boom", "it cannot be imported", ())
    assert all(row.jobs for row in others)


# --- words that are off -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice(methods=("quanat",)), "no method called 'quanat'. Did you mean 'quanta'?"),
        (Choice(methods=("+quanat",)), "no method called 'quanat'. Did you mean 'quanta'?"),
        (Choice(size="hug"), "mine has no size 'hug'. Did you mean 'huge'?"),
        (
            Choice(settings={"epochs": 1}),
            "write training.epochs, evaluation.epochs or METHOD.epochs",
        ),
        (Choice(settings={"train.epochs": 1}), "no row has the method 'train'. Did you mean"),
        (
            Choice(settings={"training.epoch": 1}),
            "There is no setting 'epoch'. Did you mean 'epochs'?",
        ),
        (
            Choice(settings={"evaluation.item": 1}),
            "There is no setting 'item'. Did you mean 'items'?",
        ),
        (Choice(settings={"training.epochs": 0}), "epochs: Input should be greater than or equal"),
        (Choice(settings={"training.epochs": "many"}), "epochs: Input should be a valid integer"),
    ],
)
def test_wrong_words(mine: Suite, choice: Choice, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        grid(mine, "embedded", choice)
    assert said in str(caught.value)


def test_an_unknown_profile(mine: Suite) -> None:
    with pytest.raises(
        UsageError, match=r"mine has no profile 'embeded'\. Did you mean 'embedded'"
    ):
        grid(mine, "embeded")
    with pytest.raises(UsageError, match=r"mine has no profile 'paper'\. Known: embedded"):
        pick_profile(mine, "paper")


def test_a_method_without_a_default_row_in_the_profile(mine: Suite) -> None:
    with pytest.raises(UsageError, match="'peft' has no default row in the profile 'paper'"):
        grid(load_suite("3"), "paper", Choice(methods=("+peft",)))


def test_an_unknown_key_of_a_rows_training(tmp_path: Path) -> None:
    path = tmp_path / "typo.yaml"
    path.write_text(SMALL.replace("epochs: 4", "epoch: 4"))
    with pytest.raises(UsageError, match=r"no setting 'epoch'\. Did you mean 'epochs'"):
        grid(load_suite(str(path)), "embedded")


# --- settings as words ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("r=8", 8),
        ("x=0.5", 0.5),
        ("x=1e-3", 1e-3),
        ("x=1.0e-3", 1e-3),
        ("x=-2E5", -2e5),
        ("x=true", True),
        ("x=null", None),
        ("x=", None),
        ("evaluation.forgetting=", ""),
        ("evaluation.forgetting=''", ""),
        ("evaluation.items=", None),
        ("training.epoch=", None),
        ("x=[q_proj, v_proj]", ["q_proj", "v_proj"]),
        ("x=q_proj,v_proj", ["q_proj", "v_proj"]),
        ("x=6,6,4,4", [6, 6, 4, 4]),
        ("x=all-linear", "all-linear"),
        ("x='a,b'", "a,b"),
        ("x={a: 1}", {"a": 1}),
        ("x=a=b", "a=b"),
    ],
)
def test_values_are_read_as_yaml(word: str, value: Any) -> None:
    (found,) = parse_settings([word]).values()
    assert found == value
    assert type(found) is type(value)


def test_a_later_word_wins() -> None:
    assert parse_settings(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}


@pytest.mark.parametrize("word", ["r", "=8", ""])
def test_a_word_without_a_name_or_a_value(word: str) -> None:
    with pytest.raises(UsageError, match="is not of the form name=value"):
        parse_settings([word])


def test_a_value_that_is_not_yaml() -> None:
    with pytest.raises(UsageError, match=r"'x=\[1' is not valid YAML"):
        parse_settings(["x=[1"])


def test_numbers_in_lists_are_numbers():
    assert parse_settings(["x=1e-3,1e-4"]) == {"x": [1e-3, 1e-4]}
    assert parse_settings(["x=[1e-3, {y: 2e-3}]"]) == {"x": [1e-3, {"y": 2e-3}]}
    assert parse_settings(["x=q_proj,v_proj"]) == {"x": ["q_proj", "v_proj"]}


@pytest.mark.parametrize("seeds", [(0, 0), (-1,)])
def test_seeds_are_distinct_and_not_negative(seeds):
    suite = load_suite("table3")
    with pytest.raises(UsageError, match="Seeds must be distinct integers"):
        grid(suite, "embedded", Choice(seeds=seeds))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: ../../evil\ntasks: [boolq]\nprofiles: {embedded: {rows: [none]}}", "at name"),
        ("name: mine\ntasks: []\nprofiles: {embedded: {rows: [none]}}", "at tasks"),
    ],
)
def test_a_suite_cannot_write_elsewhere_or_be_empty(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_suite(str(path))


def test_a_suite_with_an_unknown_task_is_refused_before_anything_runs(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntasks: [bolq]\nprofiles: {embedded: {rows: [none]}}")
    with pytest.raises(UsageError, match="Did you mean 'boolq'"):
        check_tasks(load_suite(str(path)))


def test_a_shipped_suite_names_every_task_that_is_not_there_in_one_sentence():
    suite = load_suite("table3")
    check_tasks(suite)
    trained = suite.profiles["paper"].model_copy(update={"training": {"tasks": ["trained"]}})
    later = suite.model_copy(
        update={"tasks": ("boolq", "first", "second:x"), "profiles": {"paper": trained}}
    )
    with pytest.raises(UsageError) as caught:
        check_tasks(later)
    assert str(caught.value) == (
        "table3 cannot be computed yet: the tasks first, second:x, trained are not available in "
        "this version."
    )
    assert grid(later, "paper")  # its plan can be made all the same


def test_a_share_relative_to_a_row_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "relative.yaml"
    path.write_text(SMALL.replace("label: mine", "label: mine, relative_to: yours"))
    with pytest.raises(UsageError, match="relative to a row 'yours' on smollm2-135m"):
        grid(load_suite(str(path)), "embedded")


def test_a_suite_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        load_suite(str(path))
