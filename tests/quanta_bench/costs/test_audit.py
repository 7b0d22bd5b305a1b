"""The papers' shares, recounted: what agrees, what is known not to, and what fails the audit."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from quanta_bench.costs import audit as audits
from quanta_bench.costs.audit import Audit, AuditRow, audit
from quanta_bench.results.published import published_rows
from quanta_bench.suites.loading import load_suite, shipped
from quanta_bench.suites.schema import Profile, RowSpec, Suite

AMBIGUOUS = {
    ("llama2-7b", "QuanTA 16-16-16"),
    ("llama-7b", "Prefix"),
    ("llama-13b", "Prefix"),
    ("llama3-8b", "DoRA r=16"),
    ("llama3-8b", "QuanTA 16-8-8-4"),
}


@pytest.fixture(scope="module")
def everything_and_its_memory() -> tuple[Audit, int]:
    """The whole audit and its peak of memory, from its own process: the peak is a process's."""
    code = (
        "from quanta_bench.costs.audit import audit\n"
        "from quanta_bench.utils.device import peak_memory\n"
        "print(audit().model_dump_json())\n"
        "print(peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    text, peak = done.stdout.decode().splitlines()
    return Audit.model_validate_json(text), int(peak)


@pytest.fixture(scope="module")
def everything(everything_and_its_memory: tuple[Audit, int]) -> Audit:
    return everything_and_its_memory[0]


LORA_NOWHERE = {"method": "lora", "settings": {"target_modules": ["no_such_layer"]}}


def own_suite(*rows: dict[str, Any]) -> Suite:
    specs = tuple(RowSpec.model_validate(row) for row in rows)
    profile = Profile(model="gpt2", model_source="hub", rows=specs)
    return Suite(name="own", title="Own", tasks=("boolq",), profiles={"paper": profile})


def test_every_printed_share_agrees_save_those_that_nothing_reproduces(everything: Audit) -> None:
    for row in everything.rows:
        where = (row.table, row.model, row.label, row.percent, row.printed, row.reason)
        if (row.model, row.label) in AMBIGUOUS:
            assert row.verdict == "known-ambiguous", where
            assert row.reason, where
        else:
            assert row.verdict == ("agrees" if row.printed else ""), where
            assert not row.reason, where


def test_every_printed_share_of_the_published_tables_is_audited(everything: Audit) -> None:
    for name in shipped():
        published = load_suite(name).published
        if not published:
            continue
        printed = [row["percent"] for row in published_rows(published) if row.get("percent")]
        rows = [row for row in everything.rows if row.table == name and row.printed]
        assert sorted(printed) == sorted(row.printed for row in rows)


def test_a_row_in_several_tables_is_counted_once(everything: Audit) -> None:
    # Table F.5 repeats eight rows of Table 2, Table F.6 four of Table 3, Table 4 full fine-tuning.
    assert everything.counted < len(everything.rows) - 8


def test_the_summary_and_the_drawing(everything: Audit) -> None:
    assert everything.summary.startswith(f"{len(everything.rows)} rows, ")
    console = Console(width=170)
    with console.capture() as drawn:
        console.print(audits.on_screen(everything))
    text = drawn.get()
    for words in (*everything.titles.values(), "12,582,912", "LoRA r=4", "(1) "):
        assert words in text
    assert text.rstrip().endswith(everything.summary)
    assert Audit.model_validate_json(everything.model_dump_json()) == everything


def test_a_share_relative_to_another_row() -> None:
    # LoRA on the output layer of GPT-2 has r (768 + 50257) parameters.
    lora = {"method": "lora", "model": "gpt2"}
    found = audit(
        [
            own_suite(
                {**lora, "label": "four", "settings": {"r": 4, "target_modules": ["lm_head"]}},
                {
                    **lora,
                    "label": "one",
                    "settings": {"r": 1, "target_modules": ["lm_head"]},
                    "relative_to": "four",
                    "printed": "25%",
                },
            )
        ]
    )
    four, one = found.rows
    assert (four.trainable, four.verdict) == (4 * 51_025, "")
    assert (one.percent, one.percent_of, one.verdict) == (25.0, "four", "agrees")
    assert found.passes


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({"method": "full", "printed": "99%"}, "differs"),
        ({**LORA_NOWHERE, "printed": "1%"}, "not counted"),
    ],
)
def test_what_fails_the_audit(row: dict[str, Any], verdict: str) -> None:
    found = audit([own_suite(row)])
    assert [row.verdict for row in found.rows] == [verdict]
    assert not found.passes


def test_an_ambiguous_row_and_an_unprinted_one_pass() -> None:
    found = audit(
        [
            own_suite(
                {"method": "full", "printed": "99%", "ambiguity": "why"},
                {"method": "full", "label": "without a figure"},
            )
        ]
    )
    assert [(row.verdict, row.reason) for row in found.rows] == [
        ("known-ambiguous", "why"),
        ("", ""),
    ]
    assert found.passes


def test_no_memory_for_weights(everything_and_its_memory: tuple[Audit, int]) -> None:
    # LLaMA2-70B alone would be 276 GB.
    assert everything_and_its_memory[1] < 2 * 2**30


def test_a_row_says_what_failed() -> None:
    (row,) = audit([own_suite({**LORA_NOWHERE, "printed": "1%"})]).rows
    assert isinstance(row, AuditRow)
    assert "no module is called" in row.reason
