"""What is missing from a table, and what has to be said under it."""

from __future__ import annotations

from typing import Any

import pytest
from results_by_hand import UNUSABLE, Bench, drawn, items, sentences, suite, two_models

from quanta_bench.report import render
from quanta_bench.suites.grid import grid


def test_what_is_not_computed_is_a_dash(bench: Bench) -> None:
    made = suite("lora", "dora", {"method": "krona", "label": "Beam"})
    done = bench.result({"boolq": items([1, 0])})
    table = bench.table(made, {0: done}, {}, {})
    lora, dora, beam = table.rows[1:]
    assert "piqa" not in lora.cells
    assert lora.averages == {}  # never an average over fewer columns than the others'
    assert dora.cells == beam.cells == {}
    first = render.as_markdown(table).partition("Each seed")[0]
    lines = {line.split("|")[1].strip(): line for line in first.splitlines() if "|" in line}
    assert lines["LoRA r=8 ‡§"].split("|")[4:7] == [" 50.0 ± 635.3 ", " – ", " – "]
    assert lines["Beam"].count(" – ") == 5
    assert f"Beam: {UNUSABLE}." in table.notes["Caveats"]
    assert "–" in drawn(table)


def test_a_table_without_any_result_is_drawn(bench: Bench) -> None:
    table = bench.table(suite(), {})
    assert [row.label for row in table.rows] == ["LoRA r=8"]
    for text in (drawn(table), render.as_markdown(table), render.as_latex(table)):
        assert "LoRA r=8" in text


def mixed(bench: Bench, **over: Any) -> list[str]:
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    first, second = bench.result(one), bench.result(one, **over)
    return sentences(bench.table(suite("lora", "dora"), {0: first}, {0: second}))


def test_one_protocol_is_one_note(bench: Bench) -> None:
    notes = mixed(bench)
    assert "Protocol: choice-text, scored by token_mean, data from embedded." in notes
    assert not [note for note in notes if "MIXED" in note]


@pytest.mark.parametrize(
    ("over", "word", "said"),
    [
        ({"protocol": {"put": "choice-label"}}, "MIXED PROTOCOLS", "choice-label"),
        ({"protocol": {"normaliser": "sum"}}, "MIXED PROTOCOLS", "scored by sum"),
        ({"evaluation": {"source": "hub"}}, "MIXED PROTOCOLS", "data from hub"),
        ({"protocol": {"loss": "answer"}}, "MIXED TRAINING", "the loss 'answer'"),
        ({"protocol": {"trained_as": "generate"}}, "MIXED TRAINING", "the protocol generate"),
    ],
)
def test_mixed_protocols_are_said_and_the_rows_named(
    bench: Bench, over: dict[str, Any], word: str, said: str
) -> None:
    notes = [note for note in mixed(bench, **over) if note.startswith(word)]
    assert len(notes) == 2
    (other,) = (note for note in notes if said in note)
    assert "DoRA r=8" in other
    assert "LoRA r=8" not in other


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"packages": {"torch": "2"}}, "2 different sets of package versions"),
        ({"git_commit": "other"}, "2 different commits"),
        ({"device": "other"}, "2 different devices"),
        ({"git_dirty": True}, "with uncommitted changes"),
    ],
)
def test_unlike_environments_are_said(bench: Bench, change: dict[str, Any], said: str) -> None:
    same = bench.result({"boolq": items([1])}).training.environment
    other = same.model_copy(update=change)
    assert said in "\n".join(mixed(bench, training={"environment": other}))
    assert said not in "\n".join(mixed(bench))


def test_sizes_rates_and_forgetting_are_noted(bench: Bench) -> None:
    notes = "\n".join(mixed(bench, forgetting={"running_text": 30.0}))
    assert "40 training items, 20 for validation." in notes
    (rates,) = (line for line in notes.splitlines() if line.startswith("Learning rates"))
    assert "0.5" in rates
    assert "LoRA r=8" in rates
    assert "DoRA r=8 30.0" in notes


def test_notes_name_the_model_where_a_table_has_several(bench: Bench) -> None:
    notes = sentences(two_models(bench))
    assert "Learning rates: 0.5 (LoRA r=8 (m-7b)); 0.25 (LoRA r=8 (m-13b))." in notes
    assert any(note.startswith("Beam (m-13b): ") for note in notes)
    assert "(smollm2" not in "\n".join(mixed(bench))


def test_generated_answers_are_not_said_to_be_scored_by_likelihood(bench: Bench) -> None:
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    result = bench.result(one, protocol={"put": "generate"})
    notes = sentences(bench.table(suite(), {0: result}))
    said = "Protocol: generate, answers generated and parsed, data from embedded."
    assert said in notes
    assert "token_mean" not in "\n".join(notes)
    assert result.protocol["normaliser"] == "token_mean"


def test_the_precision_of_every_row_is_said_where_it_is_known(bench: Bench) -> None:
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    made = suite("none", "lora", "full")
    known = {"base": "bfloat16", "arithmetic": "bf16-mixed"}
    rows = [
        bench.result(one, training={"steps": 0}, evaluation_precision=known),
        bench.result(one, evaluation_precision=known),
        bench.result(one),
    ]
    labels = [row.spec.label or row.spec.method for row in grid(made, "embedded")]
    notes = sentences(bench.table(made, *({0: result} for result in rows)))
    weights = f"bfloat16 ({labels[0]}, {labels[1]}); float32 ({labels[2]})"
    assert f"Base weights: {weights}. Everything that trains is float32." in notes


def test_the_precision_of_a_base_alone_is_said(bench: Bench) -> None:
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    over = {"training": {"steps": 0}, "protocol": {"loss": ""}}
    known = bench.result(one, **over, evaluation_precision={"base": "bfloat16"})
    table = bench.table(suite("none"), {0: known})
    (note,) = (note for note in sentences(table) if "Base weights" in note)
    assert note.startswith("Base weights: bfloat16 (")
    assert "trains" not in note


def test_notes_stand_under_three_headings_and_disagreements_are_caveats(bench: Bench) -> None:
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    results = [bench.result(one), bench.result(one, protocol={"loss": "answer"})]
    table = bench.table(suite("lora", "dora"), *({0: result} for result in results))
    assert list(table.notes) == ["Scores", "Training", "Caveats"]
    starts = [note.partition(" ")[0] for note in table.notes["Caveats"]]
    assert starts == ["MIXED", "MIXED", "‡", "§"]


def test_rows_that_lack_seeds_are_named(bench: Bench) -> None:
    one = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    both, half = [bench.result(one), bench.result(one)], bench.result(one)
    table = bench.table(suite("lora", "dora"), dict(enumerate(both)), {1: half})
    assert [n for n in sentences(table) if "seeds are finished" in n] == [
        "DoRA r=8: 1 of 2 seeds are finished."
    ]
