"""Table H: sample items of each task with the answers of the base and of each trained model.

Nothing is computed. Answers are those stored by finished runs. Prompts are rebuilt from the items,
and only if data and template are unchanged since the runs were scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from quanta_bench.data.pools import Pools, draw
from quanta_bench.errors import BenchError, UsageError, did_you_mean
from quanta_bench.evaluation.stats import mean
from quanta_bench.plugins import METHODS, find_protocol, find_task
from quanta_bench.report.appendix import TABLES
from quanta_bench.report.prompts import context_seen
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.spec import canonical
from quanta_bench.suites.loading import load_suite, shipped
from quanta_bench.task import Answer, Example, Task

NAME = "tableH"
RIGHT = 0.5
"""An item counts as right if its score, or its mean score over models, is above this."""


class Output(BaseModel):
    """One model's answer to an item.

    Attributes:
        label: label of the run's row in a table.
        method: registered name of the method.
        model: the base model.
        seed: seed of the method's initialisation.
        run: the run's folder.
        text: the chosen candidate, or the generated text.
        parsed: the answer parsed from a generated text; ``None`` if there is none, and for
            multiple choice.
        score: the item's score, in [0, 1].
        metric: name of the score.
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
        """``right``, ``wrong``, or the score if it is neither 1 nor 0."""
        return {1.0: "right", 0.0: "wrong"}.get(self.score, f"{self.metric} {self.score:.2f}")


class Sample(BaseModel):
    """An item and its answers.

    Attributes:
        id: the item's id.
        prompt: its context as the models saw it.
        cut: tokens cut because it was too long; ``None`` if unknown.
        choices: the candidates of a multiple-choice item.
        gold: the right answer.
        accepted: other answers that count as right, for generated answers.
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
        protocol: protocol of the runs.
        source: the data source.
        generated: whether answers were generated rather than chosen.
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
        profile: the profile of the runs.
        tasks: the samples of each task.
        notes: notes for the reader.
    """

    name: str = NAME
    title: str
    profile: str
    tasks: list[TaskSamples]
    notes: list[str]


@dataclass(frozen=True)
class Selection:
    """Which samples to show.

    Attributes:
        tasks: the tasks; empty for all that finished runs have scored.
        items: items per task.
        characters: maximum length of a displayed text; longer ones are shortened in the middle.
        methods: the methods; empty for all.
    """

    tasks: tuple[str, ...] = ()
    items: int = 2
    characters: int = 800
    methods: tuple[str, ...] = ()


def parse_selection(settings: Mapping[str, Any], methods: Sequence[str]) -> Selection:
    """The selection made by the command line's options.

    Raises:
        UsageError: an unknown setting, task or method, or an invalid number.
    """
    known = {"tasks", "items", "characters"}
    for key in settings:
        if key not in known:
            raise UsageError(f"There is no setting {key!r} here. {did_you_mean(key, known)}")
    numbers = {key: settings[key] for key in ("items", "characters") if key in settings}
    for key, value in numbers.items():
        if type(value) is not int or value < 1:
            raise UsageError(f"{key} must be a positive integer, not {value!r}.")
    names = settings.get("tasks", ())
    tasks = tuple(map(str, names)) if isinstance(names, (list, tuple)) else (str(names),)
    for task in tasks:
        find_task(task)
    for method in methods:
        METHODS.get(method)
    return Selection(tasks=tasks, methods=tuple(methods), **numbers)


def take_samples(profile: str, store: Store, selection: Selection) -> Samples:
    """Sample outputs from the finished runs of a results folder.

    Raises:
        BenchError: there is no run to show, or no run's prompts can be rebuilt.
    """
    methods = selection.methods
    results = [
        result
        for result in store.results()
        # Runs on validation items, such as those of a search of settings, are no row of a table.
        if result.evaluation.split == "test" and (not methods or _method(result) in methods)
    ]
    stored = [result for result in results if store.has_predictions(result.run)]
    scored = {task for result in results for task in result.tasks}
    for task in selection.tasks:
        if task not in scored:
            raise BenchError(f"No finished run in {store.root} has scored {task!r}.")
    if not results:
        of_methods = f" of {', '.join(methods)}" if methods else ""
        option = "" if profile == "embedded" else f" --profile {profile}"
        raise BenchError(
            f"There is no finished run{of_methods} in {store.root}; "
            f"`quanta-bench table 3{option}` makes some."
        )
    unstored = len(results) - len(stored)
    if not stored:
        raise BenchError(
            f"None of the {unstored} finished runs in {store.root} has stored predictions, "
            "which this table shows."
        )
    pools = Pools()
    tasks, notes = [], []
    if unstored:
        notes.append(
            f"{unstored} finished runs are left out because their predictions are not stored."
        )
    for task in selection.tasks or _in_order({task for result in stored for task in result.tasks}):
        try:
            compared = _compare([r for r in stored if task in r.tasks], task, pools)
            tasks.append(_sample(compared, store, selection.items))
            notes += compared.notes
        except BenchError as error:
            # The stored title: the task itself may be a user's own file that is gone.
            title = next(r.tasks[task].title for r in results if task in r.tasks)
            notes.append(f"{title} is not shown: {error}")
    if not tasks:
        raise BenchError(" ".join(notes))
    return Samples(
        title=TABLES[NAME].title,
        profile=profile,
        tasks=tasks,
        notes=[*_rules(selection), *notes],
    )


def _method(result: Result) -> str:
    return result.training.spec.method


def _in_order(scored: set[str]) -> list[str]:
    """Tasks in the order of the shipped suites, then by name."""
    suites = (load_suite(name).tasks for name in shipped())
    listed = dict.fromkeys(task for tasks in suites for task in tasks)
    return [task for task in listed if task in scored] + sorted(scored - set(listed))


# --- runs -------------------------------------------------------------------------------------


@dataclass
class _Compared:
    """The runs shown for a task, all scored on the same items in the same way.

    Attributes:
        reference: the task, as on the command line.
        task: the task.
        examples: its items by id.
        results: one run per row, untrained models first.
        notes: notes on runs left out.
    """

    reference: str
    task: Task
    examples: Mapping[str, Example]
    results: list[Result]
    notes: list[str] = field(default_factory=list)


def _compare(results: Sequence[Result], reference: str, pools: Pools) -> _Compared:
    """Choose the runs to show: of those scored alike, the set with the most rows, one run each."""
    task = find_task(reference)
    if task.kind == "perplexity":
        raise BenchError("it scores running text and has no answers.")
    if not results:
        raise BenchError("the predictions of its runs are not stored.")
    results = [result for result in results if find_protocol(result.evaluation.protocol).prompts]
    if not results:
        raise BenchError("a classification head answered it, without a prompt and without text.")
    comparable: dict[str, list[Result]] = {}
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
        comparable.setdefault(key, []).append(result)
    if not comparable:
        raise BenchError(changed[0])
    sets = {key: _one_per_row(members) for key, members in comparable.items()}
    # The key comes last, so that ties are broken the same way every time.
    key = max(sets, key=lambda key: (len(sets[key]), sets[key][0].tasks[reference].items, key))
    chosen = sets[key]
    spec = chosen[0].evaluation
    pool = pools.get(reference, spec.source, spec.split)
    examples = {example.id: example for example in pool.examples}
    omitted = len(results) - len(chosen)
    notes = (
        [f"{task.title}: {omitted} more finished runs, by seed, size or setting, are not shown."]
        if omitted
        else []
    )
    return _Compared(reference, task, examples, chosen, notes)


def _one_per_row(results: Sequence[Result]) -> list[Result]:
    """One run per row: the one trained on the most items, then the one with the smallest seed."""

    def preference(result: Result) -> tuple[Any, ...]:
        seeds = result.training.spec.seeds
        return (-result.training.train_items, seeds.init, seeds.order, seeds.sample, result.run)

    rows: dict[tuple[str, str], Result] = {}
    for result in sorted(results, key=preference):
        rows.setdefault((_label(result), result.training.model), result)
    return sorted(rows.values(), key=lambda r: (r.training.model, r.training.steps > 0, _label(r)))


def _label(result: Result) -> str:
    name = _method(result)
    return result.training.label or (METHODS.get(name).title if name in METHODS else name)


# --- items ------------------------------------------------------------------------------------


def _sample(compared: _Compared, store: Store, items: int) -> TaskSamples:
    answers: dict[str, list[tuple[Result, Mapping[str, Any], Answer]]] = {}
    for result in compared.results:
        for line in store.predictions(result.run) or ():
            if line["task"] == compared.reference and line["id"] in compared.examples:
                answer = _answer(compared, result, line)
                answers.setdefault(line["id"], []).append((result, line, answer))
    metric = _metric(compared.task, next(iter(answers.values()))[0][2])
    trained = any(result.training.steps for result in compared.results)
    scores = {
        name: mean(
            [
                answer.scores[metric]
                for result, _, answer in of_item
                if result.training.steps or not trained
            ]
        )
        for name, of_item in answers.items()
        if len(of_item) == len(compared.results)
    }
    shown = choose([compared.examples[name] for name in scores], scores, items)
    spec = compared.results[0].evaluation
    return TaskSamples(
        task=compared.reference,
        title=compared.task.title,
        protocol=spec.protocol,
        source=spec.source,
        generated="text" in next(iter(answers.values()))[0][1],
        samples=[_make_sample(compared, item, answers[item.id], metric) for item in shown],
    )


def choose(examples: Sequence[Example], scores: Mapping[str, float], count: int) -> list[Example]:
    """Items answered rightly and wrongly, alternating, each kind in the order of a hash.

    Args:
        examples: the items.
        scores: the mean score over models, by item id.
        count: how many; if one kind runs out, the other fills up.
    """
    order = draw(examples, None, 0)
    kinds = (
        [item for item in order if scores[item.id] > RIGHT],
        [item for item in order if scores[item.id] <= RIGHT],
    )
    chosen: list[Example] = []
    for number in range(max(map(len, kinds))):
        chosen += [kind[number] for kind in kinds if number < len(kind)]
    return chosen[:count]


def _answer(compared: _Compared, result: Result, line: Mapping[str, Any]) -> Answer:
    """A stored answer, judged again if its scores were not stored."""
    names = {compared.task.metric, "accuracy"} & line.keys()
    if names:
        return Answer(line["prediction"], line["gold"], {name: line[name] for name in names})
    example = compared.examples[line["id"]]
    if "text" in line:
        return compared.task.judge_text(example, line["text"])
    return compared.task.judge_choice(example, int(line["prediction"]))


def _metric(task: Task, answer: Answer) -> str:
    """The task's metric if single items have it, else their accuracy."""
    return task.metric if task.metric in answer.scores else next(iter(answer.scores))


def _make_sample(
    compared: _Compared,
    example: Example,
    answers: Sequence[tuple[Result, Mapping[str, Any], Answer]],
    metric: str,
) -> Sample:
    first, line, answer = answers[0]
    prompt = compared.task.prompt(example, first.evaluation.protocol)
    text, cut = context_seen(first, compared.reference, compared.task, example)
    choices = [] if "text" in line else [candidate.strip() for candidate in prompt.candidates]
    return Sample(
        id=example.id,
        prompt=text,
        cut=cut,
        choices=choices,
        gold=_answer_text(answer.gold, choices),
        accepted=[other for other in example.references if "text" in line and other != answer.gold],
        outputs=[
            Output(
                label=_label(result),
                method=_method(result),
                model=result.training.model,
                seed=result.training.spec.seeds.init,
                run=result.run,
                text=line["text"] if "text" in line else _chosen(line, given, choices),
                parsed=_parsed(given) if "text" in line else None,
                score=given.scores[metric],
                metric=metric,
            )
            for result, line, given in answers
        ],
    )


def _answer_text(answer: str | int | float | None, choices: Sequence[str]) -> str:
    """An answer as text; multiple-choice answers are stored as the candidate's index."""
    return choices[answer] if isinstance(answer, int) and choices else str(answer)


def _chosen(line: Mapping[str, Any], answer: Answer, choices: Sequence[str]) -> str:
    """The text of the winning candidate, or of those that tie."""
    tied = [_answer_text(index, choices) for index in line.get("tied", ())]
    return " = ".join(tied) if tied else _answer_text(answer.prediction, choices)


def _parsed(answer: Answer) -> str | None:
    return None if answer.prediction is None else str(answer.prediction)


# --- text -------------------------------------------------------------------------------------


def _rules(selection: Selection) -> list[str]:
    return [
        "Items are not picked by hand. In the order of a hash of their ids, items whose mean score "
        f"over the trained models is above {RIGHT} alternate with the others, "
        f"{selection.items} per task. Both kinds are shown where both exist, so their shares here "
        "mean nothing.",
        "The runs shown are the set with the most rows among those scored on the same items in the "
        "same way: for each row the run with the most training items, then the smallest seed.",
        f"Texts of more than {selection.characters:,} characters are shortened in the middle here; "
        "the JSON and CSV files have the full text.",
    ]
