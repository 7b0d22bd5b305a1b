"""A mapping in YAML: which items it makes of rows, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT

from quanta_bench.sources.rows import KeptRows, LocalData
from quanta_bench.task import HubRows, MissingDataError, Prompt, UsageError
from quanta_bench.testing.tasks import TaskBattery
from tasks import mapping
from tasks.jsonl import UserFile
from tasks.metrics import CHOICE_METRICS, TEXT_METRICS

SPLITS = ("train", "validation", "test")
REVIEWS = [{"text": f"film {n}", "label": n % 2, "tags": ["bad", "good"]} for n in range(30)]
CHOICE = (
    "data: rows.jsonl\nprompt: 'Review: {{ text }}'\nchoices: [bad, good]\nanswer: '{{ label }}'\n"
)
TARGET = "data: rows.jsonl\nprompt: '{{ text }}'\ntarget: '{{ label }}'\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, REVIEWS)))
    return tmp_path


def make(folder: Path, text: str) -> UserFile:
    path = folder / "mine.yaml"
    path.write_text(text)
    return UserFile(str(path))


def items(task: UserFile, folder: Path, split: Any = "test") -> list[Any]:
    return task.examples(KeptRows(LocalData(folder)), split)


@pytest.mark.parametrize(
    ("choices", "answer"),
    [
        ("[bad, good]", "'{{ label }}'"),
        ("tags", "'{{ tags[label] }}'"),
        ("'{{ tags }}'", "'{{ tags[label] }}'"),
        ("['{{ tags[0] }}', '{{ tags[1] }}']", "\"{{ 'good' if label else 'bad' }}\""),
    ],
)
def test_choices_and_answer(folder: Path, choices: str, answer: str) -> None:
    task = make(
        folder,
        "data: rows.jsonl\nprompt: 'Review: {{ text }}'\n"
        f"choices: {choices}\nanswer: {answer}\n",
    )
    assert (task.kind, task.protocols, task.metric) == ("choice", ("choice-text",), "accuracy")
    found = [item for split in SPLITS for item in items(task, folder, split)]
    assert sorted(item.gold for item in found) == [0] * 15 + [1] * 15
    number = int(found[0].fields["prompt"].split()[-1])
    expected = Prompt(f"Review: film {number}", (" bad", " good"), (" bad", " good")[number % 2])
    assert task.prompt(found[0], "choice-text") == expected


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("two\\nlines\\n", "two\nlines\n"),
        ("with {# a comment #}words", "with words"),
        ("{{ '{{' }} braces", "{{ braces"),
        ("{% raw %}{{ text }}{% endraw %}", "{{ text }}"),
        ("{% set x = 2 %}{{ x }} times", "2 times"),
        ("{% if label %}one{% else %}other{% endif %}", "one"),
        ("", ""),
    ],
)
def test_a_template_is_filled_as_jinja_fills_it(folder: Path, template: str, text: str) -> None:
    """Also one that is the same in every row, and is filled once."""
    from jinja2.sandbox import SandboxedEnvironment

    made = mapping._compile(template.replace("\\n", "\n"), expression=False)
    row = {"text": "film", "label": 1}
    reference = SandboxedEnvironment(keep_trailing_newline=True)
    assert made(row) == text
    assert made(row) == reference.from_string(template.replace("\\n", "\n")).render(row)


def test_the_cells_of_csv_and_several_targets(folder: Path) -> None:
    (folder / "rows.csv").write_text("q,a,options\n1+1,2,2|3\n2+2,4,4|5\n3+3,6,6|7\n")
    task = make(
        folder,
        "data: rows.csv\nprompt: '{{ q }}'\nchoices: options\nanswer: '{{ a }}'\nsplit: test\n",
    )
    assert [item.fields["choices"] for item in items(task, folder)] == [
        ("2", "3"), ("4", "5"), ("6", "7"),
    ]  # fmt: skip
    several = make(
        folder,
        "data: rows.csv\nprompt: '{{ q }}='\ntarget: ['{{ a }}', '{{ a }}.0']\nsplit: test\n"
        "metric: number\nmax_new_tokens: 7\n",
    )
    found = items(several, folder)[0]
    assert (several.kind, several.metric, several.max_new_tokens) == ("generate", "number", 7)
    assert found.references == ("2", "2.0")
    assert several.judge_text(found, "it is 2").scores == {"number": 1.0}
    assert several.judge_text(found, "it is 3").scores == {"number": 0.0}


def test_a_file_for_each_split(folder: Path) -> None:
    for name, rows in (("a", REVIEWS[:20]), ("b", REVIEWS[20:])):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = CHOICE.replace("rows.jsonl", "{train: a.jsonl, test: b.jsonl}")
    task = make(folder, text)
    found = {split: items(task, folder, split) for split in SPLITS}
    assert [item.id for item in found["test"]] == [f"file/test/{n}" for n in range(10)]
    assert len(found["train"]) + len(found["validation"]) == 20
    assert found["validation"]
    only = make(folder, CHOICE.replace("rows.jsonl", "{test: b.jsonl}"))
    assert len(items(only, folder)) == 10
    with pytest.raises(MissingDataError, match="no data of the train split"):
        items(only, folder, "train")


def test_data_on_the_hub_are_read_from_the_runs_source(folder: Path, stub: Any) -> None:
    hub = "{hub: me/films, config: small, revision: v1, splits: {train: train, test: validation}}"
    task = make(folder, CHOICE.replace("rows.jsonl", hub))
    assert task.reads_source
    assert not make(folder, CHOICE).reads_source
    task = make(folder, CHOICE.replace("rows.jsonl", hub))
    rows = {HubRows("me/films", "small", name, "v1"): REVIEWS for name in ("train", "validation")}
    assert len(task.examples(stub("hub", rows), "test")) == 30


def test_a_changed_mapping_is_another_task(folder: Path) -> None:
    version = make(folder, CHOICE).template_version
    assert make(folder, f"title: Films\n{CHOICE}").template_version == version
    assert make(folder, CHOICE.replace("Review", "Film")).template_version != version
    one, other = (make(folder, f"{TARGET}metric: {m}\n") for m in ("f1", "contains"))
    assert one.template_version != other.template_version


REFUSED = [
    (CHOICE.replace("prompt", "promt"), "unknown key 'promt'. Did you mean 'prompt'"),
    (
        CHOICE.replace("{{ text }}", "{{ txt }}"),
        "rows.jsonl, line 1.*'txt' is undefined. Did you mean 'text'",
    ),
    (CHOICE.replace("{{ text }}", "{{ text"), "'prompt' is no template"),
    (CHOICE.replace("'{{ label }}'", "label"), 'plain word .label.*write "{{ label }}"'),
    (CHOICE.replace("'{{ label }}'", "'{{ text }}'"), "'answer' is 'film 0', which is neither"),
    (CHOICE.replace("[bad, good]", "[no, yes]"), "YAML reads yes, no"),
    (CHOICE.replace("[bad, good]", "tag"), "'tag' is undefined. Did you mean 'tags'"),
    (CHOICE + "target: x\n", "either choices and answer, or target"),
    (CHOICE + "metric: f1\n", "no metric 'f1'. Known: accuracy, f1_macro, matthews"),
    (CHOICE.replace("[bad, good]", "tags") + "metric: matthews\n", "needs the same choices"),
    (TARGET + "metric: rouge\n", "Here it is called 'rouge_l'"),
    (TARGET + "metric: bertscore\n", "scripts that it downloads and runs, which is never done"),
    (TARGET + "metric: acuracy\n", "no metric 'acuracy'. Did you mean 'accuracy'"),
    (TARGET.replace("rows.jsonl", "row.jsonl"), "There is no file .*row.jsonl"),
    (TARGET.replace("rows.jsonl", "{trian: rows.jsonl}"), "'trian'. Did you mean 'train'"),
    (TARGET.replace("rows.jsonl", "{hub: x, revison: y}"), "revison"),
    (TARGET.replace("'{{ label }}'", "'{{ label.__class__.__mro__ }}'"), "cannot be filled"),
    (TARGET.replace("'{{ label }}'", "'{{ 1 // 0 }}'"), "cannot be filled: .*zero"),
    (TARGET + "split: '{{ text }}'\n", "'split' is 'film 0'"),
    ("- a\n", "is no mapping"),
    ("a: [\n", "cannot be read as a mapping"),
    ("prompt: x\ntarget: y\n", "data: Field required"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_mapping_that_does_not_fit_is_refused(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.compile(message, re.DOTALL)):
        make(folder, text)


@pytest.mark.parametrize(
    ("metric", "answer", "reference", "score"),
    [
        ("accuracy", " PARIS", "Paris", 1),
        ("accuracy", "Paris!", "Paris", 0),
        ("contains", "It is New  Delhi.", "new delhi", 1),
        ("contains", "Romeo", "Rome", 0),
        ("number", "so 1,200 apples", "1200", 1),
        ("number", "12 and 13", "12", 0),
        ("number", "none", "12", 0),
        ("f1", "the cat sat", "the cat", 0.8),  # precision 2/3, recall 1
        ("f1", "the the", "the cat", 0.5),
        ("f1", "dog", "cat", 0),
    ],
)
def test_metrics(metric: str, answer: str, reference: str, score: float) -> None:
    assert TEXT_METRICS[metric](answer, reference) == pytest.approx(score)


TEXTS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat"]), max_size=9).map(" ".join)


@given(TEXTS, TEXTS)
def test_rouge_l_is_that_of_rouge_score(answer: str, reference: str) -> None:
    """The library that `evaluate` calls for its metric rouge."""
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(["rougeL"], use_stemmer=False).score(reference, answer)["rougeL"].fmeasure
    assert TEXT_METRICS["rouge_l"](answer, reference) == pytest.approx(theirs)


@pytest.mark.parametrize("metric", ["f1_macro", "matthews"])
def test_metrics_of_all_choices(folder: Path, metric: str) -> None:
    task = make(folder, CHOICE + f"metric: {metric}\n")
    found = [item for split in SPLITS for item in items(task, folder, split)]
    wrong = [task.judge_choice(item, 1) for item in found]
    assert (task.metric, task.metrics) == (metric, (metric, "accuracy"))
    # By hand: half of the items are "good". Always answering so has precision 1/2 and recall 1 for
    # it, F1 2/3, and 0 for the other.
    by_hand = {"f1_macro": (2 / 3 + 0) / 2, "matthews": 0.0}[metric]
    assert task.aggregate(wrong) == pytest.approx({"accuracy": 0.5, metric: by_hand})
    right = [task.judge_choice(item, item.gold) for item in found]
    assert task.aggregate(right) == pytest.approx({"accuracy": 1.0, metric: 1.0})
    assert CHOICE_METRICS[metric] is not None


# --- the walk through in the documentation --------------------------------------------------------

PAGE = (ROOT / "docs" / "data-and-models.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walk")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def test_the_page_counts_the_items_of_its_own_data(walk: Path) -> None:
    task = UserFile(str(walk / "capitals.yaml"))
    found = {split: items(task, walk, split) for split in SPLITS}
    assert ", ".join(f"{len(own)} {split}" for split, own in found.items()) + " items" in PAGE
    item = found["test"][0]
    assert task.prompt(item, "choice-text").context.startswith("Question: What is the capital of ")
    assert task.title == "Capitals"


@pytest.mark.parametrize("name", ["capitals.yaml", "generate.yaml"])
def test_the_pages_mappings_pass_the_battery(walk: Path, name: str) -> None:
    values = {"task": UserFile, "source": f"local:{walk}", "argument": str(walk / name)}
    battery = type("Battery", (TaskBattery,), values)()
    for test in ("every_split_has_items", "ids_are_unique", "groups_stay_on_one_side_of_a_split",
                 "prompts_are_text_and_answer", "right_answer"):  # fmt: skip
        (method,) = (getattr(battery, own) for own in dir(battery) if test in own)
        method()
