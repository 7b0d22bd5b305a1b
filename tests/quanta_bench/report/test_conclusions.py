"""What tables say of differences: marks, letters, constants; and rows compared on their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from results_by_hand import Bench, drawn, items, sentences, suite
from rich.console import Console
from scipy import stats

from quanta_bench.errors import BenchError
from quanta_bench.report import compared, evidence, render
from quanta_bench.report.table import Table
from quanta_bench.report.tuned import origin, settings_of
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.cells import Cells
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import grid
from quanta_bench.suites.schema import ColumnSpec

ROWS = ("none", "lora", "dora", "full")
GOLD = [1, 1, 0, 1, 0]


def results(bench: Bench, seeds: Sequence[int] = (0, 1, 2)) -> list[dict[int, Result]]:
    """Full fine-tuning knows nearly everything; the other rows guess alike."""
    random = np.random.default_rng(0)
    base = random.random((2, 60)) < 0.5
    found = []
    for row in ROWS:
        of_row = {}
        for seed in seeds[:1] if row == "none" else seeds:
            flips = random.random((2, 60)) < (0 if row == "none" else 0.1)
            right = random.random((2, 60)) < 0.95 if row == "full" else base ^ flips
            scored = zip(("boolq", "piqa"), right, strict=True)
            of_row[seed] = bench.result({name: items(list(one * 1.0)) for name, one in scored})
        found.append(of_row)
    return found


@pytest.fixture
def answered(tmp_path: Path) -> Bench:
    return Bench(tmp_path, gold=GOLD)


def made_table(bench: Bench) -> Table:
    return bench.table(suite(*ROWS), *results(bench))


def test_what_differs_from_lora_is_marked_and_nothing_else(answered: Bench) -> None:
    table = made_table(answered)
    marked = {row.label for row in table.rows for v in row.averages.values() if v.differs}
    assert marked == {"Full fine-tuning"}
    text = render.as_markdown(table)
    assert all(("*" in line) == ("Full" in line) for line in text.splitlines() if line[:3] == "| L")
    (note,) = [note for note in sentences(table) if note.startswith("* Avg.")]
    assert "differs from that of LoRA r=8: Full fine-tuning (p < 0.05" in note
    assert "80 % power" in note


def test_letters_part_the_row_that_differs(answered: Bench) -> None:
    letters = {row.label: row.averages["Avg."].letters for row in made_table(answered).rows[2:]}
    assert letters["Full fine-tuning"] == "a"
    assert set(letters.values()) == {"a", "b"}


def test_what_is_said_of_the_rows_of_one_model_names_it(answered: Bench) -> None:
    """Letters start again with each model, whose rows nobody has compared with another's."""
    rows = [
        {"method": name, "model": model, "label": ""}
        for model in ("smollm2-135m", "gpt2")
        for name in ROWS
    ]
    table = answered.table(suite(*rows), *results(answered), *results(answered))
    said = [note for note in sentences(table) if "share a letter" in note or "Avg." in note]
    assert [note.partition(":")[0] for note in said] == ["smollm2-135m"] * 2 + ["gpt2"] * 2
    (untuned,) = [note for note in sentences(table) if "not tuned" in note]
    assert "(gpt2)" in untuned


def test_a_first_row_that_lacks_a_seed_does_not_decide_what_is_compared(answered: Bench) -> None:
    """As where one of its runs failed: the others are compared with a base all the same."""
    found = results(answered)
    first = {seed: found[1][seed] for seed in (0, 1)}
    known = {
        name: evidence.evidence(ColumnSpec(task="boolq"), of_row, answered.store)
        for name, of_row in zip(ROWS, (found[0], first, *found[2:]), strict=True)
    }
    kept = evidence.comparable(known, ["none"], "none")
    assert set(kept) == {"none", "dora", "full"}


def test_the_best_constant_answer_is_a_row(answered: Bench) -> None:
    row = made_table(answered).rows[1]
    assert row.label == "Best constant"
    assert row.cells["boolq"].mean == pytest.approx(60)
    assert row.averages["Avg."].mean == pytest.approx(60)


def test_a_row_of_constants_is_named(answered: Bench) -> None:
    right = [float(gold) for gold in GOLD * 4]
    constant = answered.result({"boolq": items(right), "piqa": items([1.0, 0.0] * 10)})
    table = answered.table(suite(), {0: constant})
    (note,) = [note for note in sentences(table) if note.startswith("The same answer")]
    assert note.endswith("LoRA r=8 (BOOLQ).")


def test_rows_on_other_items_are_not_compared(bench: Bench) -> None:
    one, other = (
        bench.result({"boolq": items([1, 0, 1], prefix=p), "piqa": items([1, 0, 0], prefix=p)})
        for p in "xy"
    )
    table = bench.table(suite("lora", "dora"), {0: one}, {0: other})
    assert all(v.p_holm is None for row in table.rows for v in row.cells.values())
    assert not any("differ" in note for note in sentences(table))


def test_seeds_with_items_of_their_own_are_compared_seed_by_seed(answered: Bench) -> None:
    random = np.random.default_rng(3)
    easy = {seed: random.random((2, 60)) < 0.5 for seed in (0, 1)}
    rows = []
    for row in ROWS:
        of_row = {}
        for seed, base in easy.items():
            gain = (random.random((2, 60)) < {"full": 0.4, "none": 0}.get(row, 0.05)) & ~base
            groups = [f"{seed}/{n}" for n in range(60)]
            scored = {
                name: items(list(one * 1.0), groups, f"{seed}/")
                for name, one in zip(("boolq", "piqa"), base | gain, strict=True)
            }
            of_row[seed] = answered.result(scored)
        rows.append(of_row)
    table = answered.table(suite(*ROWS, vary=["init", "order", "sample"]), *rows)
    by_method = {row.method: row for row in table.rows if row.label != "Best constant"}
    base, lora, full = (by_method[name] for name in ("none", "lora", "full"))
    assert full.averages["Avg."].differs
    assert base.averages["Avg."].p_holm is not None
    # The base is scored on 120 items, which is all of its noise.
    deviation = np.std(np.concatenate([one[0] for one in easy.values()]), ddof=1)
    expected = 100 * stats.t.ppf(0.975, 118) * deviation / np.sqrt(120)
    assert base.cells["boolq"].margin == pytest.approx(expected, rel=0.05)
    assert lora.cells["boolq"].margin > expected
    assert "which items are drawn" in " ".join(sentences(table))


def test_rates_that_were_not_tuned_for_the_training_are_marked(bench: Bench) -> None:
    """A default rate was compared at one size of one table, so it is marked in all of them."""
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    own = {"method": "dora", "training": {"learning_rate": 0.5}, "label": "DoRA here"}
    krona = {"method": "krona", "training": {"learning_rate": 0.25}, "label": "KronA there"}
    jobs = [row.jobs for row in grid(suite(own, krona), "embedded")]
    for row, of_row in zip((own, krona), (jobs[0], jobs[0]), strict=True):
        row["origin"] = {"learning_rate": origin("0123456789ab", settings_of(of_row))}
    table = bench.table(suite("lora", own, krona), *({0: bench.result(one)} for _ in range(3)))
    assert [row.marks for row in table.rows[1:]] == ["‡§", "§", "‡§"]
    (note,) = [note for note in sentences(table) if note.startswith("‡")]
    assert note.endswith(": LoRA r=8, KronA there.")


def test_without_predictions_intervals_are_wider_and_said_to_be_bounds(answered: Bench) -> None:
    found = results(answered)
    before = answered.table(suite(*ROWS), *found)
    for run in answered.store.runs():
        (answered.store.run_folder(run) / "predictions.jsonl").unlink()
    after = answered.table(suite(*ROWS), *found)
    pairs = zip(before.rows[3:], after.rows[2:], strict=True)
    for one, other in pairs:
        assert one.label == other.label
        assert (other.cells["boolq"].margin or 0) > (one.cells["boolq"].margin or 0)
    assert any("upper bounds" in note for note in sentences(after))
    assert "Best constant" not in drawn(after)


def comparison(bench: Bench, found: list[dict[int, Result]]) -> compared.Compared:
    made = suite(*ROWS)
    rows = grid(made, "embedded", Choice(seeds=tuple(found[1])))
    cells = {
        row.spec.label or row.spec.method: Cells(row, {s: [r] for s, r in of_row.items()})
        for row, of_row in zip(rows, found, strict=True)
    }
    return compared.compare_rows(made, cells, "LoRA r=8", bench.store, " ".join)


def test_compared_rows_fit_80_columns_and_say_a_sentence_each(answered: Bench) -> None:
    made = comparison(answered, results(answered))
    console = Console(width=80)
    with console.capture() as captured:
        console.print(compared.on_screen(made))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    averages = [line for line in made.lines if line.average]
    assert len(averages) == 3
    for line in averages:
        assert compared.sentence(line) in words
    full = next(one for one in averages if one.difference.row == "Full fine-tuning")
    dora = next(one for one in averages if one.difference.row.startswith("DoRA"))
    assert "The difference is significant." in compared.sentence(full)
    assert "The difference is not significant; with 80 % power" in compared.sentence(dora)


def test_one_seed_is_mcnemars_test_and_says_what_its_interval_lacks(answered: Bench) -> None:
    found = results(answered, seeds=[0])
    made = comparison(answered, found)
    (line,) = [
        one for one in made.lines if one.column == "BOOLQ" and one.difference.row.startswith("DoRA")
    ]
    scores = [answered.store.item_scores(found[n][0].run) or {} for n in (1, 2)]
    lora, dora = (one["boolq"].scores["accuracy"] for one in scores)
    wins, losses = int((dora > lora).sum()), int((dora < lora).sum())
    exact = stats.binomtest(wins, wins + losses).pvalue
    assert line.difference.p == pytest.approx(exact)
    assert "accounts for test items alone" in compared.sentence(line)


def test_missing_predictions_name_the_runs_and_the_command(answered: Bench) -> None:
    found = results(answered, seeds=[0])
    run = found[2][0].run
    (answered.store.run_folder(run) / "predictions.jsonl").unlink()
    with pytest.raises(BenchError, match=rf"DoRA r=8 \({run}\)\. dora --fresh all"):
        comparison(answered, found)


def test_the_data_of_a_comparison_are_its_numbers(answered: Bench) -> None:
    made = comparison(answered, results(answered))
    data = compared.as_data(made)
    assert data["reference"] == "LoRA r=8"
    assert len(data["differences"]) == 9
    assert {row["row"]: row["consistency_over_seeds"] for row in data["rows"]}["Base model"] is None
    first = data["differences"][0]
    assert first["interval_low"] < first["effect"] < first["interval_high"]


def test_perplexities_are_compared_by_the_likelihoods_of_their_texts() -> None:
    """The committed runs: a jackknife over all texts, against a bootstrap made here."""
    store = Store(Path(__file__).parents[3] / "results" / "study")
    column = ColumnSpec(task="gsm8k_rationales")
    of_method: dict[str, dict[int, Result]] = {}
    for result in store.results():
        if column.task in result.tasks and result.tasks[column.task].items == 80:
            seed = result.evaluation.sample
            of_method.setdefault(result.training.spec.method, {})[seed] = result
    found = {name: evidence.evidence(column, of_method[name], store) for name in ("lora", "none")}
    lora, base = found["lora"], found["none"]
    assert lora is not None
    assert base is not None
    assert lora.lower_is_better
    for seed, mean in zip(lora.seeds, lora.scores.means, strict=True):
        stored = of_method["lora"][seed].tasks[column.task].metrics["perplexity"]
        assert mean == pytest.approx(stored, rel=1e-6)
    random = np.random.default_rng(0)
    for seed, result in of_method["lora"].items():
        lines = store.predictions(result.run) or []
        nats = np.array([line["log_likelihoods"][0] for line in lines])
        tokens = np.array([line["tokens"][0] for line in lines])
        picks = random.integers(0, len(lines), (2000, len(lines)))
        drawn = np.exp(-nats[picks].sum(1) / tokens[picks].sum(1))
        error = evidence.own_errors(lora)[seed]
        assert error == pytest.approx(drawn.std(), rel=0.15)
    (difference,) = evidence.differences(found, ["none"], "none", ["lora"])
    assert difference.shown
    assert difference.effect < 0
