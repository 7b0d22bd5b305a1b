"""Several runs trained together over one base, against one run and against one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from quanta_bench.benchmark import (
    Benchmark,
    Case,
    Conditions,
    Finding,
    Outcome,
    at_least,
    at_most,
)
from quanta_bench.benchmarks.materials import Materials, make, row_settings, scratch
from quanta_bench.data.loader import training_tokens
from quanta_bench.data.pools import Pools
from quanta_bench.method import Method
from quanta_bench.models.capabilities import can_pack
from quanta_bench.models.stacking import StackedModel, twin
from quanta_bench.spec import TrainingSpec
from quanta_bench.suites.loading import load_suite
from quanta_bench.timing import interleave, speed_ratio, time_ratio
from quanta_bench.training import trainer
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.together import Passes, Turn, train_together
from quanta_bench.training.trainer import TrainingOutcome

RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
SUITES = ("sums", "table3")
ONE, TOGETHER, AFTER = "one run", "together", "one after another"


class Together(Benchmark):
    """Whole trainings: a sweep of five learning rates, on a GPU with LoRA and with QuanTA."""

    name = "together"
    title = "several runs trained together over one base"
    reads = True
    place = 15

    def run(self, conditions: Conditions) -> Outcome:
        """A case for short items and one for longer ones."""
        materials = Materials.of(conditions)
        cuda = materials.device.type == "cuda"
        methods = ("lora", "quanta") if cuda else ("lora",)
        suites = conditions.choose(SUITES, quick=SUITES[:1])
        rounds = conditions.choose(5 if cuda else 3, quick=1)
        cases = [compare(materials, suite, methods, rounds, conditions) for suite in suites]
        return Outcome(
            cases=cases,
            notes=[
                "A sample is a whole training with one validation. A pass holds the rows of as "
                "many runs as fit into the tokens of a micro-batch."
            ],
        )


def compare(
    materials: Materials,
    suite: str,
    methods: Sequence[str],
    rounds: int,
    conditions: Conditions,
) -> Case:
    """Time one run, all together and, on a processor, one after another."""
    conditions.tell(f"{suite}: loading")
    cuda = materials.device.type == "cuda"
    # On a processor the sample of a side with five runs would take minutes.
    items = conditions.choose(128, quick=32) if cuda else conditions.choose(32, quick=16)
    runs = Runs(materials, suite, methods, items)
    sides: dict[str, Callable[[], object]] = {ONE: runs.first, TOGETHER: runs.together}
    if not cuda:
        sides[AFTER] = runs.one_after_another
    conditions.tell(f"{suite}: {len(runs.works)} runs, {rounds} rounds")
    one, together, *after = interleave(sides, rounds=rounds)
    findings: list[Finding] = [
        time_ratio(together, one, target=at_most(2.5) if cuda else None),
        *(
            speed_ratio(together, side, target=at_least(1.3), title="speed, together / after")
            for side in after
        ),
    ]
    return Case(
        title=f"{len(runs.works)} runs, items of {suite}, {materials.precision['base']}",
        sides=[one, together, *after],
        findings=findings,
    )


class Runs:
    """Runs over one base: a sweep of learning rates for each method.

    Args:
        materials: model and data.
        suite: whose tasks and training settings they have.
        methods: the methods.
        items: training items of all tasks.
    """

    def __init__(
        self, materials: Materials, suite: str, methods: Sequence[str], items: int
    ) -> None:
        base = materials.load()
        self.materials = materials
        packed = can_pack(base.model)
        self.works: list[Callable[..., TrainingOutcome]] = []
        twins, trained, objectives = [], [], []
        for name in methods:
            for rate in RATES:
                spec = training(materials, suite, name, items, rate)
                method = make(name, row_settings(name))
                twins.append(twin(base.model))
                model = method.adapt(twins[-1], 0).to(materials.device)
                own = replace(base, model=model)
                data = BenchData(spec, Pools(), own.tokenizer, packed=packed)
                trained.append([*method.trainable(model).values()])
                objectives.append(data.objective)
                self.works.append(partial(self._train, model, method, spec, data))
        groups = [number // len(RATES) for number in range(len(twins))]
        self.passes = Passes(
            StackedModel(base.model, twins, trained, groups),
            objectives,
            training_tokens(materials.device),
            materials.autocast,
        )

    def first(self) -> None:
        """Train the first run alone."""
        self.works[0]()

    def one_after_another(self) -> None:
        """Train all runs, each alone."""
        for work in self.works:
            work()

    def together(self) -> None:
        """Train all runs together.

        Raises:
            BaseException: what a run raised.
        """
        works = [partial(_by_turn, work) for work in self.works]
        for outcome in train_together(works, self.passes):
            if isinstance(outcome, BaseException):
                raise outcome

    def _train(
        self,
        model: nn.Module,
        method: Method[Any],
        spec: TrainingSpec,
        data: BenchData,
        turn: Turn[TrainingOutcome] | None = None,
    ) -> TrainingOutcome:
        with scratch() as folder:
            return trainer.train(
                model,
                method,
                spec,
                data,
                Path(folder),
                device=self.materials.device,
                precision=self.materials.precision["arithmetic"],
                advance=lambda done, steps: None,
                turn=turn,
            )


def _by_turn(work: Callable[..., TrainingOutcome], turn: Turn[TrainingOutcome]) -> TrainingOutcome:
    return work(turn=turn)


def training(
    materials: Materials, suite: str, method: str, items: int, rate: float
) -> TrainingSpec:
    """A short training on the tasks of a suite, with its settings."""
    loaded = load_suite(suite)
    values: Mapping[str, Any] = loaded.profiles["embedded"].training
    spec = materials.spec(method, row_settings(method))
    own = {name: value for name, value in values.items() if name != "learning_rate"}
    return TrainingSpec(
        **{
            **spec.model_dump(include={"model", "method", "settings", "source"}),
            **own,
            "tasks": tuple(loaded.tasks),
            "train_items": max(1, items // len(loaded.tasks)),
            "validation_items": 2,
            "validations": 1,
            "learning_rate": rate,
        }
    )
