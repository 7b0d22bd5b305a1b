"""The command `verify`, and `figure 1`: what they print, write and refuse."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
from command_line import Bench
from scipy import stats

from quanta_bench import experiment, verification
from quanta_bench.experiment import Curve, Experiment, Panel, Point
from quanta_bench.plugins import EXPERIMENTS, VERIFICATIONS
from quanta_bench.report.experiment_figure import interval
from quanta_bench.verification import BenchError, Conditions, Finding, Outcome, Verification


class Fair(Verification):
    name = "ranks"
    title = "One that passes"
    source = "Theorem 1"
    place = 1

    def run(self, conditions: Conditions) -> Outcome:
        cases = conditions.choose(100, quick=10)
        finding = Finding("off by", cases, conditions.seed * 1e-12, 1e-9)
        return Outcome([finding], ["A note [on it]."])


class Unfair(Verification):
    name = "krona"
    title = "One that fails"
    source = "Theorem 2"
    place = 2
    found: ClassVar[Any] = math.nan

    def run(self, conditions: Conditions) -> Outcome:
        if isinstance(self.found, Exception):
            raise self.found
        return Outcome([Finding("off by", 3, 0.0, 0), Finding("worse", 3, self.found, 1e-9)])


class Straight(Experiment):
    name = "figure1"
    title = "Straight lines"

    def run(self, conditions: experiment.Conditions) -> experiment.Outcome:
        conditions.tell("drawing [lines]")
        seeds = conditions.seeds or (0, 1, 2)
        points = tuple(Point(x, tuple(x + s for s in seeds), "rate 1") for x in (1, 8))
        curves = (Curve("one", "8", points), Curve("best", "", points, reference=True))
        return experiment.Outcome([Panel("left", curves)], "across", "upward", "A caption.")


@pytest.fixture
def bench(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The command, where these checks and this experiment are the registered ones."""
    for check in (Fair, Unfair):
        monkeypatch.setitem(VERIFICATIONS._loaded, check.name, check)
    monkeypatch.setitem(EXPERIMENTS._loaded, "figure1", Straight)
    return bench


def test_a_check_that_passes_is_shown_with_all_it_found(bench: Bench) -> None:
    said = bench("verify", "ranks", "--seed", "2")
    assert said.status == 0
    words = " ".join(said.out.split())
    assert "ranks Theorem 1 off by 100 2e-12 1e-09 pass" in words
    assert "ranks: A note [on it]." in words
    assert "1 of 1 checks passed (seed 2)." in words


@pytest.mark.parametrize("found", [math.nan, 1e-8, math.inf, BenchError("no room here")])
def test_one_that_fails_is_named_and_ends_with_1(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, found: Any
) -> None:
    monkeypatch.setattr(Unfair, "found", found)
    said = bench("verify", "krona", "ranks")
    assert said.status == 1
    assert "FAIL" in said.out
    assert "1 of 2 checks passed" in said.out
    assert ("no room here" in said.out) == isinstance(found, BenchError)


def test_json_has_every_finding(bench: Bench) -> None:
    said = bench("verify", "krona", "ranks", "--quick", "--json")
    first, second = json.loads(said.out)
    assert said.status == 1
    assert (first["name"], first["passed"], first["findings"][0]["cases"]) == ("ranks", True, 10)
    assert [finding["passed"] for finding in second["findings"]] == [True, False]
    assert second["findings"][1]["deviation"] is None


def test_a_check_without_cases_does_not_pass() -> None:
    assert not Finding("nothing tried", 0, 0.0, 1).passed
    assert not Outcome([]).passed


def test_an_unknown_check_is_refused(bench: Bench) -> None:
    said = bench("verify", "rank")
    assert said.status == 2
    assert "There is no check called 'rank'" in said.err
    assert "ranks" in said.err


def test_the_registered_checks_are_listed() -> None:
    assert {"ranks", "universality", "fitting", "krona", "composition", "dense"} <= set(
        VERIFICATIONS.names()
    )
    for check in verification_classes():
        assert check.source.startswith("QuanTA paper, ")


def verification_classes() -> list[type[verification.Verification]]:
    usable, reasons = VERIFICATIONS.usable()
    assert not reasons
    return list(usable.values())


def test_an_experiment_is_drawn_and_written(bench: Bench, tmp_path: Path) -> None:
    said = bench("figure", "1", "--results", tmp_path)
    assert said.status == 0, said.err
    assert "drawing [lines]" in said.err
    assert "A caption." in said.out
    assert {path.name for path in tmp_path.iterdir()} == {
        f"figure1.{ending}" for ending in ("csv", "json", "png", "svg")
    }
    with (tmp_path / "figure1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["x"] for row in rows] == ["1", "8", "1", "8"]
    low, high = stats.t.interval(0.95, 2, loc=2, scale=stats.sem([1, 2, 3]))
    assert float(rows[0]["mean"]) == 2
    assert float(rows[0]["low"]) == pytest.approx(low)
    assert float(rows[0]["high"]) == pytest.approx(high)
    points = json.loads((tmp_path / "figure1.json").read_text())["points"]
    assert points[1]["values"] == [8, 9, 10]


def test_seeds_and_json_of_an_experiment(bench: Bench, tmp_path: Path) -> None:
    said = bench("figure", "figure1", "--seeds", "4", "--json", "--results", tmp_path, "--quick")
    assert said.status == 0
    found = json.loads(said.out)
    assert found["points"][0]["values"] == [5]
    assert found["points"][0]["low"] is None
    assert "drawing" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("1", "--methods", "lora"), "--methods does not apply"),
        (("1", "--dry-run"), "--dry-run does not apply"),
        (("1", "--seeds", "1,1"), "distinct integers"),
        (("1", "--seeds", "x"), "integers"),
        (("4", "--quick"), "--quick applies to figure 1 only"),
    ],
)
def test_what_an_experiment_does_not_take_is_refused(
    bench: Bench, words: tuple[str, ...], said: str
) -> None:
    found = bench("figure", *words)
    assert found.status == 2
    assert said in found.err


def test_a_training_that_diverged_is_no_number(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Experiment, conditions: experiment.Conditions) -> experiment.Outcome:
        curve = Curve("one", "8", (Point(1, (math.inf, 1.0)), Point(2, (1.0, 2.0))))
        return experiment.Outcome([Panel("left", (curve,))], "across", "upward", "A caption.")

    monkeypatch.setattr(Straight, "run", run)
    said = bench("figure", "1", "--json", "--results", tmp_path)
    assert said.status == 0, said.err
    (first, second) = json.loads(said.out)["points"]
    assert "Infinity" not in said.out
    assert (first["mean"], first["values"]) == (None, [None, 1.0])
    assert second["mean"] == 1.5


def test_an_interval_of_values_that_are_not_finite_has_no_ends() -> None:
    assert interval([1.0, math.inf]) == (math.inf, None, None)
    assert interval([2.0]) == (2.0, None, None)
