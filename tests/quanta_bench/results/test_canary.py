"""Canaries: read, compared, and what tables say of rows from several stacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from results_by_hand import Bench, items, sentences, suite

from quanta_bench.results import canary
from quanta_bench.results.canary import Canary, agree, stack_of
from quanta_bench.results.records import Environment


def stack(torch: str, device: str = "d") -> Environment:
    return Environment(
        packages={"torch": torch, "quanta-bench": "0.1.0"},
        python="3.11",
        platform="p",
        device=device,
        threads=1,
    )


def made(environment: Environment, mean: float, error: float = 0.3, version: int = 1) -> Canary:
    return Canary(
        version=version,
        stack=stack_of(environment),
        name=canary.in_words(environment),
        mean=mean,
        standard_error=error,
        items=100,
    )


def test_a_stack_is_packages_and_device_and_not_the_suite() -> None:
    one = stack("2.13.0")
    later = one.model_copy(update={"packages": {**one.packages, "quanta-bench": "0.2"}, "jobs": 7})
    assert stack_of(one) == stack_of(later)
    assert len({stack_of(s) for s in (one, stack("2.14.0"), stack("2.13.0", "another"))}) == 3


@pytest.mark.parametrize(
    ("gap", "version", "same"), [(0.8, 1, True), (0.9, 1, False), (0, 2, False)]
)
def test_canaries_agree_within_two_standard_errors(gap: float, version: int, same: bool) -> None:
    one, other = made(stack("1"), -20), made(stack("2"), -20 + gap, version=version)
    assert agree(one, other) is same
    assert agree(other, one) is same


@pytest.mark.parametrize(
    ("means", "said"),
    [
        (
            {},
            "Whether rows of 2 stacks compare is not known; no canary of: d, torch 1; d, torch 2.",
        ),
        ({"1": -20.0}, "no canary of: d, torch 2."),
        ({"1": -20.0, "2": -20.1}, "Rows come from 2 stacks, whose canaries agree."),
        ({"1": -20.0, "2": -25.0}, "Rows cannot be compared across these stacks"),
    ],
)
def test_a_table_says_what_the_canaries_of_its_rows_say(
    bench: Bench, means: dict[str, float], said: str
) -> None:
    scored = {"boolq": items([1, 0]), "piqa": items([1, 0])}
    rows = []
    for torch in ("1", "2"):
        environment = stack(torch)
        result = bench.result(scored, training={"environment": environment})
        rows.append({0: result.model_copy(update={"evaluation_environment": environment})})
        if torch in means:
            path = bench.store.root / canary.FOLDER / f"{stack_of(environment)}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(made(environment, means[torch]).model_dump_json())
    told = [
        note for note in sentences(bench.table(suite("lora", "dora"), *rows)) if "stacks" in note
    ]
    assert len(told) == 1
    assert said in told[0]
    one_stack = bench.table(suite("lora"), rows[0])
    assert not any("stacks" in note for note in sentences(one_stack))


def test_a_damaged_canary_is_none(tmp_path: Path) -> None:
    folder = tmp_path / canary.FOLDER
    folder.mkdir()
    whole = made(stack("1"), -20).model_dump_json()
    for content in ("", whole[:30], whole.replace("-20", "NaN"), "[]"):
        (folder / "x.json").write_text(content)
        assert canary.of_folder(tmp_path) == {}
    (folder / "x.json").write_text(whole)
    assert list(canary.of_folder(tmp_path).values()) == [made(stack("1"), -20)]
