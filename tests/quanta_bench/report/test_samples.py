"""Table H: prompts are what was encoded, answers what was stored, and items are no one's pick."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from results_by_hand import Bench, items
from rich.console import Console

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.evaluation import evaluators
from quanta_bench.plugins import find_task
from quanta_bench.report import sample_pages, samples
from quanta_bench.report.samples import Samples, Selection, choose, take_samples
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, Seeds, TrainingSpec
from quanta_bench.task import Example

LONGEST = 60
"""Of context and answer, in tokens; the tiny model's are bytes."""
ANSWER = 4
"""Of a generated answer, in tokens."""


@dataclass
class Done:
    """Finished runs, and the contexts that their scorer gave to the model."""

    store: Store
    choice: str
    written: str
    contexts: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Done:
    """The base and LoRA on a choice task, and the base on a task of written answers."""
    from transformers import AutoTokenizer

    root = tmp_path_factory.mktemp("samples")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    choice, written = root / "animals.jsonl", root / "sums.jsonl"
    splits = ["train"] * 8 + ["validation"] * 4 + ["test"] * 10
    choice.write_text(
        "\n".join(
            json.dumps(
                {
                    "prompt": f"Animal {n} says `{'very ' * (n % 5)}loudly`",
                    "choices": ["moo | moo", "meow", "quack"],
                    "answer": n % 3,
                    "split": split,
                }
            )
            for n, split in enumerate(splits)
        )
    )
    written.write_text(
        "\n".join(
            json.dumps({"prompt": f"{'0 + ' * n}{n} + {n} =", "target": str(2 * n), "split": s})
            for n, s in enumerate(splits)
        )
    )
    found = Done(Store(root / "results"), f"jsonl:{choice}", f"jsonl:{written}")

    def encoded(*words: Any, **options: Any) -> Any:
        made = encode_items(*words, **options)
        found.contexts |= {tokenizer.decode(item.contexts[0]) for item in made}
        return made

    def generated(model: Any, *words: Any, **options: Any) -> Any:
        def watched(**given: Any) -> Any:
            for row, mask in zip(given["input_ids"], given["attention_mask"], strict=True):
                found.contexts.add(tokenizer.decode(row[mask.bool()]))
            return answer(**given)

        answer = model.generate
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "generate", watched)
            return generate(model, *words, **options)

    encode_items, generate = evaluators.encode_items, evaluators.generate
    base = ModelSpec(name=".", source=f"local:{tiny_model}")
    common: dict[str, Any] = {"model": base, "batch_size": 4, "validations": 1}
    common["precision"] = "float32"

    def job(label: str, method: str, task: str, seed: int = 0, **over: Any) -> Job:
        protocol = "choice-text" if task == found.choice else "generate"
        training = TrainingSpec(
            method=method,
            tasks=(task,),
            seeds=Seeds(init=seed, order=seed),
            loss="candidates" if task == found.choice else "answer",
            protocol=protocol,
            **common,
            **over,
        )
        scored = EvaluationSpec(
            tasks=(task,), protocol=protocol, max_length=LONGEST, max_new_tokens=ANSWER
        )
        return Job(label, training, scored)

    jobs = [job("Base", "none", found.choice), job("Base", "none", found.written)]
    jobs += [job("LoRA", "lora", found.choice, seed, settings={"r": 2}) for seed in (1, 0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluators, "encode_items", encoded)
        patch.setattr(evaluators, "generate", generated)
        for one in jobs:
            Runner(found.store, Silent(), Pools()).run(one)
    return found


@pytest.fixture(scope="module")
def made(done: Done) -> Samples:
    return take_samples("embedded", done.store, Selection(items=10))


def lines(done: Done, run: str) -> dict[str, dict[str, Any]]:
    path = done.store.root / "runs" / run / "predictions.jsonl"
    return {line["id"]: line for line in map(json.loads, path.read_text().splitlines())}


# --- prompts ----------------------------------------------------------------------------------


def test_prompts_are_what_the_scorer_encoded(done: Done, made: Samples) -> None:
    shown = [item for task in made.tasks for item in task.samples]
    assert len(shown) == 20
    assert {item.prompt for item in shown} == done.contexts


def test_a_prompt_is_the_tasks_own_save_for_what_was_cut(made: Samples) -> None:
    whole, cut = 0, 0
    for task in made.tasks:
        found = find_task(task.task)
        pool = Pools().get(task.task, "embedded", "test")
        examples = {example.id: example for example in pool.examples}
        for item in task.samples:
            context = found.prompt(examples[item.id], task.protocol).context
            assert item.cut is not None
            assert item.prompt == context[item.cut :]
            whole += not item.cut
            cut += item.cut > 0
    assert whole
    assert cut


def test_the_cut_is_unknown_where_the_tokenizer_is_gone(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quanta_bench.report.prompts.tokenizer_of", lambda ref: None)
    (task,) = take_samples("embedded", done.store, Selection(tasks=(done.written,))).tasks
    assert [item.cut for item in task.samples] == [None, None]
    assert all(item.prompt.endswith(" =") for item in task.samples)


# --- answers ----------------------------------------------------------------------------------


def test_answers_are_those_that_runs_stored(done: Done, made: Samples) -> None:
    chosen, written = (
        next(task for task in made.tasks if task.task == name)
        for name in (done.choice, done.written)
    )
    for item in chosen.samples:
        assert item.choices == ["moo | moo", "meow", "quack"]
        assert [output.label for output in item.outputs] == ["Base", "LoRA"]
        for output in item.outputs:
            line = lines(done, output.run)[item.id]
            assert output.text == item.choices[line["prediction"]]
            assert item.gold == item.choices[line["gold"]]
            assert output.score == line["accuracy"]
            assert output.verdict == ("right" if line["prediction"] == line["gold"] else "wrong")
            assert output.parsed is None
    for item in written.samples:
        (output,) = item.outputs
        line = lines(done, output.run)[item.id]
        assert output.text == line["text"]
        assert output.parsed == line["prediction"]
        assert item.gold == line["gold"]
        assert item.choices == item.accepted == []


def test_of_two_seeds_the_smaller_is_shown(done: Done, made: Samples) -> None:
    chosen = next(task for task in made.tasks if task.task == done.choice)
    assert {output.seed for item in chosen.samples for output in item.outputs} == {0}
    assert any("1 more finished run" in note for note in made.notes)


def copied(
    done: Done,
    folder: Path,
    change: Callable[[Result], Result] = lambda result: result,
    without: str = "",
) -> Store:
    """The runs in another folder, with changed records, or without a field of their predictions."""
    store = Store(folder)
    for result in done.store.results():
        stored = done.store.predictions(result.run) or []
        lines = [{key: line[key] for key in line if key != without} for line in stored]
        store.write_run(change(result), lines)
    return store


def with_tasks(result: Result, **update: Any) -> Result:
    tasks = {name: task.model_copy(update=update) for name, task in result.tasks.items()}
    return result.model_copy(update={"tasks": tasks})


def test_scores_that_were_not_stored_are_judged_again(done: Done, tmp_path: Path) -> None:
    before, after = (
        take_samples("embedded", store, Selection()).tasks
        for store in (done.store, copied(done, tmp_path, without="accuracy"))
    )
    assert before == after


def test_runs_of_other_data_are_not_shown(done: Done, tmp_path: Path) -> None:
    store = copied(done, tmp_path, lambda result: with_tasks(result, data={"template": 99}))
    with pytest.raises(BenchError, match="animals is not shown: its data or template have changed"):
        take_samples("embedded", store, Selection())


def test_a_task_whose_file_is_gone_is_left_out_by_its_title(done: Done, tmp_path: Path) -> None:
    def moved(result: Result) -> Result:
        if done.written not in result.tasks:
            return result
        return result.model_copy(
            update={"tasks": {"jsonl:/gone/sums.jsonl": result.tasks[done.written]}}
        )

    made = take_samples("embedded", copied(done, tmp_path, moved), Selection())
    assert [task.task for task in made.tasks] == [done.choice]
    assert any("sums is not shown: " in note and "/gone/sums.jsonl" in note for note in made.notes)


def test_runs_without_predictions_are_left_out_and_counted(done: Done, tmp_path: Path) -> None:
    store = copied(done, tmp_path)
    first, *others = store.runs()
    (store.run_folder(first) / "predictions.jsonl").unlink()
    notes = take_samples("embedded", store, Selection()).notes
    assert any("1 finished runs are left out" in note for note in notes)
    for run in others:
        (store.run_folder(run) / "predictions.jsonl").unlink()
    with pytest.raises(BenchError, match=f"None of the {len(others) + 1} finished runs"):
        take_samples("embedded", store, Selection())


def test_runs_of_a_classification_head_have_no_words_to_show(done: Done, tmp_path: Path) -> None:
    def with_head(result: Result) -> Result:
        scored = result.evaluation.model_copy(update={"protocol": "head"})
        return result.model_copy(update={"evaluation": scored})

    with pytest.raises(BenchError, match="animals is not shown: a classification head answered it"):
        take_samples("embedded", copied(done, tmp_path, with_head), Selection())


def test_methods_and_tasks_can_be_named(done: Done) -> None:
    found = take_samples("embedded", done.store, Selection(methods=("lora",)))
    labels = {o.label for task in found.tasks for item in task.samples for o in item.outputs}
    assert labels == {"LoRA"}
    (task,) = take_samples("embedded", done.store, Selection(tasks=(done.written,))).tasks
    assert task.generated
    with pytest.raises(BenchError, match="has scored 'piqa'"):
        take_samples("embedded", done.store, Selection(tasks=("piqa",)))
    with pytest.raises(BenchError, match="no finished run of quanta in"):
        take_samples("embedded", done.store, Selection(methods=("quanta",)))


# --- choosing ---------------------------------------------------------------------------------


def in_order(count: int) -> list[Example]:
    """Items from first to last in the order of the hash, which is worked out here on its own."""
    found = [Example(f"item {n}", "g", {}) for n in range(count)]
    return sorted(found, key=lambda item: hashlib.sha256(f"0\x1f{item.id}".encode()).hexdigest())


def test_right_and_wrong_items_come_by_turns_and_one_kind_fills_up() -> None:
    order = in_order(6)
    marks = dict(zip((item.id for item in order), (0.0, 0.5, 1.0, 0.6, 0.2, 0.0), strict=True))
    shuffled = sorted(order, key=lambda item: item.id)
    assert choose(shuffled, marks, 2) == [order[2], order[0]]
    assert choose(shuffled, marks, 6) == [order[n] for n in (2, 0, 3, 1, 4, 5)]
    assert choose(shuffled, dict.fromkeys(marks, 1.0), 2) == order[:2]


def test_a_row_is_shown_by_its_largest_training_and_smallest_seed(bench: Bench) -> None:
    one = {"boolq": items([1, 0])}

    def run(label: str, train_items: int, seed: int) -> Any:
        spec = TrainingSpec(method="lora", tasks=("boolq",), seeds=Seeds(init=seed, order=seed))
        over = {"label": label, "train_items": train_items, "spec": spec}
        return bench.result(one, training=over)

    found = [run("A", 20, 0), run("A", 40, 3), run("A", 40, 1), run("B", 10, 2)]
    base = bench.result(one, training={"label": "C", "steps": 0})
    chosen = samples._one_per_row([*found, base])
    assert chosen == [base, found[2], found[3]]


# --- pages ------------------------------------------------------------------------------------


def drawn(show: Callable[[Samples, int], Any], made: Samples, characters: int) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(show(made, characters))
    return captured.get()


def test_every_page_shows_prompts_answers_and_verdicts(made: Samples) -> None:
    text = sample_pages.as_markdown(made, 800)
    page = drawn(sample_pages.on_screen, made, 800)
    lines_of = list(csv.DictReader(io.StringIO(sample_pages.as_csv(made))))
    assert len(lines_of) == sum(len(i.outputs) for task in made.tasks for i in task.samples)
    for task in made.tasks:
        for item in task.samples:
            assert f"```text\n{item.prompt}\n```" in text
            assert item.id in page
    assert "| Row | Answer | Verdict |" in text
    assert "| Row | Answer | Read as | Verdict |" in text
    # A bar inside an answer is no border of a cell.
    assert "| moo | moo |" not in text
    assert text.count("not picked by hand") == 1


def test_every_answer_that_counts_as_right_is_shown(made: Samples) -> None:
    """DROP takes any annotator's answer; without them a right one would look wrong."""
    task = made.tasks[-1].model_copy(deep=True)
    task.samples = [task.samples[0].model_copy(update={"gold": "1", "accepted": ["2", "two"]})]
    one = made.model_copy(update={"tasks": [task]})
    assert "\nRight: 1 or 2 or two\n\n| Row" in sample_pages.as_markdown(one, 100)
    (line,) = csv.DictReader(io.StringIO(sample_pages.as_csv(one)))
    assert (line["gold"], line["accepted"]) == ("1", "2 | two")


def test_a_long_text_says_how_much_is_left_out() -> None:
    assert sample_pages.shorten("abcdefghij", 10) == "abcdefghij"
    assert sample_pages.shorten("abcdefghij", 4) == "ab [... 6 characters ...] ij"
    assert sample_pages.shorten("abcdefghij", 5) == "abc [... 5 characters ...] ij"
