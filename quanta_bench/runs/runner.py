"""One run, start to result: train unless that was done, score unless that was done, store."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quanta_bench.data.pools import Pools
from quanta_bench.evaluation import evaluators, limits, summary
from quanta_bench.method import Method
from quanta_bench.models.capabilities import can_pack
from quanta_bench.models.heads import check_trains, head_of
from quanta_bench.models.loading import (
    LoadedModel,
    is_here,
    load_classifier,
    load_model,
)
from quanta_bench.models.precision import arithmetic, resolve
from quanta_bench.plugins import find_task
from quanta_bench.results.environment import environment
from quanta_bench.results.records import Result, TaskResult, TrainingRecord
from quanta_bench.results.store import Store
from quanta_bench.runs.identity import Identity, PlannedRun, model_reference
from quanta_bench.runs.progress import Reporter
from quanta_bench.spec import EvaluationSpec, Job, TrainingSpec
from quanta_bench.task import Example, Task
from quanta_bench.training import trainer
from quanta_bench.training.datamodule import BenchData
from quanta_bench.utils.device import peak_memory, reset_peak_memory, this_device


class Runner:
    """Computes runs and stores them.

    Args:
        store: where results go.
        reporter: who is told of progress.
        pools: where items come from.
        jobs: how many runs are computed at once on the machine; recorded.
    """

    def __init__(
        self, store: Store, reporter: Reporter, pools: Pools | None = None, *, jobs: int = 1
    ) -> None:
        self.store = store
        self.jobs = jobs
        self.reporter = reporter
        self.pools = pools or Pools()
        self._renewed: set[str] = set()

    def identify(self, job: Job) -> Identity:
        """The names of a job's run. Reads data and hashes the model, but computes nothing."""
        return PlannedRun.of(job).identify(self.pools)

    def find(self, job: Job) -> Result | None:
        """The job's result if it is on disk.

        What was computed is named by the model's content, so nothing is looked for while the model
        itself would have to be downloaded first.
        """
        planned = PlannedRun.of(job)
        if not is_here(planned.model):
            return None
        return self.store.result(planned.identify(self.pools).run)

    def run(self, job: Job, *, fresh: bool = False) -> Result:
        """The job's result, from disk if it is there.

        Args:
            job: the run.
            fresh: compute it again, training included.

        Raises:
            BenchError: anything the user has to act on; what was finished stays on disk.
            KeyboardInterrupt: the user stopped; the same call goes on later.
        """
        planned = PlannedRun.of(job)
        names = planned.identify(self.pools)
        done = self.store.result(names.run)
        if done is not None and not fresh:
            return done
        with self.store.computing(names.training):
            if fresh:
                # Several scorings of one training train it once.
                if names.training not in self._renewed:
                    self.store.forget(names.training)
                self._renewed.add(names.training)
            elif (done := self.store.result(names.run)) is not None:
                return done  # another process finished it meanwhile
            return self._compute(planned, names)

    def _compute(self, planned: PlannedRun, names: Identity) -> Result:
        reset_peak_memory()
        spec, method = planned.training, planned.method
        device = this_device()
        record = self.store.training(names.training)
        if record is not None:
            # Scored in the precision that it was trained in, whatever is fastest here now.
            precision = record.precision
        else:
            folder = self.store.unfinished_folder(names.training)
            precision = _kept_precision(folder, spec, method, device)
        base = _load(spec, getattr(torch, precision["base"]))
        extra = int(getattr(method.config, "num_virtual_tokens", 0) or 0)
        scored = self._scored_items(planned.evaluation)
        limits.check_evaluation(
            base.model, base.tokenizer, planned.evaluation, [*scored.values()], extra=extra
        )
        # Asked of the plain base, before a method changes it in place.
        packed = spec.protocol != "head" and bool(method.cacheable) and can_pack(base.model)
        if record is None:
            record, model = self._train(
                planned.label, spec, method, base, names, precision, device, packed
            )
        elif method.trains:
            adapter = self.store.training_folder(names.training) / "adapter"
            model = method.load(base.model, adapter)
        else:
            model = base.model
        model = model.to(device).eval()
        return self._evaluate(planned.evaluation, method, record, model, base, names, packed)

    def _train(
        self,
        label: str,
        spec: TrainingSpec,
        method: Method[Any],
        base: LoadedModel,
        names: Identity,
        precision: dict[str, str],
        device: torch.device,
        packed: bool,
    ) -> tuple[TrainingRecord, nn.Module]:
        model = base.model
        record = TrainingRecord(
            id=names.training,
            spec=spec,
            label=label,
            model=base.description,
            model_fingerprint=names.model,
            data=names.training_data,
            base_parameters=base.base_parameters,
            precision=precision,
            environment=environment(self.jobs),
        )
        if not method.trains:
            with self.store.write_training(record):
                pass
            return record, model
        own = {id(parameter) for parameter in model.parameters()}
        head = head_of(model) if spec.protocol == "head" else {}
        if spec.gradient_checkpointing:
            # Before adapting, so that a method that cannot work with it can refuse.
            trainer.recompute_activations(model)
        model = method.adapt(model, spec.seeds.init)
        parameters = method.trainable(model)
        check_trains(head, parameters, method.name)
        data = BenchData(spec, self.pools, base.tokenizer, packed=packed, device=device)
        limits.check_training(model, data.train_items, spec.max_length)
        folder = self.store.unfinished_folder(names.training)
        trained = trainer.train(
            model,
            method,
            spec,
            data,
            folder,
            device=device,
            precision=precision["arithmetic"],
            advance=self.reporter.training,
            judge=self._judge(spec, method, model, base, precision, device),
        )
        record = record.model_copy(
            update={
                "trainable_parameters": sum(value.numel() for value in parameters.values()),
                "head_parameters": sum(value.numel() for value in head.values()),
                "added_parameters": sum(
                    value.numel() for value in parameters.values() if id(value) not in own
                ),
                "steps": data.steps,
                "tokens": trained.tokens,
                "cut_items": data.cut,
                "train_items": len(data.train_items),
                "validation_items": len(data.validation_items),
                "seconds": trained.seconds,
                "peak_memory_bytes": peak_memory(),
                "losses": trained.losses,
                "validations": [tuple(validation) for validation in trained.validations],
                "best_step": trained.best.step,
                "best_validation": trained.best.metric,
                "resumed": trained.resumed,
            }
        )
        with self.store.write_training(record) as target:
            method.save(model, target / "adapter")
            shutil.copytree(folder / trainer.LOGS, target / trainer.LOGS)
        trainer.clear(folder)
        return record, model

    def _scored_items(self, spec: EvaluationSpec) -> dict[str, tuple[Task, Sequence[Example]]]:
        """Each task that is scored, with its items."""
        drawn = self.pools.drawn(spec.tasks, spec.source, spec.split, spec.items, spec.sample)
        return dict(zip(spec.tasks, drawn, strict=True))

    def _judge(
        self,
        spec: TrainingSpec,
        method: Method[Any],
        model: nn.Module,
        base: LoadedModel,
        precision: dict[str, str],
        device: torch.device,
    ) -> Callable[[], float] | None:
        """What answers to the validation items a model in training generates, as a score.

        None unless the spec chooses its checkpoint so.
        """
        if spec.select != "score" or spec.protocol != "generate":
            return None
        drawn = self.pools.drawn(
            spec.tasks, spec.source, "validation", spec.validation_items, spec.seeds.sample
        )
        context = evaluators.Context(
            model,
            base.tokenizer,
            EvaluationSpec(tasks=spec.tasks, protocol="generate", max_length=spec.max_length),
            packed=False,
            cached=bool(method.cacheable),
            device=device,
            advance=lambda _: None,
        )

        def score() -> float:
            with arithmetic(precision, device):
                return evaluators.mean_score(context, drawn)

        return score

    def _evaluate(
        self,
        spec: EvaluationSpec,
        method: Method[Any],
        record: TrainingRecord,
        model: nn.Module,
        base: LoadedModel,
        names: Identity,
        packed: bool,
    ) -> Result:
        device = next(model.parameters()).device
        drawn = self._scored_items(spec)
        texts = (spec.forgetting,) if spec.forgetting else ()
        taken = self.pools.drawn(
            texts, spec.forgetting_source, "test", spec.forgetting_items, spec.sample
        )
        forgetting = dict(zip(texts, taken, strict=True))
        self.reporter.scoring(sum(len(e) for _, e in (*drawn.values(), *forgetting.values())))
        context = evaluators.Context(
            model,
            base.tokenizer,
            spec,
            packed=packed,
            cached=bool(method.cacheable),
            device=device,
            advance=self.reporter.scored,
        )
        start = time.perf_counter()
        results: dict[str, TaskResult] = {}
        predictions: list[Mapping[str, Any]] = []
        with arithmetic(record.precision, device):
            for reference, (task, examples) in drawn.items():
                begun = time.perf_counter()
                judged = evaluators.evaluate(context, task, examples)
                seconds = time.perf_counter() - begun
                results[reference] = summary.summarise(
                    task, spec.protocol, judged, seconds, names.evaluation_data[reference]
                )
                predictions += [summary.line(reference, item) for item in judged]
            lost = {
                reference: evaluators.perplexity(evaluators.evaluate(context, task, examples))
                for reference, (task, examples) in forgetting.items()
            }
        result = Result(
            run=names.run,
            training=record,
            evaluation=spec,
            protocol={
                "put": spec.protocol,
                "loss": record.spec.loss if record.steps else "",
                "trained_as": record.spec.protocol if record.steps else "",
                "normaliser": spec.normaliser,
            },
            tasks=results,
            forgetting=lost,
            evaluation_precision=record.precision,
            evaluation_seconds=time.perf_counter() - start,
            tokens_per_second=record.tokens / record.seconds if record.seconds else 0.0,
            evaluation_environment=environment(self.jobs),
        )
        self.store.write_run(result, predictions)
        return result


def _load(spec: TrainingSpec, dtype: torch.dtype) -> LoadedModel:
    """The spec's base model, with a new head where the protocol has one."""
    if spec.protocol != "head":
        return load_model(model_reference(spec), dtype)
    task = find_task(spec.tasks[0])
    return load_classifier(model_reference(spec), dtype, outputs=task.outputs, seed=spec.seeds.init)


def _kept_precision(
    folder: Path, spec: TrainingSpec, method: Method[Any], device: torch.device
) -> dict[str, str]:
    """A training's precision: chosen once, and kept for when it goes on after a stop.

    The choice may rest on a timing, and a run must not change its base half-way.
    """
    path = folder / "precision.json"
    if path.exists():
        kept: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    dtype, arithmetic = resolve(spec.precision, method.base_precision, device.type)
    precision = {"base": str(dtype).removeprefix("torch."), "arithmetic": arithmetic}
    if method.trains:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(precision), encoding="utf-8")
    return precision
