"""Train several runs together: which may be, and the training of a group of them.

Runs that share model, data and training settings, and differ in seeds, learning rate, method and
its settings, are trained in common passes over one base (:mod:`quanta_bench.training.together`).
Their trainings are stored as if each had been computed alone; scoring them is left to the runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from quanta_bench.data.loader import training_tokens
from quanta_bench.errors import BenchError, RunInProgressError, StorageError
from quanta_bench.models.capabilities import can_pack
from quanta_bench.models.loading import LoadedModel
from quanta_bench.models.precision import arithmetic
from quanta_bench.models.stacking import NotStackableError, StackedModel, check, twin
from quanta_bench.plugins import find_protocol
from quanta_bench.runs.concurrency import runs_together
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.kept_precision import kept_precision
from quanta_bench.runs.progress import Reporter
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import canonical
from quanta_bench.utils.device import this_device
from quanta_bench.utils.out_of_memory import release_memory

if TYPE_CHECKING:
    from quanta_bench.runs.trainings import Training
    from quanta_bench.training.together import Turn
    from quanta_bench.training.trainer import TrainingOutcome

OWN = {"method", "settings", "learning_rate", "seeds"}
"""The settings of a training in which runs that are trained together may differ."""


def key(planned: PlannedRun) -> str | None:
    """Equal for runs that may be trained together; ``None`` for a run that is trained alone."""
    spec, method = planned.training, planned.method
    if not method.trains or not method.stackable or not find_protocol(spec.protocol).prompts:
        return None
    if spec.quantization != "none":
        return None  # its layers are not the plain ones that are stacked
    return canonical(spec.model_dump(mode="json", exclude=OWN))


def groups(runs: Sequence[PlannedRun], most: int) -> list[list[int]]:
    """Runs by place, in order, each with the next ones that may be trained together with it.

    Args:
        runs: in the order of computation.
        most: the largest number in a group.
    """
    found: list[list[int]] = []
    open_groups: dict[str, list[int]] = {}
    trainings: set[str] = set()
    for number, run in enumerate(runs):
        own = key(run) if most > 1 and run.training_key not in trainings else None
        trainings.add(run.training_key)
        if own in open_groups:
            group = open_groups[own]
            group.append(number)
        else:
            group = [number]
            found.append(group)
            if own is not None:
                open_groups[own] = group
        if own is not None and len(group) == most:
            del open_groups[own]
    return found


def settle(at_once: int | None, most: int | None) -> tuple[int | None, int]:
    """How many runs are computed at once, and how many are trained together.

    Runs are trained together in one process, so that a number above 1 leaves just that one.
    """
    if most is None:
        most = runs_together(this_device().type) if at_once in (None, 1) else 1
    return (at_once, 1) if most == 1 else (1, most)


@dataclass
class _Member:
    """A run of a group.

    Attributes:
        number: its number among the runs that were asked for.
        planned: the run.
        reporter: receives its progress.
        twin: the base that its method adapted.
        training: its training.
        group: equal for runs whose adapters differ in values only.
    """

    number: int
    planned: PlannedRun
    reporter: Reporter
    twin: Any
    training: Training
    group: int


def train(
    runner: Runner, runs: Mapping[int, tuple[PlannedRun, Reporter]], *, fresh: Collection[int]
) -> dict[int, BenchError]:
    """Train those of several runs together that can be, and store their trainings.

    A run whose training is stored, that another process is computing, or that cannot be trained
    with others is left to be computed alone.

    Args:
        runner: computes runs.
        runs: of one `key`, each training once, with what receives their progress, by number.
        fresh: the numbers of those to train again.

    Returns:
        The errors of runs whose training failed.

    Raises:
        StorageError: the store cannot be written.
        KeyboardInterrupt: the user interrupted; the same call resumes later.
    """
    with ExitStack() as held:
        held.enter_context(runner.store.writing())
        free = {
            number: (run, reporter)
            for number, (run, reporter) in runs.items()
            if _hold(runner, run, held, fresh=number in fresh)
        }
        if len(free) < 2:
            return {}
        try:
            base, members = _prepare(runner, free)
        except StorageError:
            raise
        except Exception:
            # Plug-ins and devices raise anything; the runs that are computed alone report it.
            release_memory()
            return {}
        members = list(_tested(base, members))
        if len(members) < 2:
            return {}
        return _train(runner, base, members)


def _hold(runner: Runner, planned: PlannedRun, held: ExitStack, *, fresh: bool) -> bool:
    """Hold a run's training for this process; whether it is to be computed here."""
    names = runner.identify(planned)
    try:
        held.enter_context(runner.store.leases.hold(names.training))
    except RunInProgressError:
        return False
    if fresh:
        runner.renew(names.training)
    if runner.stored_training(planned, names) is not None:
        return False
    runner.prepare_unfinished(planned, names)
    return True


def _prepare(
    runner: Runner, runs: dict[int, tuple[PlannedRun, Reporter]]
) -> tuple[LoadedModel, list[_Member]]:
    """The base, and the runs that share its precision and layout with the first."""
    # Lightning is imported where something is trained.
    from quanta_bench.runs.trainings import Training, new_record
    from quanta_bench.training import trainer

    device = this_device()
    precisions = {
        number: kept_precision(
            runner.store.unfinished_folder(runner.identify(run).training),
            run.training,
            run.method,
            device,
        )
        for number, (run, _) in runs.items()
    }
    first, _ = next(iter(runs.values()))
    precision = next(iter(precisions.values()))
    protocol = find_protocol(first.training.protocol)
    base = protocol.load(first.training, first.model, getattr(torch, precision["base"]))
    packs = can_pack(base.model)
    packed = packs and bool(first.method.cacheable)
    if first.training.gradient_checkpointing:
        trainer.recompute_activations(base.model)
    members: list[_Member] = []
    groups: dict[str, int] = {}
    for number, (run, reporter) in runs.items():
        if precisions[number] != precision or packed != (packs and bool(run.method.cacheable)):
            continue
        own = replace(base, model=twin(base.model))
        record = new_record(run, runner.identify(run), base, precision, runner.where)
        try:
            runner.check_scoring(run, base)
            training = Training(
                record, run.method, own, runner.store, runner.pools, device=device, packed=packed
            )
        except Exception:
            continue  # plug-ins raise anything; it is reported when the run is computed alone
        settings = canonical([run.training.method, run.training.settings])
        group = groups.setdefault(settings, len(groups))
        members.append(_Member(number, run, reporter, own.model, training, group))
    for parameter in base.model.parameters():
        # Not by moving the model: each twin has to keep the same parameters.
        parameter.data = parameter.data.to(device)
    base.model.to(device)
    for member in members:
        member.training.model.to(device)
    return base, sorted(members, key=lambda member: member.group)


def _tested(base: LoadedModel, members: Sequence[_Member]) -> Iterator[_Member]:
    """The members of groups that compute in common passes what each computes alone."""
    for group in dict.fromkeys(member.group for member in members):
        own = [member for member in members if member.group == group]
        bfloat16 = own[0].training.record.precision["arithmetic"] == "bf16-mixed"
        try:
            check(
                base.model,
                [member.twin for member in own],
                [member.training.model for member in own],
                [[*member.training.parameters.values()] for member in own],
                torch.bfloat16 if bfloat16 else torch.float32,
            )
        except NotStackableError:
            continue
        yield from own


def _train(runner: Runner, base: LoadedModel, members: Sequence[_Member]) -> dict[int, BenchError]:
    from quanta_bench.training.together import Passes, TogetherError, train_together
    from quanta_bench.training.trainer import TrainingOutcome

    device = this_device()
    precision = members[0].training.record.precision
    passes = Passes(
        StackedModel(
            base.model,
            [member.twin for member in members],
            [[*member.training.parameters.values()] for member in members],
            [member.group for member in members],
        ),
        [member.training.data.objective for member in members],
        training_tokens(device),
        partial(arithmetic, precision, device),
    )

    def work(member: _Member, turn: Turn[TrainingOutcome]) -> TrainingOutcome:
        return member.training.train(member.reporter.training, turn=turn, loggers=runner.loggers)

    try:
        outcomes = train_together([partial(work, member) for member in members], passes)
    except TogetherError as error:
        runner.store.notice(
            f"{len(members)} runs that were trained together are trained alone from where they "
            f"were last stored: {error}"
        )
        return {}
    errors: dict[int, BenchError] = {}
    for member, outcome in zip(members, outcomes, strict=True):
        if isinstance(outcome, TrainingOutcome):
            try:
                member.training.write(outcome, together=len(members))
            except StorageError:
                raise
            except BenchError as error:
                # The others' trainings are finished too, and are written all the same.
                errors[member.number] = error
        elif isinstance(outcome, RunInProgressError):
            errors[member.number] = outcome
        elif isinstance(outcome, BenchError):
            errors[member.number] = outcome
            runner.note(member.planned, outcome)
        else:
            errors[member.number] = runner.crashed(member.planned, outcome)
    return errors
