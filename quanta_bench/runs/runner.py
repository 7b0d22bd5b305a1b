"""One run, start to result: train unless that was done, score unless that was done, store."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.evaluation import evaluators, summary
from quanta_bench.evaluation.packing import can_pack
from quanta_bench.method import Method
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
from quanta_bench.results.integrity import DamagedError
from quanta_bench.results.provenance import code_versions, stale, stale_training
from quanta_bench.results.records import Result, TaskResult, TrainingRecord
from quanta_bench.results.store import Store
from quanta_bench.runs.identity import Identity, PlannedRun, model_reference
from quanta_bench.runs.progress import Reporter
from quanta_bench.spec import EvaluationSpec, Job, TrainingSpec
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
        """The job's result if it is on disk, checked; a damaged one is set aside.

        What was computed is named by the model's content, so nothing is looked for while the model
        itself would have to be downloaded first.

        Raises:
            NewerSchemaError: a later version of the suite wrote it.
        """
        planned = PlannedRun.of(job)
        if not is_here(planned.model):
            return None
        names = planned.identify(self.pools)
        result = self._result(planned, names)
        if result is None:
            # What is damaged of a training is said before anything is computed.
            self._training(planned, names)
        return result

    def _result(self, planned: PlannedRun, names: Identity) -> Result | None:
        """A stored result of these specs and this content, or ``None``."""
        folder = self.store.run_folder(names.run)
        try:
            result = self.store.result(names.run)
            if result is not None:
                _check_identity(folder, planned, names, result.training, result)
        except DamagedError as error:
            self.store.set_aside(folder, error)
            return None
        return result

    def _training(self, planned: PlannedRun, names: Identity) -> TrainingRecord | None:
        """A stored training of this spec and content with its adapter whole, or ``None``."""
        folder = self.store.training_folder(names.training)
        try:
            record = self.store.training(names.training)
            if record is not None:
                _check_identity(folder, planned, names, record)
                if planned.method.trains:
                    self.store.adapter(record)
        except DamagedError as error:
            self.store.set_aside(folder, error)
            return None
        return record

    def is_stale(self, job: Job, result: Result | None) -> bool:
        """Whether a job's result, or the training that it would score, is of other code."""
        if result is not None:
            return bool(stale(result))
        planned = PlannedRun.of(job)
        if not is_here(planned.model):
            return False
        record = self._training(planned, planned.identify(self.pools))
        return record is not None and bool(stale_training(record))

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
        done = self._result(planned, names)
        if done is not None and not fresh:
            return done
        with self.store.computing(names.training):
            if fresh:
                # Several scorings of one training train it once.
                if names.training not in self._renewed:
                    self.store.forget(names.training)
                self._renewed.add(names.training)
            elif (done := self._result(planned, names)) is not None:
                return done  # another process finished it meanwhile
            return self._compute(planned, names)

    def _compute(self, planned: PlannedRun, names: Identity) -> Result:
        reset_peak_memory()
        alone = _alone_in_process()
        spec, method = planned.training, planned.method
        device = this_device()
        record = self._training(planned, names)
        if record is not None:
            # Scored in the precision that it was trained in, whatever is fastest here now.
            precision = record.precision
        else:
            self._check_unfinished(names.training)
            folder = self.store.unfinished_folder(names.training)
            precision = _kept_precision(folder, spec, method, device)
        base = _load(spec, getattr(torch, precision["base"]))
        # Asked of the plain base, before a method changes it in place.
        packed = spec.protocol != "head" and bool(method.cacheable) and can_pack(base.model)
        if record is None:
            record, model = self._train(
                planned.label, spec, method, base, names, precision, device, packed, alone
            )
        elif method.trains:
            model = method.load(base.model, self.store.adapter(record))
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
        alone: bool,
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
            settings=method.config.model_dump(mode="json"),
            code=code_versions(spec.method, spec.tasks),
        )
        if not method.trains:
            with self.store.write_training(record):
                pass
            return self._stored(names), model
        own = {id(parameter) for parameter in model.parameters()}
        head = head_of(model) if spec.protocol == "head" else {}
        if spec.gradient_checkpointing:
            # Before adapting, so that a method that cannot work with it can refuse.
            trainer.recompute_activations(model)
        model = method.adapt(model, spec.seeds.init)
        parameters = method.trainable(model)
        check_trains(head, parameters, method.name)
        data = BenchData(spec, self.pools, base.tokenizer, packed=packed, device=device)
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
                "peak_memory_bytes": peak_memory() if alone and not trained.resumed else None,
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
        return self._stored(names), model

    def _stored(self, names: Identity) -> TrainingRecord:
        """The training that was just written, as it is stored."""
        record = self.store.training(names.training)
        if record is None:
            raise BenchError(f"The training {names.training} is not where it was written.")
        return record

    def _check_unfinished(self, training: str) -> None:
        """Set aside what a stopped run left if a file of it is not whole."""
        folder = self.store.unfinished_folder(training)
        try:
            for path in folder.glob("*.ckpt"):
                trainer.check_checkpoint(path)
            _read_precision(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            damage = DamagedError(folder, "checkpoint", f"not whole ({error})")
            self.store.set_aside(folder, damage)

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
        taken = self.pools.drawn(spec.tasks, spec.source, spec.split, spec.items, spec.sample)
        drawn = dict(zip(spec.tasks, taken, strict=True))
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
            code=code_versions("", [*drawn, *forgetting]),
            forgetting_data={text: names.evaluation_data[text] for text in texts},
        )
        return self.store.write_run(result, predictions)


def _load(spec: TrainingSpec, dtype: torch.dtype) -> LoadedModel:
    """The spec's base model, with a new head where the protocol has one."""
    if spec.protocol != "head":
        return load_model(model_reference(spec), dtype)
    task = find_task(spec.tasks[0])
    return load_classifier(model_reference(spec), dtype, outputs=task.outputs, seed=spec.seeds.init)


def _check_identity(
    folder: Path,
    planned: PlannedRun,
    names: Identity,
    record: TrainingRecord,
    result: Result | None = None,
) -> None:
    """Check that stored records are of the specs and the content that their name stands for.

    Raises:
        DamagedError: they are not.
    """
    same = (
        record.id == names.training
        and record.spec == planned.training
        and record.model_fingerprint == names.model
        and record.data == names.training_data
    )
    if same and result is not None:
        content = {task: scored.data for task, scored in result.tasks.items()}
        content |= result.forgetting_data
        # Records of version 1 do not name the running text.
        expected = {task: names.evaluation_data.get(task) for task in content}
        same = result.evaluation == planned.evaluation and content == expected
    if not same:
        raise DamagedError(folder, "spec", "its spec or its data are not those of its name")


_computed = 0
"""Runs that this process has computed."""


def _alone_in_process() -> bool:
    """Whether the run that starts now can tell its memory from that of others.

    On a processor the resident size keeps what earlier runs left; a GPU's allocations are counted
    anew.
    """
    global _computed
    _computed += 1
    return _computed == 1 or torch.cuda.is_available()


def _read_precision(folder: Path) -> dict[str, str] | None:
    """The precision of a training that was stopped; ``None`` if it had not been chosen.

    Raises:
        ValueError, KeyError: the file is not whole.
    """
    path = folder / "precision.json"
    if not path.exists():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {name: str(kept[name]) for name in ("base", "arithmetic")}


def _kept_precision(
    folder: Path, spec: TrainingSpec, method: Method[Any], device: torch.device
) -> dict[str, str]:
    """A training's precision: chosen once, and kept for when it goes on after a stop.

    The choice may rest on a timing, and a run must not change its base half-way.
    """
    kept = _read_precision(folder)
    if kept is not None:
        return kept
    dtype, arithmetic = resolve(spec.precision, method.base_precision, device.type)
    precision = {"base": str(dtype).removeprefix("torch."), "arithmetic": arithmetic}
    if method.trains:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "precision.part"
        part.write_text(json.dumps(precision), encoding="utf-8")
        part.replace(folder / "precision.json")
    return precision
