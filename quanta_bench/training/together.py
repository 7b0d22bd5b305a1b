"""Several trainings at once over one frozen base: each its own, their passes in common.

Every run is a whole training (:func:`quanta_bench.training.trainer.train`) with its optimiser,
schedule, checkpoints and validations. It runs in a thread of its own, but never beside another
one: a run goes on until it needs the gradients of a batch or the judgements of one, hands the batch
in and waits. When all wait, their micro-batches are stacked and computed in one pass. A run that
fails ends alone; the others go on without it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from quanta_bench.data.batch import Batch
from quanta_bench.data.bucketing import cuts_within
from quanta_bench.errors import BenchError
from quanta_bench.models.stacking import StackedModel
from quanta_bench.training.objectives import Judgement, Objective, shares
from quanta_bench.training.single_process import OwnProcesses, alone

T = TypeVar("T")


class TogetherError(Exception):
    """A pass over the rows of several runs failed; each run may still be computed alone."""


class _Stopped(BaseException):
    """Ends a run whose neighbours' pass failed, or that the user stopped."""


@dataclass(frozen=True)
class _Request:
    """What a run waits for.

    Attributes:
        batch: the micro-batches of a step, or a validation batch.
        gradients: whether gradients are wanted, and not judgements.
    """

    batch: Sequence[Batch]
    gradients: bool


class _Piece(NamedTuple):
    """A micro-batch in a pass."""

    run: int
    batch: Batch
    share: float


class Turn(Generic[T]):
    """A run's place among runs that are trained together, as the run sees it.

    Attributes:
        number: of the run.
        environment: Lightning's cluster, the same for all.
        seconds: the run's share of the wall time so far: its own turns, and of every pass the part
            that its tokens are of all, padding counted.
    """

    def __init__(
        self, number: int, work: Callable[[Turn[T]], T], environment: OwnProcesses
    ) -> None:
        self.number = number
        self.environment = environment
        self.result: T | None = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self._work = work
        self._since = 0.0
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"run {number}", daemon=True)
        self._thread.start()

    # In the run's own thread.

    def clock(self) -> float:
        """The run's share of the wall time, in seconds, now."""
        return self.seconds + time.perf_counter() - self._since

    def gradients(self, batch: Sequence[Batch]) -> Tensor:
        """Add the gradient of a batch's loss to the run's parameters; returns the loss, a scalar.

        See :func:`quanta_bench.training.objectives.accumulate_gradients`.
        """
        loss: Tensor = self._ask(_Request(batch, gradients=True))
        return loss

    def judge(self, batch: Batch) -> list[Judgement]:
        """A judgement of each item of a validation batch.

        Raises:
            NonFiniteError: an output of the model is NaN or infinite.
        """
        judged: list[Judgement] = self._ask(_Request([batch], gradients=False))
        return judged

    def _ask(self, request: _Request) -> Any:
        self._requests.put(request)
        return self._answer()

    def _answer(self) -> Any:
        answer = self._answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self) -> None:
        try:
            self._answer()
            self.result = self._work(self)
        except BaseException as error:
            self.error = error
        self._requests.put(None)

    # In the thread that makes the passes.

    def resume(self, answer: Any = None) -> _Request | None:
        """Let the run go on to its next request; ``None`` if it has ended."""
        self._since = time.perf_counter()
        self._answers.put(answer)
        request = self._requests.get()
        self.seconds += time.perf_counter() - self._since
        return request

    def stop(self) -> None:
        """End the run, wherever it waits."""
        while self._thread.is_alive():
            self._answers.put(_Stopped())
            self._thread.join(timeout=1)


@dataclass(frozen=True)
class Passes:
    """Passes over the stacked rows of several runs.

    Attributes:
        model: the runs' models, stacked.
        objectives: each run's.
        budget: bound on the tokens of a pass (:func:`passes_of`).
        autocast: makes the autocast context of a pass.
    """

    model: StackedModel
    objectives: Sequence[Objective[Any, Any]]
    budget: int
    autocast: Callable[[], torch.autocast]

    def answer(self, turns: Sequence[Turn[Any]], requests: Sequence[_Request]) -> list[Any]:
        """What each run waits for, in the runs' order.

        Args:
            turns: the runs; their seconds are increased.
            requests: theirs, all of one kind.

        Returns:
            A loss or judgements, or the error that they gave.
        """
        gradients = requests[0].gradients
        pieces = [
            _Piece(turn.number, batch, share)
            for turn, request in zip(turns, requests, strict=True)
            for batch, share in zip(request.batch, self._shares(turn, request), strict=True)
        ]
        losses: dict[int, Tensor] = {}
        answers: dict[int, Any] = {}
        owners = {turn.number: turn for turn in turns}
        self.model.train(gradients)
        for numbers in passes_of([piece.batch.shape for piece in pieces], self.budget):
            start = time.perf_counter()
            some = self._in_order([pieces[number] for number in numbers])
            if gradients:
                for piece, loss in zip(some, self._losses(some), strict=True):
                    losses[piece.run] = losses.get(piece.run, 0.0) + loss
            else:
                answers.update(self._judgements(some))
            elapsed, tokens = time.perf_counter() - start, sum(_tokens(p.batch) for p in some)
            for piece in some:
                owners[piece.run].seconds += elapsed * _tokens(piece.batch) / tokens
        return [(losses if gradients else answers)[turn.number] for turn in turns]

    def _shares(self, turn: Turn[Any], request: _Request) -> list[float]:
        return shares(self.objectives[turn.number], request.batch)

    def _losses(self, pieces: Sequence[_Piece]) -> list[Tensor]:
        """Add the gradients of some micro-batches; returns their losses by their shares."""
        with self._pass(pieces) as outputs:
            losses = [
                self.objectives[piece.run].loss_of(own, piece.batch) * piece.share
                for piece, own in zip(pieces, outputs, strict=True)
            ]
            # As alone: what was computed wide in the forward pass is so in the gradient.
            with torch.autocast(losses[0].device.type, enabled=False):
                torch.autograd.backward(torch.stack(losses).sum())
        return [loss.detach().double() for loss in losses]

    @torch.no_grad()
    def _judgements(self, pieces: Sequence[_Piece]) -> dict[int, Any]:
        """Each run's judgements, or the error that they gave."""
        judged: dict[int, Any] = {}
        with self._pass(pieces) as outputs:
            for piece, own in zip(pieces, outputs, strict=True):
                try:
                    judged[piece.run] = self.objectives[piece.run].judge_of(own, piece.batch)
                except BenchError as error:
                    judged[piece.run] = error
        return judged

    @contextmanager
    def _pass(self, pieces: Sequence[_Piece]) -> Iterator[Sequence[Tensor]]:
        """The outputs of each micro-batch of a pass; inside, gradients can be computed."""
        batches = [piece.batch for piece in pieces]
        stacked = type(batches[0]).stack(batches)
        objective = self.objectives[0]
        with self.autocast(), self.model.of(self._counts(pieces)) as model:
            outputs = objective.outputs(model, stacked)
            yield torch.split(outputs, [objective.count(batch) for batch in batches])

    def _counts(self, pieces: Sequence[_Piece]) -> list[int]:
        """The rows of each run."""
        counts = [0] * len(self.objectives)
        for piece in pieces:
            counts[piece.run] += piece.batch.shape[0]
        return counts

    def _in_order(self, pieces: Sequence[_Piece]) -> list[_Piece]:
        """The micro-batches of a pass as their rows stand in it."""
        place = {run: n for n, run in enumerate(self.model.order(self._counts(pieces)))}
        return sorted(pieces, key=lambda piece: place[piece.run])


def train_together(
    works: Sequence[Callable[[Turn[T]], T]], passes: Passes
) -> list[T | BaseException]:
    """Let several trainings run, and make their passes.

    Args:
        works: each a training that computes its batches by the turn that it gets.
        passes: over the models that they train.

    Returns:
        What each returned or raised, in order.

    Raises:
        TogetherError: a pass failed, and with it all runs that were in it; their checkpoints stay.
        KeyboardInterrupt: the user stopped the runs; their checkpoints stay.
    """
    with alone() as environment:
        turns = [Turn(number, work, environment) for number, work in enumerate(works)]
        try:
            waiting = {turn: turn.resume() for turn in turns}
            while waiting := {turn: asked for turn, asked in waiting.items() if asked}:
                answers: dict[Turn[T], Any] = {}
                for kind in (True, False):
                    same = {turn: r for turn, r in waiting.items() if r and r.gradients is kind}
                    if same:
                        made = passes.answer([*same], [r for r in same.values() if r])
                        answers.update(zip(same, made, strict=True))
                waiting = {turn: turn.resume(answers[turn]) for turn in waiting}
        except Exception as error:
            raise TogetherError(f"{type(error).__name__}: {error}") from error
        finally:
            for turn in turns:
                turn.stop()
    return [turn.error or turn.result for turn in turns]  # type: ignore[misc]


def passes_of(shapes: Sequence[tuple[int, int]], budget: int) -> list[list[int]]:
    """Which micro-batches of several runs are computed in one pass: those of like length.

    Runs of unlike orders have batches of unlike lengths. In passes of as many micro-batches as the
    budget has room for, five seeds of Table 3's embedded profile would pad 28 % of all tokens on a
    processor and 68 % on a GPU; cut by length, 9 % and 33 %.

    Args:
        shapes: rows of each, and tokens of a row, padding counted.
        budget: bound on the tokens of a pass, padding counted; a micro-batch over it is computed
            by itself.

    Returns:
        Their numbers, by pass.
    """
    order = sorted(range(len(shapes)), key=lambda number: -shapes[number][1])
    widths = [shapes[number][1] for number in order]
    cuts = cuts_within(widths, budget, rows=[shapes[number][0] for number in order])
    return [order[cut] for cut in cuts]


def _tokens(batch: Batch) -> int:
    rows, width = batch.shape
    return rows * width
