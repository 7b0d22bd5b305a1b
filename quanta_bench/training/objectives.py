"""Objectives: what a training minimises and is validated by, from items to losses and a metric."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quanta_bench.data.batch import Batch
from quanta_bench.data.batches import CandidateBatch, collate
from quanta_bench.data.bucketing import Item
from quanta_bench.data.encoding import Encoded
from quanta_bench.data.texts import EncodedTexts, TextBatch, collate_texts, encode_texts
from quanta_bench.data.tokenization import Drawn, encode_items
from quanta_bench.evaluation import likelihood
from quanta_bench.evaluation.classification import head_losses, head_outputs, judge_outputs
from quanta_bench.evaluation.decisions import aggregate, check_finite, credit, expected
from quanta_bench.plugins import find_protocol, find_task
from quanta_bench.spec import TrainingSpec
from quanta_bench.task import Answer

I_ = TypeVar("I_", bound=Item)
B_ = TypeVar("B_", bound=Batch)


class Judgement(NamedTuple):
    """The validation of one item.

    Attributes:
        task: position of its task.
        score: how right the model was, from 0 to 1; 1/k where the right candidate is one of k that
            tie for the best.
        loss: its loss.
        answers: the judged answers, equally likely, where the metric is made of answers and not of
            scores.
    """

    task: int
    score: float
    loss: float
    answers: tuple[Answer, ...] = ()


class Objective(ABC, Generic[I_, B_]):
    """What a training spec minimises and is validated by.

    Args:
        spec: the training spec.
    """

    def __init__(self, spec: TrainingSpec) -> None:
        self.spec = spec

    @abstractmethod
    def encode(self, tokenizer: Any, drawn: Drawn, *, train: bool) -> list[I_]:
        """The items in token ids, for training or for validation."""

    @abstractmethod
    def collate(
        self, items: Sequence[I_], pad_token: int, *, packed: bool, train: bool = False
    ) -> B_:
        """Items as one batch; ``packed`` as of :mod:`quanta_bench.data.batches`."""

    @abstractmethod
    def outputs(self, model: nn.Module, batch: B_) -> Tensor:
        """What loss and judgements are computed of, (outputs, ...), in the batch's order."""

    @abstractmethod
    def count(self, batch: B_) -> int:
        """The number of outputs of a batch."""

    @abstractmethod
    def loss_of(self, outputs: Tensor, batch: B_) -> Tensor:
        """The training loss of a batch by its outputs, a scalar, float32 or wider."""

    def loss(self, model: nn.Module, batch: B_) -> Tensor:
        """The training loss of a batch, a scalar, float32 or wider."""
        return self.loss_of(self.outputs(model, batch), batch)

    @abstractmethod
    def units(self, batch: B_) -> int:
        """The number of terms that the loss averages over: items, or predicted tokens."""

    @abstractmethod
    def judge_of(self, outputs: Tensor, batch: B_) -> list[Judgement]:
        """A judgement of each item of a validation batch by its outputs.

        Raises:
            NonFiniteError: an output of the model is NaN or infinite.
        """

    def judge(self, model: nn.Module, batch: B_) -> list[Judgement]:
        """A judgement of each item of a validation batch.

        Raises:
            NonFiniteError: an output of the model is NaN or infinite.
        """
        return self.judge_of(self.outputs(model, batch), batch)

    def metric(self, judged: Sequence[Judgement]) -> float:
        """The validation metric, higher is better: the mean over tasks of their mean scores."""
        return mean_of_means([(item.task, item.score) for item in judged])


class Continuations(Objective[Encoded, CandidateBatch]):
    """Continuations of a context, compared with each other or trained on as text.

    Args:
        spec: the training spec.
        closed: whether continuations end with the end token.
    """

    def __init__(self, spec: TrainingSpec, *, closed: bool = False) -> None:
        super().__init__(spec)
        self.closed = closed

    def encode(self, tokenizer: Any, drawn: Drawn, *, train: bool) -> list[Encoded]:
        """Contexts with their candidates; with the target alone for language modelling."""
        return encode_items(
            tokenizer,
            drawn,
            self.spec.protocol,
            max_length=self.spec.max_length,
            target_only=self.spec.loss != "candidates" and train,
            closed=self.closed,
            chat=self.spec.chat_template,
        )

    def collate(
        self, items: Sequence[Encoded], pad_token: int, *, packed: bool, train: bool = False
    ) -> CandidateBatch:
        """A row an item, or a row a candidate."""
        context_loss = train and self.spec.loss == "answer+prompt"
        return collate(items, pad_token, packed=packed, context_loss=context_loss)

    def outputs(self, model: nn.Module, batch: CandidateBatch) -> Tensor:
        """The log-likelihood of each predicted token, (tokens,)."""
        return likelihood.token_log_likelihoods(model, batch)

    def count(self, batch: CandidateBatch) -> int:
        """Predicted tokens."""
        return len(batch.where)

    def loss_of(self, outputs: Tensor, batch: CandidateBatch) -> Tensor:
        """The spec's loss."""
        return likelihood.loss_of(outputs, batch, self.spec.loss)

    def units(self, batch: CandidateBatch) -> int:
        """Items where the loss compares candidates, predicted tokens where it is of language."""
        return len(batch.items) if self.spec.loss == "candidates" else len(batch.where)

    def judge_of(self, outputs: Tensor, batch: CandidateBatch) -> list[Judgement]:
        """The credit of the best candidate; of a single continuation, its likelihood."""
        sums = likelihood.candidate_sums(outputs, batch)
        # Candidates stand in the order of their items.
        scores = iter(likelihood.normalise(sums, batch, "token_mean").tolist())
        return [self._judge(item, [next(scores) for _ in item.candidates]) for item in batch.items]

    def _judge(self, item: Encoded, scores: Sequence[float]) -> Judgement:
        """Judge an item by its candidates' mean log-likelihoods per token."""
        what = "the mean log-likelihood of candidate"
        check_finite(scores, what, item.example, self.spec.tasks[item.task])
        if len(scores) == 1:
            # There is nothing to choose, so the mean likelihood of a token is the metric.
            return Judgement(item.task, math.exp(scores[0]), -scores[0])
        loss = F.cross_entropy(torch.tensor(scores, dtype=torch.float64), torch.tensor(item.gold))
        return Judgement(item.task, credit(scores, item.gold), float(loss))


class Labels(Objective[EncodedTexts, TextBatch]):
    """Classes or a number from a classification head, of one task."""

    def __init__(self, spec: TrainingSpec) -> None:
        super().__init__(spec)
        self.task = find_task(spec.tasks[0])

    def encode(self, tokenizer: Any, drawn: Drawn, *, train: bool) -> list[EncodedTexts]:
        """The items' texts."""
        return [
            item
            for number, (task, examples) in enumerate(drawn)
            for item in encode_texts(
                tokenizer, task, examples, max_length=self.spec.max_length, number=number
            )
        ]

    def collate(
        self, items: Sequence[EncodedTexts], pad_token: int, *, packed: bool, train: bool = False
    ) -> TextBatch:
        """One row per item; there is nothing to pack."""
        return collate_texts(items, pad_token, outputs=self.task.outputs)

    def outputs(self, model: nn.Module, batch: TextBatch) -> Tensor:
        """The head's numbers, (items, outputs)."""
        return head_outputs(model, batch)

    def count(self, batch: TextBatch) -> int:
        """Items."""
        return len(batch.items)

    def loss_of(self, outputs: Tensor, batch: TextBatch) -> Tensor:
        """The mean over items of the cross-entropy over classes, or of the squared error."""
        return head_losses(outputs, batch.targets).mean()

    def units(self, batch: TextBatch) -> int:
        """Items."""
        return len(batch.items)

    def judge_of(self, outputs: Tensor, batch: TextBatch) -> list[Judgement]:
        """The head's answer to each item."""
        # Together, because each reading waits for the device.
        rows = torch.cat([outputs, head_losses(outputs, batch.targets)[:, None]], dim=1).tolist()
        judged = []
        for item, (*values, loss) in zip(batch.items, rows, strict=True):
            answers = judge_outputs(self.task, item.example, values)
            score = expected(answers).scores.get(self.task.metric, 0.0)
            judged.append(Judgement(item.task, score, loss, answers))
        return judged

    def metric(self, judged: Sequence[Judgement]) -> float:
        """The task's own metric: an F1 or a correlation is not a mean over items."""
        return aggregate(self.task, [item.answers for item in judged])[self.task.metric]


def objective_of(spec: TrainingSpec) -> Objective[Any, Any]:
    """The objective of a training spec, by its protocol."""
    objective: Objective[Any, Any] = find_protocol(spec.protocol).objective(spec)
    return objective


def accumulate_gradients(
    objective: Objective[Any, B_],
    model: nn.Module,
    micro_batches: Sequence[B_],
    *,
    backward: Callable[[Tensor], object] = Tensor.backward,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Add the gradient of a batch's loss to the parameters' own, a micro-batch at a time.

    The loss is the mean over the whole batch, however it is cut: each micro-batch counts by its
    share of the batch's items, or of its predicted tokens, whichever the loss is a mean over.

    Args:
        objective: what is minimised.
        model: what is trained.
        micro_batches: all of the batch. A mean of the losses of parts that are given one by one
            is not the loss of the whole where these hold different numbers of tokens.
        backward: computes the gradient of a scalar.
        weights: how much each micro-batch counts (:func:`shares`), where others are computed
            elsewhere, so that the losses and the gradients of all are to be added up.

    Returns:
        The batch's loss, a float64 scalar without a gradient. It is not read: that would wait for
        the device.
    """
    losses: list[Tensor] = []
    if weights is None:
        weights = shares(objective, micro_batches)
    for one, share in zip(micro_batches, weights, strict=True):
        loss = objective.loss(model, one) * share
        losses.append(loss.detach().double())
        # Autocast is for the forward pass: what was computed wide there is so in the gradient.
        with torch.autocast(loss.device.type, enabled=False):
            backward(loss)
    return torch.stack(losses).sum()


def shares(
    objective: Objective[Any, B_], micro_batches: Sequence[B_], units: int | None = None
) -> list[float]:
    """How much each micro-batch counts in the mean over the whole batch, which has these units."""
    counts = [objective.units(micro_batch) for micro_batch in micro_batches]
    return [count / (units or sum(counts)) for count in counts]


def mean_of_means(values: Sequence[tuple[int, float]]) -> float:
    """The mean over groups of each one's mean, of values with their group's number."""
    groups: dict[int, list[float]] = {}
    for group, value in values:
        groups.setdefault(group, []).append(value)
    return sum(sum(group) / len(group) for group in groups.values()) / max(1, len(groups))
