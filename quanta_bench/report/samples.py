"""Table H: some items of each task, with what the base and each trained model answered.

Nothing is computed. Answers are those that finished runs stored; prompts are made again from the
items, and only where the data and the template are still those that the runs were scored with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from quanta_bench.data.pools import Pools, draw
from quanta_bench.errors import BenchError, UsageError, did_you_mean
from quanta_bench.evaluation.stats import mean
from quanta_bench.plugins import METHODS, find_protocol, find_task, task_title
from quanta_bench.report.appendix import TABLES
from quanta_bench.report.prompts import seen
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.spec import canonical
from quanta_bench.suites.loading import load_suite, shipped
from quanta_bench.task import Answer, Example, Task

NAME = "tableH"
RIGHT = 0.5
"""An item counts as right where its score, or its mean score over models, is above this."""


class Output(BaseModel):
    """What one model answered to an item.

    Attributes:
        label: name of the table row that the run was made for.
        method: registered name of the method.
        model: the base model.
        seed: of the method's start.
        run: the run's folder.
        text: the chosen candidate, or the generated text.
        parsed: the answer that was read from a generated text; ``None`` if none was found, and for
            choices, which need no reading.
        score: of the item, in [0, 1].
        metric: what the score is.
    """

    label: str
    method: str
    model: str
    seed: int
    run: str
    text: str
    parsed: str | None
    score: float
    metric: str

    @property
    def verdict(self) -> str:
        """Right or wrong, or the score where it is neither."""
        return {1.0: "right", 0.0: "wrong"}.get(self.score, f"{self.metric} {self.score:.2f}")


class Sample(BaseModel):
    """An item and its answers.

    Attributes:
        id: the item.
        prompt: its context as the models saw it.
        cut: tokens that it lost because it was too long; ``None`` where that is not known.
        choices: the candidates, where one is chosen.
        gold: the right answer.
        accepted: other answers that count as right, where one is written.
        outputs: the models' answers, the base's first.
    """

    id: str
    prompt: str
    cut: int | None
    choices: list[str]
    gold: str
    accepted: list[str]
    outputs: list[Output]


class TaskSamples(BaseModel):
    """The sampled items of a task.

    Attributes:
        task: the task.
        title: heading of its column in tables.
        protocol: how its items were put.
        source: where its data come from.
        generated: whether answers were generated, not chosen.
        samples: the items.
    """

    task: str
    title: str
    protocol: str
    source: str
    generated: bool
    samples: list[Sample]


class Samples(BaseModel):
    """Sample outputs.

    Attributes:
        name: short name; files are named after it.
        title: caption.
        profile: the profile whose runs they are of.
        tasks: by task.
        notes: what a reader has to know.
    """

    name: str = NAME
    title: str
    profile: str
    tasks: list[TaskSamples]
    notes: list[str]


@dataclass(frozen=True)
class Wanted:
    """What is to be shown.

    Attributes:
        tasks: the tasks; empty for all that finished runs have scored.
        items: items a task.
        characters: bound on a shown text; longer ones are shortened in the middle.
        methods: methods to keep; empty for all.
    """

    tasks: tuple[str, ...] = ()
    items: int = 2
    characters: int = 800
    methods: tuple[str, ...] = ()


def read_wanted(settings: Mapping[str, Any], methods: Sequence[str]) -> Wanted:
    """What the options of the command line ask for.

    Raises:
        UsageError: an unknown setting, task or method, or a number that is none.
    """
    known = {"tasks", "items", "characters"}
    for key in settings:
        if key not in known:
            raise UsageError(f"There is no setting {key!r} here. {did_you_mean(key, known)}")
    numbers = {key: settings[key] for key in ("items", "characters") if key in settings}
    for key, value in numbers.items():
        if type(value) is not int or value < 1:
            raise UsageError(f"{key} is a whole number from 1, not {value!r}.")
    named = settings.get("tasks", ())
    tasks = tuple(map(str, named)) if isinstance(named, (list, tuple)) else (str(named),)
    for task in tasks:
        find_task(task)
    for method in methods:
        METHODS.get(method)
    return Wanted(tasks=tasks, methods=tuple(methods), **numbers)


def take_samples(profile: str, store: Store, wanted: Wanted) -> Samples:
    """Sample outputs from the finished runs of a results folder.

    Raises:
        BenchError: there is no run to show, or none of which the prompts can be made again.
    """
    results = [r for r in store.results() if not wanted.methods or _method(r) in wanted.methods]
    stored = [result for result in results if store.has_predictions(result.run)]
    scored = {task for result in results for task in result.tasks}
    for task in wanted.tasks:
        if task not in scored:
            raise BenchError(f"No finished run in {store.root} has scored {task!r}.")
    if not results:
        of = f" of {', '.join(wanted.methods)}" if wanted.methods else ""
        on = "" if profile == "embedded" else f" --profile {profile}"
        raise BenchError(
            f"There is no finished run{of} in {store.root}; `quanta-bench table 3{on}` makes some."
        )
    lacking = len(results) - len(stored)
    if not stored:
        raise BenchError(
            f"None of the {lacking} finished runs in {store.root} has its predictions stored, "
            "which are what this table shows."
        )
    pools = Pools()
    made, notes = [], []
    if lacking:
        notes.append(f"{lacking} finished runs are left out: their predictions are not stored.")
    for task in wanted.tasks or _in_order({task for result in stored for task in result.tasks}):
        try:
            compared = _compare([r for r in stored if task in r.tasks], task, pools)
            made.append(_sample(compared, store, wanted.items))
            notes += compared.notes
        except BenchError as error:
            notes.append(f"{task_title(task)} is not shown: {error}")
    if not made:
        raise BenchError(" ".join(notes))
    return Samples(
        title=TABLES[NAME].title,
        profile=profile,
        tasks=made,
        notes=[*_rules(wanted), *notes],
    )


def _method(result: Result) -> str:
    return result.training.spec.method


def _in_order(scored: set[str]) -> list[str]:
    """Tasks in the order of the shipped suites, then by name."""
    every = (load_suite(name).tasks for name in shipped())
    listed = dict.fromkeys(task for tasks in every for task in tasks)
    return [task for task in listed if task in scored] + sorted(scored - set(listed))


# --- which runs -------------------------------------------------------------------------------


@dataclass
class _Compared:
    """The runs of a task that are shown, all scored on the same items in the same way.

    Attributes:
        reference: the task, in the words of the command line.
        task: the task.
        examples: its items by id.
        results: a run a row, untrained models first.
        notes: what was left out.
    """

    reference: str
    task: Task
    examples: Mapping[str, Example]
    results: list[Result]
    notes: list[str] = field(default_factory=list)


def _compare(results: Sequence[Result], reference: str, pools: Pools) -> _Compared:
    """Choose the runs to show: of those scored alike, the set with most rows, one run a row."""
    task = find_task(reference)
    if task.kind == "perplexity":
        raise BenchError("its texts are predicted and not answered.")
    if not results:
        raise BenchError("the predictions of its runs are not stored.")
    results = [result for result in results if find_protocol(result.evaluation.protocol).prompts]
    if not results:
        raise BenchError(
            "a classification head answered it, which reads no prompt and says no words."
        )
    same: dict[str, list[Result]] = {}
    changed: list[str] = []
    for result in results:
        spec = result.evaluation
        try:
            pool = pools.get(reference, spec.source, spec.split)
        except BenchError as error:
            changed.append(str(error))
            continue
        if result.tasks[reference].data != pool.identity:
            changed.append("its data or template have changed since its runs were scored.")
            continue
        fields = {"source", "split", "items", "sample", "protocol", "normaliser", "max_length"}
        key = canonical(spec.model_dump(mode="json", include=fields))
        same.setdefault(key, []).append(result)
    if not same:
        raise BenchError(changed[0])
    sets = {key: _one_a_row(found) for key, found in same.items()}
    # The key last, so that equals are told apart by something that does not change.
    key = max(sets, key=lambda key: (len(sets[key]), sets[key][0].tasks[reference].items, key))
    chosen = sets[key]
    spec = chosen[0].evaluation
    pool = pools.get(reference, spec.source, spec.split)
    examples = {example.id: example for example in pool.examples}
    left = len(results) - len(chosen)
    notes = (
        [f"{task.title}: {left} more finished runs, by seed, size or setting, are not shown."]
        if left
        else []
    )
    return _Compared(reference, task, examples, chosen, notes)


def _one_a_row(results: Sequence[Result]) -> list[Result]:
    """A run for each row: the one trained on most items, then of the smallest seed."""

    def better(result: Result) -> tuple[Any, ...]:
        seeds = result.training.spec.seeds
        return (-result.training.train_items, seeds.init, seeds.order, seeds.sample, result.run)

    rows: dict[tuple[str, str], Result] = {}
    for result in sorted(results, key=better):
        rows.setdefault((_label(result), result.training.model), result)
    return sorted(rows.values(), key=lambda r: (r.training.model, r.training.steps > 0, _label(r)))


def _label(result: Result) -> str:
    name = _method(result)
    return result.training.label or (METHODS.get(name).title if name in METHODS else name)


# --- which items ------------------------------------------------------------------------------


def _sample(compared: _Compared, store: Store, items: int) -> TaskSamples:
    answers: dict[str, list[tuple[Result, Mapping[str, Any], Answer]]] = {}
    for result in compared.results:
        for line in store.predictions(result.run) or ():
            if line["task"] == compared.reference and line["id"] in compared.examples:
                judged = _judged(compared, result, line)
                answers.setdefault(line["id"], []).append((result, line, judged))
    metric = _metric(compared.task, next(iter(answers.values()))[0][2])
    trained = any(result.training.steps for result in compared.results)
    marks = {
        name: mean(
            [
                answer.scores[metric]
                for result, _, answer in found
                if result.training.steps or not trained
            ]
        )
        for name, found in answers.items()
        if len(found) == len(compared.results)
    }
    shown = choose([compared.examples[name] for name in marks], marks, items)
    spec = compared.results[0].evaluation
    return TaskSamples(
        task=compared.reference,
        title=compared.task.title,
        protocol=spec.protocol,
        source=spec.source,
        generated="text" in next(iter(answers.values()))[0][1],
        samples=[_one(compared, item, answers[item.id], metric) for item in shown],
    )


def choose(examples: Sequence[Example], marks: Mapping[str, float], count: int) -> list[Example]:
    """Items that were answered rightly and wrongly by turns, each the first in a hash's order.

    Args:
        examples: the items.
        marks: by item, its mean score over the models.
        count: how many; where one kind runs out, the other fills up.
    """
    order = draw(examples, None, 0)
    kinds = (
        [item for item in order if marks[item.id] > RIGHT],
        [item for item in order if marks[item.id] <= RIGHT],
    )
    chosen: list[Example] = []
    for number in range(max(map(len, kinds))):
        chosen += [kind[number] for kind in kinds if number < len(kind)]
    return chosen[:count]


def _judged(compared: _Compared, result: Result, line: Mapping[str, Any]) -> Answer:
    """A stored answer; judged again where its scores were not stored."""
    names = {compared.task.metric, "accuracy"} & line.keys()
    if names:
        return Answer(line["prediction"], line["gold"], {name: line[name] for name in names})
    example = compared.examples[line["id"]]
    if "text" in line:
        return compared.task.judge_text(example, line["text"])
    return compared.task.judge_choice(example, int(line["prediction"]))


def _metric(task: Task, answer: Answer) -> str:
    """The task's metric where single items have it, and their accuracy otherwise."""
    return task.metric if task.metric in answer.scores else next(iter(answer.scores))


def _one(
    compared: _Compared,
    example: Example,
    found: Sequence[tuple[Result, Mapping[str, Any], Answer]],
    metric: str,
) -> Sample:
    first, line, answer = found[0]
    prompt = compared.task.prompt(example, first.evaluation.protocol)
    text, cut = seen(first, compared.reference, compared.task, example)
    choices = [] if "text" in line else [candidate.strip() for candidate in prompt.candidates]
    return Sample(
        id=example.id,
        prompt=text,
        cut=cut,
        choices=choices,
        gold=_named(answer.gold, choices),
        accepted=[other for other in example.references if "text" in line and other != answer.gold],
        outputs=[
            Output(
                label=_label(result),
                method=_method(result),
                model=result.training.model,
                seed=result.training.spec.seeds.init,
                run=result.run,
                text=line["text"] if "text" in line else _chosen(line, judged, choices),
                parsed=_parsed(judged) if "text" in line else None,
                score=judged.scores[metric],
                metric=metric,
            )
            for result, line, judged in found
        ],
    )


def _named(answer: str | int | float | None, choices: Sequence[str]) -> str:
    """An answer in words; a number that is stored of a choice is its index."""
    return choices[answer] if isinstance(answer, int) and choices else str(answer)


def _chosen(line: Mapping[str, Any], answer: Answer, choices: Sequence[str]) -> str:
    """The winning candidate in words, or those that tie."""
    tied = [_named(index, choices) for index in line.get("tied", ())]
    return " = ".join(tied) if tied else _named(answer.prediction, choices)


def _parsed(answer: Answer) -> str | None:
    return None if answer.prediction is None else str(answer.prediction)


# --- in words ---------------------------------------------------------------------------------


def _rules(wanted: Wanted) -> list[str]:
    return [
        "Items are not picked by hand: in the order of a hash of their ids, the first whose mean "
        f"score over the trained models is above {RIGHT} and the first whose is not, by turns, "
        f"{wanted.items} a task. Both kinds are shown where both are there, which says nothing of "
        "how often either occurs.",
        "Of the runs that were scored on the same items in the same way, those with most rows are "
        "shown: for each row the run with most training items, and of these the smallest seed.",
        f"Texts of more than {wanted.characters:,} characters are shortened in the middle here; "
        "the JSON and CSV files have them whole.",
    ]
