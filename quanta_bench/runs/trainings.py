"""One training of a run: adapt the base, train, store what was trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch

from quanta_bench.data import loader
from quanta_bench.data.pools import Pools
from quanta_bench.errors import UsageError
from quanta_bench.evaluation import evaluators, limits
from quanta_bench.method import Method
from quanta_bench.models.heads import check_trains
from quanta_bench.models.loading import LoadedModel
from quanta_bench.models.precision import arithmetic
from quanta_bench.models.quantised import quantised_weights
from quanta_bench.models.sharding import shard
from quanta_bench.plugins import find_protocol
from quanta_bench.results.provenance import code_versions
from quanta_bench.results.records import Environment, TrainingRecord
from quanta_bench.results.store import Store
from quanta_bench.runs.fitting import fit_to_memory
from quanta_bench.runs.identity import Identity, PlannedRun
from quanta_bench.spec import EvaluationSpec, TrainingSpec
from quanta_bench.training import trainer
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.loggers import LoggedRun, open_loggers
from quanta_bench.training.together import Turn
from quanta_bench.training.trainer import TrainingOutcome
from quanta_bench.utils.device import free_memory
from quanta_bench.utils.energy import EnergyMeter
from quanta_bench.utils.process_group import ALONE, Group


def new_record(
    planned: PlannedRun,
    names: Identity,
    base: LoadedModel,
    precision: dict[str, str],
    where: Environment,
) -> TrainingRecord:
    """The record of a training that has not been computed yet."""
    spec, method = planned.training, planned.method
    return TrainingRecord(
        id=names.training,
        spec=spec,
        label=planned.label,
        model=base.description,
        model_fingerprint=names.model,
        data=names.training_data,
        base_parameters=base.base_parameters,
        precision=precision,
        environment=where,
        settings=method.config.model_dump(mode="json"),
        code=code_versions(spec.method, spec.tasks),
    )


class Training:
    """A training that is ready to start. The base is adapted in place.

    Args:
        record: its record so far.
        method: the method.
        base: the base model.
        store: where it is kept.
        pools: where items come from.
        device: where to train.
        packed: whether candidates may share a row.
        alone: whether no other run trains on the base at the same time: the run may then take
            what memory is free, and recompute activations where that does not suffice.
        group: the processes that share the training; each has a training of its own.
        sharded: whether the frozen weights are spread over them.

    Attributes:
        model: the adapted model.
        parameters: what trains in it, by name.
        data: its batches.
    """

    def __init__(
        self,
        record: TrainingRecord,
        method: Method[Any],
        base: LoadedModel,
        store: Store,
        pools: Pools,
        *,
        device: torch.device,
        packed: bool,
        alone: bool = False,
        group: Group = ALONE,
        sharded: bool = False,
    ) -> None:
        spec = record.spec
        self.record = record
        self.method = method
        self._base = base
        self._store = store
        self._pools = pools
        self._device = device
        self._own = {id(parameter) for parameter in base.model.parameters()}
        self._head = find_protocol(spec.protocol).new_parameters(base.model)
        self.group = group
        self._sharded = sharded
        self.data = BenchData(
            spec, pools, base.tokenizer, packed=packed, device=device, group=group
        )
        if alone:
            self._fit()
        self._adapt()
        check_trains(self._head, self.parameters, method.name)
        items = [*self.data.train_items, *self.data.validation_items]
        limits.check_training(self.model, items, spec.max_length)
        self._judge = self._judge_by_score(spec)
        if sharded:
            shard(self.model, self.parameters.values(), group)

    def _adapt(self) -> None:
        """Adapt the base.

        Raises:
            UsageError: the method trains weights of the base's that are quantised.
        """
        method, base = self.method, self._base
        quantised = quantised_weights(base.model)
        refusal = UsageError(
            f"The method {method.name!r} trains the base's own weights, and those of "
            f"{base.description} are quantised, so they cannot be trained. Take the model that it "
            "was made from, or a method that adds weights, such as lora."
        )
        try:
            self.model = method.adapt(base.model, self.record.spec.seeds.init)
        except (RuntimeError, TypeError, ValueError) as error:
            if quantised and method.base_precision == "float32":
                raise refusal from error
            raise
        self.parameters = method.trainable(self.model)
        if quantised & {id(parameter) for parameter in self.parameters.values()}:
            raise refusal

    def _fit(self) -> None:
        """Choose what a GPU's memory holds."""
        free, precision = free_memory(self._device), self.record.precision
        if free is not None:
            fit_to_memory(
                self.data,
                self.record.spec,
                self.method,
                free=free,
                wide=precision["base"] == "float32",
                mixed=precision["arithmetic"] == "bf16-mixed",
                shards=self.group.size if self._sharded else 1,
            )
        if self._sharded:
            # What all processes do in every pass.
            self.data.tokens = min(self.group.gather(self.data.tokens))
            self.data.recomputed = any(self.group.gather(self.data.recomputed))
        if self.data.recomputed:
            # Before adapting, so that a method that cannot work with it can refuse.
            trainer.recompute_activations(self._base.model)

    def train(
        self,
        advance: Callable[[int, int], None],
        energy: EnergyMeter | None = None,
        turn: Turn[TrainingOutcome] | None = None,
        loggers: Sequence[str] = (),
    ) -> TrainingOutcome:
        """Train to the end; arguments as of :func:`quanta_bench.training.trainer.train`.

        The loggers are given by name (:mod:`quanta_bench.training.loggers`).

        Raises:
            BenchError: a logger cannot be started.
            RunInProgressError: another process has taken the training over.
        """

        def checked(done: int, total: int) -> None:
            self._store.leases.check(self.record.id)
            advance(done, total)

        run = LoggedRun.of(self.record)
        names = loggers if self.group.leads else ()
        with open_loggers(names, self._store.root, run) as opened:
            return trainer.train(
                self.model,
                self.method,
                self.record.spec,
                self.data,
                self._store.unfinished_folder(self.record.id),
                device=self._device,
                precision=self.record.precision["arithmetic"],
                advance=checked,
                judge=self._judge,
                energy=energy,
                turn=turn,
                loggers=opened,
            )

    def write(
        self, trained: TrainingOutcome, *, peak_memory: int | None = None, together: int = 1
    ) -> None:
        """Store what was trained.

        Args:
            trained: what training returned.
            peak_memory: in bytes, where it was measured.
            together: how many runs were trained together.
        """
        own, data, parameters = self._own, self.data, self.parameters.values()
        record = self.record.model_copy(
            update={
                "trainable_parameters": sum(value.numel() for value in parameters),
                "head_parameters": sum(value.numel() for value in self._head.values()),
                "added_parameters": sum(v.numel() for v in parameters if id(v) not in own),
                **trained.measured,
                "steps": data.steps,
                "recomputed": data.recomputed,
                "predicted_memory_bytes": data.predicted_bytes,
                "cut_items": data.cut,
                "train_items": len(data.train_items),
                "validation_items": len(data.validation_items),
                "together": together,
                "elapsed_seconds": trained.elapsed,
                "peak_memory_bytes": None if trained.resumed else peak_memory,
                "halvings": trained.halvings + loader.halvings(),
            }
        )
        folder = self._store.unfinished_folder(record.id)
        with self._store.write_training(record) as target:
            self.method.save(self.model, target / "adapter")
            shutil.copytree(folder / trainer.LOGS, target / trainer.LOGS)
        trainer.clear(folder)

    def _judge_by_score(self, spec: TrainingSpec) -> Callable[[], float] | None:
        """A function that scores generated answers to the validation items during training.

        ``None`` unless the spec selects checkpoints by score.

        Raises:
            UsageError: the items with their answers exceed the training's limits.
        """
        if spec.select != "score" or not find_protocol(spec.protocol).generates:
            return None
        samples = self._pools.sample(
            spec.tasks, spec.source, "validation", spec.validation_items, spec.seeds.sample
        )
        scoring = EvaluationSpec(
            tasks=spec.tasks,
            protocol=spec.protocol,
            max_length=spec.max_length,
            chat_template=spec.chat_template,
        )
        tokenizer = self._base.tokenizer
        limits.check_evaluation(self.model, tokenizer, scoring, samples, section="training")
        context = evaluators.Context(
            self.model,
            tokenizer,
            scoring,
            packed=False,
            cached=bool(self.method.cacheable),
            device=self._device,
            advance=lambda _: None,
            group=self.group,
        )

        def score() -> float:
            with arithmetic(self.record.precision, self._device):
                return evaluators.mean_score(context, samples)

        return score
