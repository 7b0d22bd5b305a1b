"""The benchmarks of scoring, generation and start-up on a tiny model; ways that agree."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from quanta_bench.benchmark import Conditions
from quanta_bench.benchmarks import adapted, generation, scoring, startup
from quanta_bench.benchmarks.materials import Materials
from quanta_bench.errors import BenchError
from quanta_bench.spec import EvaluationSpec


def test_three_ways_to_score_choose_the_same(conditions: Conditions, exact: None) -> None:
    pytest.importorskip("lm_eval")
    materials = Materials.of(conditions)
    base = materials.load()
    task, examples = materials.items("arc_easy", "test", 6)
    case = scoring.compare(materials, base, task, examples, 2, packed=True)
    assert [side.name for side in case.sides] == [
        "ours",
        "one candidate at a time",
        "lm-eval, batches of 8",
        "lm-eval, batches of 32",
    ]
    assert all(side.work == [2.0, 2.0] for side in case.sides)
    speeds, work, counts = case.findings[:2], case.findings[2:4], case.findings[4:]
    assert [finding.title.split(",")[0] for finding in speeds] == ["items/s"] * 2
    assert [finding.title.split(",")[0] for finding in work] == ["multiply-adds"] * 2
    assert all("of 6" in finding.title for finding in counts[::2])
    assert [finding.value for finding in counts] == [0, 0, 0, 0]


def test_multiply_adds_are_those_that_torch_counts(conditions: Conditions, exact: None) -> None:
    base = Materials.of(conditions).load()
    ids = torch.arange(3, 15).view(2, 6)
    with FlopCounterMode(display=False) as counter, scoring.tokens_read(base.model) as tokens:
        base.model(input_ids=ids)
    counts = counter.get_flop_counts()["Global"]
    expected = sum(
        counts[name] for name in (torch.ops.aten.mm, torch.ops.aten.addmm) if name in counts
    )
    assert tokens == [12]
    assert 2 * scoring.multiply_adds(base.model, 12, 12) == expected


def test_ways_agree_on_every_log_likelihood(conditions: Conditions, exact: None) -> None:
    pytest.importorskip("lm_eval")
    materials = Materials.of(conditions)
    base = materials.load()
    task, examples = materials.items("arc_easy", "test", 3)
    spec = EvaluationSpec(tasks=(task.name,))
    items = scoring.PromptedItems(
        task, examples, [task.prompt(item, spec.protocol) for item in examples]
    )
    one = scoring.one_at_a_time(materials, base, spec, items)
    harness = scoring.Harness(materials, base, spec.max_length, 8).score(items)
    for mine, other in zip(one, harness, strict=True):
        assert mine == pytest.approx(other, abs=1e-3)


def test_choices_that_lie_within_rounding_are_told_apart() -> None:
    ours, theirs = (
        [[-1.0, -2.0], [-1.0, -2.0], [-3.0, -1.0]],
        [[-1.0, -2.0], [-2.0, -1.98], [-1.0, -3.0]],
    )
    assert scoring.disagreements(ours, theirs, 0.0) == 2
    assert scoring.disagreements(ours, theirs, scoring.rounding(torch.bfloat16)) == 1
    assert scoring.disagreements(ours, theirs, 5.0) == 0
    assert scoring.rounding(torch.float32) == 1e-3


def test_generated_texts_are_equal_in_single_precision(conditions: Conditions) -> None:
    materials = Materials.of(conditions)
    task, examples = materials.items("drop", "test", 4)
    case = generation.compare(materials, torch.float32, task, examples)
    speed, texts = case.findings
    assert speed.title == "items/s, ours / one at a time"
    assert (texts.title, texts.value, texts.met) == ("texts of 4 that differ", 0, True)
    assert [side.work for side in case.sides] == [[4], [4]]


def test_commands_are_timed_and_a_failing_one_is_an_error(
    conditions: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "SHORT", {"--version": ("--version",)})
    (case,) = startup.Startup().run(conditions).cases
    assert [finding.title for finding in case.findings] == [
        "seconds, Python itself",
        "seconds, --version",
    ]
    assert 0 < case.findings[0].value < case.findings[1].value
    with pytest.raises(BenchError, match="status 2"):
        startup.call("-m", "quanta_bench.cli.main", "no-such-command")


def test_methods_that_merge_are_timed_beside_the_base(conditions: Conditions, exact: None) -> None:
    scored, answered = adapted.Adapted().run(conditions).cases
    assert [scored.title, answered.title] == [
        "arc_easy, float32",
        "basic_arithmetic, float32",
    ]
    for case in (scored, answered):
        assert [side.name for side in case.sides] == ["base", "LoRA r=8", "DoRA r=8"]
        assert [finding.title for finding in case.findings] == [
            "time, LoRA r=8 / base",
            "time, DoRA r=8 / base",
        ]
        assert all(len(side.seconds) == 2 and side.work == [4, 4] for side in case.sides)


def test_a_method_that_does_not_merge_or_fit_is_not_timed(conditions: Conditions) -> None:
    names = ["lora", "series", "prefix", "full", "none", "quanta"]
    models = adapted.Models(Materials.of(conditions), torch.float32, names)
    assert [*models.models] == ["base", "LoRA r=8"]
    (note,) = models.notes
    assert note.startswith("QuanTA 6-6-4-4 does not fit this model")
