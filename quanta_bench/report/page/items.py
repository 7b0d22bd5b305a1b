"""The item browser's data: prompts, choices, right answers, and what each run answered.

Answers are those that runs stored. Prompts are not stored; they are rebuilt from the data where
these are at hand and unchanged, without a model and without a network, or taken from Table H.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quanta_bench.data.chat import prompts_of, uses_chat
from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.models.loading import ModelRef
from quanta_bench.plugins import find_protocol, find_task
from quanta_bench.report.page.stored import Folder
from quanta_bench.report.prompts import tokenizer_of
from quanta_bench.report.samples import Samples
from quanta_bench.results.integrity import DamagedError
from quanta_bench.results.records import Result
from quanta_bench.sources.names import Kind
from quanta_bench.spec import EvaluationSpec

ITEMS = 200
"""Items of a task that are embedded, unless all are asked for."""
RUNS = 60
"""Runs whose answers are embedded for a task, likewise."""
CHARACTERS = 2000
"""Of a text; longer ones are shortened in the middle, likewise."""

_SHOWN = {"task", "id", "group", "prediction", "gold", "tied", "text"}
_EVIDENCE = {"log_likelihoods", "tokens", "bytes", "outputs"}
_OFFLINE: tuple[Kind, ...] = ("embedded", "local")


@dataclass(frozen=True)
class Content:
    """What an item says.

    Attributes:
        prompt: its context; long ones may have been cut before the model read them.
        choices: its candidates, if it has any.
    """

    prompt: str
    choices: tuple[str, ...] = ()


@dataclass
class Contents:
    """The items of a task.

    Attributes:
        by_id: what is known of each.
        note: why something is not, or where it comes from.
    """

    by_id: dict[str, Content] = field(default_factory=dict)
    note: str = ""


@dataclass
class Browser:
    """The item browser's data.

    Attributes:
        groups: by task and the way items were put: ``title``, ``note``, ``runs`` (label, seed,
            draw of the items, run, model) and ``items`` (id, group, gold, prompt, choices, and
            ``answers`` in the order of the runs: prediction, score, and the generated text or the
            candidates that tie; ``None`` if a run was not asked).
        note: which runs have no items, and why.
        left_out: what was left out to bound the page's size.
    """

    groups: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Group:
    """Runs that put the same items in the same way."""

    task: str
    source: str
    split: str
    protocol: str
    chat: bool

    @classmethod
    def of(cls, task: str, spec: EvaluationSpec) -> _Group:
        return cls(task, spec.source, spec.split, spec.protocol, spec.chat_template)


def item_browser(folder: Folder, *, full: bool) -> Browser:
    """The judged items of a folder's runs. Predictions that cannot be read become notices.

    Args:
        folder: the folder.
        full: embed every item, run and character.
    """
    judged: dict[_Group, dict[str, list[dict[str, Any]]]] = {}
    made = Browser()
    missing = 0
    for run, result in folder.results.items():
        try:
            lines = folder.store.predictions(run)
        except DamagedError as error:
            folder.notices.append(f"Not read: {error}")
            continue
        missing += lines is None
        for line in lines or ():
            if line.get("task") in result.tasks and "id" in line:
                group = _Group.of(line["task"], result.evaluation)
                judged.setdefault(group, {}).setdefault(run, []).append(line)
    if missing:
        made.note = (
            f"{missing:,} of {len(folder.results):,} runs have no predictions stored, so their "
            "items cannot be shown."
        )
    pools = Pools()
    for group, by_run in judged.items():
        results = [folder.results[run] for run in by_run]
        contents = _contents(group, results, folder.samples, pools)
        browsed, omitted = _browse(group, by_run, folder.results, contents, full=full)
        made.groups.append(browsed)
        made.left_out += omitted
    titles = [browsed["title"] for browsed in made.groups]
    for browsed, group in zip(made.groups, judged, strict=True):
        if titles.count(browsed["title"]) > 1:
            chat = " in the chat template" if group.chat else ""
            browsed["title"] += f" ({group.protocol}{chat}, {group.source}, {group.split})"
    return made


def _browse(
    group: _Group,
    by_run: Mapping[str, Sequence[Mapping[str, Any]]],
    results: Mapping[str, Result],
    contents: Contents,
    *,
    full: bool,
) -> tuple[dict[str, Any], list[str]]:
    runs = sorted(by_run, key=lambda run: _order(results[run]))
    title = results[runs[0]].tasks[group.task].title
    left_out = []
    if not full and len(runs) > RUNS:
        left_out.append(f"{title}: {len(runs) - RUNS:,} of {len(runs):,} runs are left out.")
        runs = runs[:RUNS]
    answers: dict[str, list[Any]] = {}
    first: dict[str, Mapping[str, Any]] = {}
    metric = results[runs[0]].tasks[group.task].metric
    for number, run in enumerate(runs):
        for line in by_run[run]:
            name = str(line["id"])
            first.setdefault(name, line)
            answers.setdefault(name, [None] * len(runs))[number] = _answer(line, metric, full=full)
    # As samples are drawn: in the order of a hash, so nobody picks.
    names = sorted(answers, key=lambda name: hashlib.sha256(f"0\x1f{name}".encode()).digest())
    if not full and len(names) > ITEMS:
        left_out.append(f"{title}: {len(names) - ITEMS:,} of {len(names):,} items are left out.")
        names = names[:ITEMS]
    items = []
    for name in names:
        content = contents.by_id.get(name)
        gold = first[name].get("gold")
        items.append(
            {
                "id": name,
                "group": str(first[name].get("group", "")),
                "gold": gold if isinstance(gold, int | float) else _short(str(gold), full=full),
                "prompt": _short(content.prompt, full=full) if content else None,
                "choices": [_short(text, full=full) for text in content.choices] if content else [],
                "answers": answers[name],
            }
        )
    listed = [
        {
            "run": run,
            "label": _label(results[run]),
            "seed": results[run].training.spec.seeds.init,
            "draw": results[run].evaluation.sample,
            "model": results[run].training.model,
        }
        for run in runs
    ]
    made = {"title": title, "task": group.task, "metric": metric, "note": contents.note}
    return {**made, "runs": listed, "items": items}, left_out


def _order(result: Result) -> tuple[Any, ...]:
    """Untrained models first, then by label and seed."""
    seeds = result.training.spec.seeds
    draw = result.evaluation.sample
    return (result.training.steps > 0, _label(result), seeds.init, draw, result.run)


def _label(result: Result) -> str:
    return result.training.label or result.training.spec.method


def _answer(line: Mapping[str, Any], metric: str, *, full: bool) -> list[Any]:
    """Prediction, score, and what else is shown of an answer."""
    prediction = line.get("prediction")
    if isinstance(prediction, str):
        prediction = _short(prediction, full=full)
    scores = {
        key: value
        for key, value in line.items()
        if key not in _SHOWN | _EVIDENCE and isinstance(value, int | float)
    }
    score = scores.get(metric, next(iter(scores.values()), None))
    made = [prediction, score]
    if line.get("text") is not None:
        made.append({"text": _short(str(line["text"]), full=full)})
    elif line.get("tied"):
        made.append({"tied": list(line["tied"])})
    return made


def _short(text: str, *, full: bool) -> str:
    if full or len(text) <= CHARACTERS:
        return text
    half = CHARACTERS // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters …]\n{text[-half:]}"


def _contents(
    group: _Group, results: Sequence[Result], samples: Samples | None, pools: Pools
) -> Contents:
    try:
        return _rebuilt(group, results, pools)
    except BenchError as error:
        reason = str(error)
    found = {
        sample.id: Content(sample.prompt, tuple(sample.choices))
        for task in (samples.tasks if samples else [])
        if (task.task, task.protocol) == (group.task, group.protocol)
        for sample in task.samples
    }
    where = "Prompts shown are those of Table H. " if found else "Prompts are not shown. "
    return Contents(found, f"{where}They are not stored with predictions: {reason}")


def _rebuilt(group: _Group, results: Sequence[Result], pools: Pools) -> Contents:
    """Items from the data, if these are what the runs were scored on.

    Raises:
        BenchError: the data are not at hand, have changed, or there are no prompts.
    """
    if not find_protocol(group.protocol).prompts:
        raise BenchError("a classification head answered, without a prompt.")
    if group.source.partition(":")[0] not in _OFFLINE:
        raise BenchError(f"data from {group.source} would have to be read from the network.")
    task = find_task(group.task)
    pool = pools.get(group.task, group.source, results[0].evaluation.split)
    if not any(result.tasks[group.task].data == pool.identity for result in results):
        raise BenchError("data or template have changed since the runs were scored.")
    notes = []
    chat = uses_chat(task, group.chat)
    spec = results[0].training.spec.model
    tokenizer = tokenizer_of(ModelRef(spec.name, spec.source, spec.revision)) if chat else None
    if chat:
        shown = f"in that of {results[0].training.model}" if tokenizer else "without it"
        notes.append(f"The models read prompts in their own chat template; here they are {shown}.")
    if tokenizer is None:
        prompts = [task.prompt(example, group.protocol) for example in pool.examples]
    else:
        prompts = prompts_of(tokenizer, task, pool.examples, group.protocol, chat=chat)
    asked = {
        example.id: Content(
            prompt.context, tuple(candidate.strip() for candidate in prompt.candidates)
        )
        for example, prompt in zip(pool.examples, prompts, strict=True)
    }
    cut = max(result.tasks[group.task].cut_items for result in results)
    if cut:
        notes.append(f"Of up to {cut:,} items the models read a shortened context.")
    return Contents(asked, " ".join(notes))
