"""`compare` from the command line: what it refuses, and with which words."""

from __future__ import annotations

import json

import pytest
from command_line import Bench
from paths import STUDY


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["quant", "lora", "--table", "3"], 2, "no row 'quant'. Did you mean 'quanta'?"),
        (["quanta", "lora", "--table", "3", "--reference", "dorra"], 2, "Did you mean 'dora'"),
        (["lora", "--table", "3"], 2, "Name two rows or more"),
        (["--table", "3"], 2, "Name two rows or more"),
        (["--table", "3", "--matched", "memory"], 2, "takes parameters or seconds, not 'memory'"),
        (["lora", "dora", "--table", "3", "--vary", "seed"], 2, "A seed cannot vary 'seed'"),
        (["quanta", "lora", "--table", "33"], 2, "33"),
        (["none", "lora", "--table", "1"], 2, "several rows of 'lora'"),
        (["quanta", "lora"], 2, "--table"),
        (["quanta", "lora", "--table", "figure2"], 2, "draws updates, not scores"),
        (["quant", "lora", "--table", "figure4"], 2, "figure4 has no row 'quant'"),
        (
            ["full", "krona", "--table", "figure4"],
            1,
            "Compute it: quanta-bench figure figure4 --results nowhere --methods full",
        ),
        (["+kronaa", "lora", "--table", "3"], 2, "Did you mean 'krona'"),
        (["krona", "lora", "--table", "3"], 2, "no row 'krona'"),
        (["+krona", "quanta", "--table", "3"], 1, "--results nowhere --methods krona"),
        (
            ["quanta", "dora", "--table", "3", "--set", "lora.r=4", "--set", "training.epochs=2"],
            1,
            "table 3 --set training.epochs=2 --results nowhere --methods quanta",
        ),
        (["+krona", "krona", "--table", "3"], 2, "Name two rows or more"),
        (
            ["quanta", "lora", "--table", "3", "--seeds", "0"],
            1,
            "Compute it: quanta-bench table 3 --seeds 0 --results nowhere --methods lora",
        ),
        (
            ["quanta", "lora", "--table", "3", "--set", "lora.target_modules=[q_proj, v_proj]"],
            1,
            "quanta-bench table 3 --set 'lora.target_modules=[q_proj, v_proj]' --results nowhere "
            "--methods lora",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(
    bench: Bench, words: list[str], status: int, message: str
) -> None:
    said = bench("compare", *words, "--results", "nowhere")
    assert said.status == status
    assert message in said.err


def test_rows_of_equal_budget_are_compared(bench: Bench) -> None:
    words = ["compare", "--table", "3", "--matched", "parameters", "--results", STUDY]
    said = bench(*words, "--json")
    assert said.status == 0
    compared = {line["row"] for line in json.loads(said.out)["differences"]}
    # LoRA's 460,800, 10 % more or less.
    assert compared == {"Prefix 40 tokens", "Series b=4", "Parallel b=8", "DoRA r=8"}
    said = bench(*words, "--reference", "quanta")
    assert said.status == 2
    assert "(205,440) within 10%. Nearest: Series b=4 414,720" in said.err


def test_rows_of_a_figure_are_compared(bench: Bench) -> None:
    words = ["LoRA r=8", "KronA 64", "--size", "full", "--results", STUDY, "--json"]
    figure, table = (bench("compare", "--table", name, *words) for name in ("figure4", "2"))
    (drawn,) = json.loads(figure.out)["differences"]
    listed = json.loads(table.out)["differences"][0]
    assert drawn["effect"] == pytest.approx(listed["effect"])


def test_rows_that_were_added_to_a_table_are_compared(bench: Bench) -> None:
    words = ["compare", "lora", "+krona", "--table", "3", "--size", "full", "--results", STUDY]
    said = bench(*words, "--json")
    assert said.status == 0
    assert {line["row"] for line in json.loads(said.out)["differences"]} == {"KronA 64"}


def test_other_rows_of_the_table_lend_their_spread(bench: Bench) -> None:
    """Two rows alone have one degree of freedom, and intervals of a hundred points."""
    said = bench("compare", "quanta", "lora", "--table", "3", "--results", STUDY, "--json")
    lines = json.loads(said.out)["differences"]
    assert {line["row"] for line in lines} == {"QuanTA 6-6-4-4"}
    (average,) = (line for line in lines if line["column"] == "Avg.")
    assert average["interval_high"] - average["interval_low"] < 25
