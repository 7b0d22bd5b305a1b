"""One run from start to result: train and score unless already done, then store."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quanta_bench.data import loader
from quanta_bench.data.chat import uses_chat
from quanta_bench.data.overlap import Overlaps
from quanta_bench.data.pools import Pools
from quanta_bench.errors import (
    BenchError,
    OutOfMemoryError,
    RunCrashedError,
    RunInProgressError,
    RunKilledError,
    StorageError,
    UsageError,
)
from quanta_bench.evaluation import evaluators, limits, summary
from quanta_bench.method import Method
from quanta_bench.models.capabilities import can_pack
from quanta_bench.models.held_products import still
from quanta_bench.models.loading import LoadedModel, is_here
from quanta_bench.models.precision import arithmetic, automatic
from quanta_bench.models.sharding import is_sharded, shard
from quanta_bench.plugins import find_protocol, find_task, plugin_packages
from quanta_bench.results.environment import environment
from quanta_bench.results.integrity import DamagedError
from quanta_bench.results.provenance import (
    code_changes,
    code_versions,
    stale,
    stale_training,
)
from quanta_bench.results.records import (
    Environment,
    Result,
    TaskResult,
    TrainingRecord,
)
from quanta_bench.results.store import Store
from quanta_bench.runs.finder import Finder
from quanta_bench.runs.finite_outputs import finite_outputs, perplexity
from quanta_bench.runs.identity import Identity, PlannedRun
from quanta_bench.runs.kept_code import keep_code, kept_code
from quanta_bench.runs.kept_precision import kept_precision, read_precision
from quanta_bench.runs.places import specs_key
from quanta_bench.runs.progress import Reporter
from quanta_bench.spec import EvaluationSpec, Job, TrainingSpec
from quanta_bench.task import Example, Task
from quanta_bench.utils.crash import report_crash
from quanta_bench.utils.device import (
    is_out_of_memory,
    peak_memory,
    reset_peak_memory,
    this_device,
)
from quanta_bench.utils.energy import energy_meter
from quanta_bench.utils.process_group import ALONE, Group


class Runner(Finder):
    """Computes runs and stores them.

    Args:
        store: where results go.
        reporter: receives progress.
        pools: where items come from.
        jobs: how many runs are computed at once on the machine; recorded.
        group: the processes that share each run; each has a runner of its own, and the leading one
            stores.
        strategy: how they share it; recorded.
        loggers: names of the loggers that trainings are followed in.
        outdated: stored results that do not count, because they are to be computed again: the
            checksum of each, by run.
        attempt: a context around each computation of a run, entered with the run's name while the
            lease of its training is held.
    """

    def __init__(
        self,
        store: Store,
        reporter: Reporter,
        pools: Pools | None = None,
        *,
        jobs: int = 1,
        group: Group = ALONE,
        strategy: str = "",
        loggers: Sequence[str] = (),
        outdated: Mapping[str, str] | None = None,
        attempt: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        super().__init__(store, pools or Pools(), outdated)
        self.jobs = jobs
        self.group = group
        self.strategy = strategy
        self.loggers = loggers
        self.reporter = reporter
        self.attempt = attempt
        self.overlaps = Overlaps(self.pools)
        self.renewed: set[str] = set()
        self._identities: dict[str, Identity] = {}

    @property
    def sharded(self) -> bool:
        """Whether frozen weights are spread over the group."""
        return self.strategy == "fsdp"

    @property
    def where(self) -> Environment:
        """Where and with what this process computes."""
        return environment(self.jobs, self.group.size, self.strategy)

    def identify(self, planned: PlannedRun) -> Identity:
        """The names of a run here. Reads data and hashes the model, but computes nothing."""
        if planned.key not in self._identities:
            self._identities[planned.key] = self._identify(planned, automatic())
        return self._identities[planned.key]

    def find(self, planned: PlannedRun) -> Result | None:
        """A run's stored result, if any; damaged records are set aside.

        With ``precision="auto"``, the result of a machine that chose another precision will do if
        there is none of this one's; a table notes the precision of each row. A run that an earlier
        version named by the places of its model and data will do too. Runs are named by the
        model's content, so nothing is found while the model would have to be downloaded first.

        Raises:
            NewerSchemaError: a later version of the suite wrote it.
        """
        if not is_here(planned.model):
            return None
        names = self.identify(planned)
        result = self.stored_result(planned, names)
        if result is None and planned.training.precision == "auto":
            other = "float32" if automatic() == "bfloat16" else "bfloat16"
            result = self.stored_result(planned, self._identify(planned, other))
        if result is None and planned.names_places:
            earlier = self._identify(planned, automatic(), by_place=True)
            result = self.stored_result(planned, earlier)
        if result is None:
            # Damage in a training is reported before anything is computed.
            self.stored_training(planned, names)
        return result

    def is_stale(self, planned: PlannedRun, result: Result | None) -> bool:
        """Whether a run's result, or the training it would score, comes from different code."""
        if result is not None:
            return bool(stale(result))
        if not is_here(planned.model):
            return False
        record = self.stored_training(planned, self.identify(planned))
        return record is not None and bool(stale_training(record))

    def is_free(self, planned: PlannedRun) -> bool:
        """Whether no process computes a run's training, as far as its lease tells."""
        return self.store.leases.is_free(self.identify(planned).training)

    def run(self, job: Job, *, fresh: bool = False) -> Result:
        """A job's result: plan it, then `compute` it.

        Raises:
            UsageError: a setting is refused; see also `compute`.
        """
        return self.compute(PlannedRun.of(job), fresh=fresh)

    def compute(self, planned: PlannedRun, *, fresh: bool = False, halvings: int = 0) -> Result:
        """A run's result, from the store if it is there.

        Args:
            planned: the run.
            fresh: compute it again, training included.
            halvings: how many times to halve micro-batches.

        Raises:
            RunInProgressError: another process is computing the training.
            StorageError: the store cannot be written.
            RunKilledError: a process that shares the run ended; the caller notes it.
            OutOfMemoryError: memory ran out.
            RunCrashedError: an unexpected exception, usually raised by a plug-in.
            BenchError: anything else the user has to act on; finished parts stay stored.
            KeyboardInterrupt: the user interrupted; the same call resumes later.
        """
        try:
            with loader.halved(halvings):
                return self.find_or_compute(planned, fresh)
        except (UsageError, StorageError, RunInProgressError, RunKilledError):
            raise
        except BenchError as error:
            self.note(planned, error)
            raise
        except (Exception, SystemExit) as error:
            # Methods and tasks are plug-ins, which may raise anything, and even exit.
            raise self.crashed(planned, error) from error

    def crashed(self, planned: PlannedRun, error: BaseException) -> BenchError:
        """An unexpected exception as a message, with a file that holds its traceback; noted."""
        names = self._identities.get(planned.key)
        log = names.run if names else planned.label
        text = report_crash(error, self.store.root, log, plugin_packages())
        crash: BenchError = RunCrashedError(text)
        if is_out_of_memory(error):
            # Its frames hold what filled the memory.
            traceback.clear_frames(error.__traceback__)
            crash = OutOfMemoryError(f"Memory ran out: {text}")
        self.note(planned, crash)
        return crash

    def note(self, planned: PlannedRun, error: BenchError) -> None:
        """Remember how a run failed."""
        names = self._identities.get(planned.key)
        if names is not None:
            self.store.failures.add(
                names.run,
                error,
                specs_key(planned.training, planned.evaluation),
                model=names.model,
                training_data=names.training_data,
                evaluation_data=names.evaluation_data,
            )

    def find_or_compute(self, planned: PlannedRun, fresh: bool) -> Result:
        """A stored result, or a computed one; `compute` says how it fails."""
        names = self.identify(planned)
        stored = self.stored_result(planned, names)
        if stored is not None and not fresh:
            return stored
        with self.store.writing(), self.store.leases.hold(names.training):
            if fresh:
                self.renew(names.training)
            elif (stored := self.stored_result(planned, names)) is not None:
                return stored  # another process has finished it meanwhile
            with self.attempt(names.run):
                return self.compute_share(planned, names)

    def renew(self, training: str) -> None:
        """Forget a training, so that it is computed again: once for several evaluations of it."""
        if training not in self.renewed:
            self.store.forget(training)
        self.renewed.add(training)

    def compute_share(self, planned: PlannedRun, names: Identity) -> Result:
        """Train and score; in a group, this process's share of it. All get the same result.

        The training's lease is held meanwhile, by the leading process of a group.
        """
        reset_peak_memory()
        alone = _alone_in_process()
        spec, method = planned.training, planned.method
        device = this_device()
        record, precision = self.group.agree(lambda: self._begun(planned, names))
        protocol = find_protocol(spec.protocol)
        base = protocol.load(spec, planned.model, getattr(torch, precision["base"]))
        self.check_scoring(planned, base)
        # Tested on the plain base, before a method changes it in place.
        packed = protocol.prompts and bool(method.cacheable) and can_pack(base.model)
        if record is None:
            record, model = self._train(planned, base, names, precision, packed, alone)
        elif method.trains:
            model = method.load(base.model, self.store.adapter(record))
        else:
            model = base.model
        if self.sharded and not is_sharded(model):
            shard(model, (), self.group)
        model = model.to(device).eval()
        return self._evaluate(planned.evaluation, method, record, model, base, names, packed)

    def _begun(
        self, planned: PlannedRun, names: Identity
    ) -> tuple[TrainingRecord | None, dict[str, str]]:
        """The stored training, if any, and the precision to compute in."""
        record = self.stored_training(planned, names)
        if record is not None:
            # Score in the precision used in training, whatever is fastest on this machine.
            return record, record.precision
        self.prepare_unfinished(planned, names)
        folder = self.store.unfinished_folder(names.training)
        return None, kept_precision(folder, planned.training, planned.method, this_device())

    def _train(
        self,
        planned: PlannedRun,
        base: LoadedModel,
        names: Identity,
        precision: dict[str, str],
        packed: bool,
        alone: bool,
    ) -> tuple[TrainingRecord, nn.Module]:
        # Lightning takes longer to import than finding thousands of finished runs.
        from quanta_bench.runs.trainings import Training, new_record

        record = new_record(planned, names, base, precision, self.where)
        if not planned.method.trains:
            return self.group.agree(lambda: self._write_untrained(record)), base.model
        device = this_device()
        training = Training(
            record,
            planned.method,
            base,
            self.store,
            self.pools,
            device=device,
            packed=packed,
            alone=True,
            group=self.group,
            sharded=self.sharded,
        )
        # A processor's counter is the whole machine's, of which one process reads it.
        energy = energy_meter(device, alone=self.jobs == 1 and self.group.leads)
        trained = training.train(self.reporter.training, energy, loggers=self.loggers)
        peak = max(self.group.gather(peak_memory())) if alone else None

        def write() -> TrainingRecord:
            training.write(trained, peak_memory=peak)
            return self._stored(record.id)

        return self.group.agree(write), training.model

    def _write_untrained(self, record: TrainingRecord) -> TrainingRecord:
        with self.store.write_training(record):
            pass
        return self._stored(record.id)

    def _stored(self, training: str) -> TrainingRecord:
        """The training that was just written, as it is stored."""
        record = self.store.training(training)
        if record is None:
            raise BenchError(f"The training {training} is not where it was written.")
        return record

    def prepare_unfinished(self, planned: PlannedRun, names: Identity) -> None:
        """Note the code that computes a training, beside its checkpoints.

        Those of an interrupted one are set aside if a file is incomplete or missing, or if other
        code wrote them.
        """
        if not planned.method.trains:
            return
        folder = self.store.unfinished_folder(names.training)
        if folder.exists():
            self._check_unfinished(folder, planned.training)
        keep_code(folder, code_versions(planned.training.method, planned.training.tasks))

    def _check_unfinished(self, folder: Path, spec: TrainingSpec) -> None:
        from quanta_bench.training import trainer

        try:
            trainer.check_checkpoints(folder)
            read_precision(folder)
            # Without a checkpoint there is nothing to go on from.
            resumes = (folder / "last.ckpt").exists()
            changed = code_changes(kept_code(folder), spec.method, spec.tasks) if resumes else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            damage = DamagedError(folder, "checkpoint", f"not whole ({error})")
            self.store.set_aside(folder, damage)
            return
        if changed:
            other = DamagedError(folder, "code", f"begun by other code ({', '.join(changed)})")
            self.store.set_aside(folder, other)

    def check_scoring(self, planned: PlannedRun, base: LoadedModel) -> None:
        """Check that the items a run scores, and its text for forgetting, fit its model.

        Raises:
            UsageError: they do not.
        """
        extra = int(getattr(planned.method.config, "num_virtual_tokens", 0) or 0)
        spec = planned.evaluation
        scored = [*self._scored_items(spec).values(), *self._forgetting_items(spec).values()]
        limits.check_evaluation(base.model, base.tokenizer, spec, scored, extra=extra)

    def _scored_items(self, spec: EvaluationSpec) -> dict[str, tuple[Task, Sequence[Example]]]:
        """Each task that is scored, with its items."""
        samples = self.pools.sample(spec.tasks, spec.source, spec.split, spec.items, spec.sample)
        return dict(zip(spec.tasks, samples, strict=True))

    def _forgetting_items(self, spec: EvaluationSpec) -> dict[str, tuple[Task, Sequence[Example]]]:
        """The text that shows what the model lost, if one is scored."""
        texts = (spec.forgetting,) if spec.forgetting else ()
        source, items = spec.forgetting_source, spec.forgetting_items
        samples = self.pools.sample(texts, source, "test", items, spec.sample)
        return dict(zip(texts, samples, strict=True))

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
        scored = self._scored_items(spec)
        forgetting = self._forgetting_items(spec)
        everything = (*scored.values(), *forgetting.values())
        self.reporter.scoring(sum(len(self.group.share(examples)) for _, examples in everything))
        context = evaluators.Context(
            model,
            base.tokenizer,
            spec,
            packed=packed,
            cached=bool(method.cacheable),
            device=device,
            advance=self.reporter.scored,
            group=self.group,
        )
        # Before the clock: it is no part of what scoring takes.
        shared = self.overlaps.of(record.spec, spec) if method.trains else {}
        start = time.perf_counter()
        results: dict[str, TaskResult] = {}
        predictions: list[Mapping[str, Any]] = []
        with (
            arithmetic(record.precision, device),
            finite_outputs(record),
            still(method, model),
        ):
            for reference, (task, examples) in scored.items():
                task_start = time.perf_counter()
                judged = evaluators.evaluate(context, task, examples)
                seconds = time.perf_counter() - task_start
                results[reference] = summary.summarise(
                    task,
                    spec.protocol,
                    judged,
                    seconds,
                    names.evaluation_data[reference],
                    shared.get(reference),
                )
                predictions += [summary.line(reference, item) for item in judged]
            perplexities = {
                reference: perplexity(reference, evaluators.evaluate(context, task, examples))
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
                **_in_chat(record.spec, spec),
            },
            tasks=results,
            forgetting=perplexities,
            evaluation_precision=record.precision,
            evaluation_seconds=time.perf_counter() - start,
            tokens_per_second=record.tokens / record.seconds if record.seconds else 0.0,
            evaluation_environment=self.where,
            code=code_versions("", [*scored, *forgetting]),
            forgetting_data={text: names.evaluation_data[text] for text in forgetting},
        )
        return self.group.agree(lambda: self.store.write_run(result, predictions))


def _in_chat(training: TrainingSpec, evaluation: EvaluationSpec) -> dict[str, str]:
    """Which prompts of a run are in the model's chat template: of training, of scoring or both."""
    parts = {
        "training": (training.tasks, training.chat_template),
        "scoring": (evaluation.tasks, evaluation.chat_template),
    }
    used = [
        part
        for part, (tasks, chat) in parts.items()
        if any(uses_chat(find_task(task), chat) for task in tasks)
    ]
    return {"chat_template": ", ".join(used)} if used else {}


_computed = 0
"""Number of runs that this process has computed."""


def _alone_in_process() -> bool:
    """Whether the memory of the run that starts now can be measured separately.

    On a CPU, resident memory includes what earlier runs left; on a GPU, the peak is reset.
    """
    global _computed
    _computed += 1
    return _computed == 1 or torch.cuda.is_available()
