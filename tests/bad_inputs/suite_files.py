"""Suite files with something wrong in them, at every place of a good one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import yaml
from bad_inputs.cases import Case, Material, bomb

NAN, INF = float("nan"), float("inf")
LONG = "x" * 100_000

JUNK: tuple[Any, ...] = (5, True, NAN, [[1]], {"a": 1}, [None], 1.5)
"""Of which some are refused at any place; `_refused` says which."""


def cases(made: Material) -> Iterator[Case]:
    """Every kind of bad suite."""
    for number, (name, text) in enumerate(_texts(made)):
        path = made.written("suites", f"{number}.yaml", text)
        # A folder without the model is a failure to read, not a wrong word.
        statuses = (1, 2) if "model" in name else (2,)
        yield Case(name, made.table(suite=path), statuses)
    for name, words in _not_files(made):
        yield Case(name, words)


def _texts(made: Material) -> Iterator[tuple[str, str | bytes]]:
    good = yaml.safe_dump(made.content())
    yield from _not_yaml(good)
    for place, value in _places(made.content()):
        shown = ".".join(map(str, place))
        for junk in _refused(value):
            changed = yaml.safe_dump(_changed(made.content(), place, junk))
            yield f"suite: {shown} is {junk}", changed
        placeholder = yaml.safe_dump(_changed(made.content(), place, "PLACEHOLDER"))
        yield f"suite: {shown} is a bomb", placeholder.replace("PLACEHOLDER", bomb())
        yield f"suite: {shown} is deep", placeholder.replace("PLACEHOLDER", "[" * 3000 + "]" * 3000)
        yield f"suite: {shown} is half a surrogate", placeholder.replace("PLACEHOLDER", '"\\ud800"')
        yield f"suite: {shown} is 5,000 digits", placeholder.replace("PLACEHOLDER", "9" * 5000)
        if isinstance(value, dict):
            yield (
                f"suite: {shown} has an unknown key",
                yaml.safe_dump(_changed(made.content(), (*place, "nothing_such"), 1)),
            )
    for name, changes in _wrong(made).items():
        content = made.content()
        for key, value in changes.items():
            content = _changed(content, tuple(_step(step) for step in key.split(".")), value)
        yield f"suite: {name}", yaml.safe_dump(content)
    for key in ("name", "tasks", "profiles"):
        content = made.content()
        del content[key]
        yield f"suite: no {key}", yaml.safe_dump(content)


def _step(text: str) -> str | int:
    return int(text) if text.isdigit() else text


def _not_yaml(good: str) -> Iterator[tuple[str, str | bytes]]:
    for text in (
        "",
        "5",
        "[]",
        "- a",
        "null",
        "just words",
        "a: b: c",
        "{",
        "'",
        "\t",
        "%",
        "--- a\n--- b",
    ):
        yield f"a suite that holds {text!r}", text
    yield "a suite that is not UTF-8", b"\xff\xfe\x00name"
    yield "a suite in UTF-32", good.encode("utf-32")
    yield "a suite with a NUL", good + "\0"
    yield "a suite of a million brackets", "[" * 1_000_000
    yield "a suite of braces", "{a: " * 20_000
    yield "a suite with a Python object", good + "\nx: !!python/object/apply:os.system [id]\n"
    yield "a suite with a tag", good.replace("name:", "name: !secret")
    yield "a suite that says a thing twice", good + "\nname: other\n"
    yield "a suite that refers to itself", "name: &a [*a]"
    yield (
        "a suite with merges that grow",
        "a: &a {x: 1}\n"
        + "".join(
            f"k{n}: &k{n} {{<<: [{', '.join(['*a'] * 10)}], y{n}: {bomb(3)}}}\n" for n in range(3)
        ),
    )
    yield "a bomb alone", bomb()
    yield "a bomb as a key", f"? {bomb()}\n: 1"


def _places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Every place of a nested value, the outermost excepted."""
    if place:
        yield place, value
    if isinstance(value, (dict, list)):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _places(part, (*place, key))


def _refused(value: Any) -> Iterator[Any]:
    """Values that are of another type than a place of the good suite holds."""
    if isinstance(value, str):
        taken: tuple[type, ...] = (str,)
    elif isinstance(value, (int, float)):
        taken = (int, float)
    else:
        taken = (type(value),)
    for junk in JUNK:
        number = isinstance(junk, (int, float)) and not isinstance(junk, bool)
        if number and taken == (int, float) and junk == 5:
            continue
        if type(junk) in taken and taken not in ((int, float), (list,), (dict,)):
            continue
        yield junk


def _changed(content: Any, place: tuple[str | int, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    inner = content
    for step in place[:-1]:
        inner = inner[step] if isinstance(inner, list) else inner.setdefault(step, {})
    inner[place[-1]] = value
    return content


def _wrong(made: Material) -> dict[str, dict[str, Any]]:
    """What is wrong in words, and the changes of the good suite that make it so."""
    task = made.content()["tasks"][0]
    row = {"method": "lora", "label": "A", "settings": {"r": 2}}
    rows = "profiles.embedded.rows"
    training = "profiles.embedded.training"
    evaluation = "profiles.embedded.evaluation"
    return {
        "a path as its name": {"name": "../x"},
        "a name of 300 letters": {"name": "x" * 300},
        "a name of 100,000 letters": {"name": LONG},
        "an empty name": {"name": ""},
        "a name with a line break": {"name": "a\nb"},
        "no tasks": {"tasks": []},
        "a task twice": {"tasks": [task, task]},
        "an unknown task": {"tasks": [task, "piqua"]},
        "a task of no file": {"tasks": ["file:nowhere.csv"]},
        "a blank task": {"tasks": [""]},
        "a task of 100,000 letters": {"tasks": [LONG]},
        "no profiles": {"profiles": {}},
        "a profile that is a path": {"profiles.../up": {}},
        "no rows": {rows: []},
        "an unknown method": {rows: ["none", {"method": "loraa", "label": "A"}]},
        "a blank method": {rows: [""]},
        "a method of 100,000 letters": {rows: [LONG]},
        "two rows called A": {rows: [row, {**row, "settings": {"r": 4}}]},
        "two rows of one kind": {rows: ["lora", "lora"]},
        "labels that differ in spaces": {rows: [row, {**row, "label": "A ", "settings": {"r": 4}}]},
        "a label of 100,000 letters": {rows: [{**row, "label": LONG}]},
        "an unknown setting of a method": {rows: [{**row, "settings": {"rr": 2}}]},
        "settings that do not fit": {rows: [{"method": "quanta", "settings": {"dims": [7, 7]}}]},
        "axes of 10^9 parts": {rows: [{"method": "quanta", "settings": {"dims": [10**9, 2]}}]},
        "a rank beyond memory": {rows: [{**row, "settings": {"r": 10**12}}]},
        "relative to no row": {rows: [{**row, "relative_to": "B"}]},
        "an unknown denominator": {rows: [{**row, "denominator": "bas"}]},
        "an unknown training key of a row": {rows: [{**row, "training": {"epoch": 1}}]},
        "an unknown evaluation key of a row": {rows: [{**row, "evaluation": {"item": 1}}]},
        "a row like no other": {rows: [{"like": "nowhere", "method": "lora"}]},
        "a profile like no suite": {"profiles.embedded.like": "table99"},
        "an infinite rate": {training: {"learning_rate": INF}},
        "a rate of NaN": {training: {"learning_rate": NAN}},
        "a rate in words": {training: {"learning_rate": "fast"}},
        "yes epochs": {training: {"epochs": True}},
        "training on nothing": {training: {"tasks": []}},
        "training on a task that is not there": {training: {"tasks": ["piqua"]}},
        "training on a number": {training: {"tasks": [5]}},
        "an unknown source of data": {training: {"source": "moon"}},
        "scoring nothing": {evaluation: {"tasks": []}},
        "scoring a task of no column": {evaluation: {"tasks": ["boolq"]}},
        "scoring a task twice": {evaluation: {"tasks": [task, task]}},
        "scoring the training split": {evaluation: {"split": "train"}},
        "forgetting of no text": {evaluation: {"forgetting": "nothing"}},
        "forgetting of a choice task": {evaluation: {"forgetting": "boolq"}},
        "an unknown protocol": {evaluation: {"protocol": "chat"}},
        "a protocol that the task lacks": {training: {"protocol": "generate"}},
        "a loss that the protocol lacks": {training: {"loss": "labels"}},
        "no seeds": {"profiles.embedded.seeds": []},
        "a seed twice": {"profiles.embedded.seeds": [0, 0]},
        "a seed too large": {"profiles.embedded.seeds": [2**32]},
        "a negative seed": {"profiles.embedded.seeds": [-1]},
        "a seed of a yes": {"profiles.embedded.seeds": [True]},
        "half a seed": {"profiles.embedded.seeds": [0.5]},
        "an unknown stream": {"profiles.embedded.vary": ["luck"]},
        "nothing that varies": {"profiles.embedded.vary": []},
        "an unknown size": {"profiles.embedded.size": "huge"},
        "an unknown source of models": {"profiles.embedded.model_source": "moon"},
        "a folder of models that is not there": {
            "profiles.embedded.model_source": "local:/nowhere"
        },
        "a model that is not there": {"profiles.embedded.model": "nowhere"},
        "a model elsewhere": {"profiles.embedded.model": "../model"},
        "settings by task of a mixture": {"profiles.embedded.by_task": {task: {}}},
        "untouched of nothing": {"profiles.embedded.untouched": {"tasks": []}},
        "untouched and trained": {"profiles.embedded.untouched": {"tasks": [task]}},
        "columns of no task": {"columns": ["boolq"]},
        "a column twice": {"columns": [task, task]},
        "a metric that the task lacks": {"columns": [{"task": task, "metric": "f2"}]},
        "an average of no column": {"averages": [{"title": "A", "columns": ["boolq"]}]},
        "an average without a heading": {"averages": [{"title": ""}]},
        "a published table that is not there": {"published": "../../etc/passwd"},
        "a figure of no profile": {
            "figure": {"kind": "similarity", "modules": {"paper": ["x"]}, "pairs": {}}
        },
        "a figure of no kind": {"figure": {"kind": "pie"}},
    }


def _not_files(made: Material) -> Iterator[tuple[str, tuple[str, ...]]]:
    folder = made.root / "folder.yaml"
    folder.mkdir(exist_ok=True)
    loop = made.root / "loop.yaml"
    if not loop.is_symlink():
        loop.symlink_to(loop)
    lost = made.root / "lost.yaml"
    if not lost.is_symlink():
        lost.symlink_to(made.root / "nowhere")
    for path in (folder, loop, lost, "/dev/null.yaml", "x" * 300 + ".yaml", ".yaml"):
        for command in ("table", "tune", "figure"):
            yield f"{command} of {str(path)[-12:]!a}", (command, f"{path}")
