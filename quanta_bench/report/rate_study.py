"""A study of learning rates as data: its trials row by row, and what was chosen."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

State = Literal["scored", "refused", "diverged", "failed"]


class Trial(BaseModel):
    """A row at one learning rate.

    Attributes:
        rate: the learning rate.
        state: ``scored``; ``refused``, because the model lost too much of running text;
            ``diverged``, because a run ended in NaN or infinite numbers; ``failed``, without a
            result for another reason.
        why: why it cannot be chosen, in words; empty for one that can.
        score: validation score in the unit of tables (percent for fractions), mean over seeds.
        standard_error: of the score, over seeds and items; ``None`` where it is unknown.
        loss: validation loss of the kept checkpoints, in nats, mean over runs.
        perplexity: perplexity of running text, mean over runs.
        ratio: that perplexity over the base model's on the same text.
        steps: optimiser steps of a run; with tasks trained apart, of all of a seed's runs.
        runs: names of the runs in the results folder.
    """

    rate: float = Field(gt=0)
    state: State = "scored"
    why: str = ""
    score: float | None = None
    standard_error: float | None = None
    loss: float | None = None
    perplexity: float | None = None
    ratio: float | None = None
    steps: int = 0
    runs: list[str] = []

    @property
    def admissible(self) -> bool:
        """Whether the rate can be chosen."""
        return self.state == "scored"


class Sensitivity(BaseModel):
    """What half a decade costs.

    Attributes:
        below: how much worse the score is at the next smaller rate, in its unit; ``None`` if that
            has no score.
        above: how much worse at the next larger one.
    """

    below: float | None = None
    above: float | None = None


class RowStudy(BaseModel):
    """The sweep of a row.

    Attributes:
        label: the row's label.
        method: registered name of its method.
        model: its base model.
        present: the learning rate that the suite gives it.
        settings: fingerprints of the trainings that the rates were tried for, see
            :mod:`quanta_bench.report.tuned`.
        base_score: validation score of the base model, where it was scored.
        base_perplexity: perplexity of running text of the base model; ``None`` without a text.
        trials: by ascending rate.
        chosen: the chosen rate; ``None`` if there is none.
        at_edge: the chosen rate is the smallest or the largest that was tried.
        sensitivity: of the score around the chosen rate.
    """

    label: str
    method: str
    model: str
    present: float
    settings: list[str]
    base_score: float | None = None
    base_perplexity: float | None = None
    trials: list[Trial] = []
    chosen: float | None = None
    at_edge: bool = False
    sensitivity: Sensitivity = Sensitivity()


class Study(BaseModel):
    """A study of the rows of a suite.

    Attributes:
        name: stem of its files.
        suite: the suite.
        profile: its profile.
        size: its size, or empty.
        title: in words.
        fingerprint: 12 hexadecimal digits of all that the scores depend on.
        command: the command that made it.
        score: what the score is, in words.
        lower_is_better: whether a lower score is better.
        bound: largest admissible ratio of running-text perplexities; ``None`` without a text.
        seeds: the seeds of a trial.
        most: largest number of rates of a row.
        rows: the rows that were tuned.
        skipped: why other rows were not, by label.
        notes: sentences.
    """

    name: str
    suite: str
    profile: str
    size: str
    title: str
    fingerprint: str
    command: str
    score: str
    lower_is_better: bool
    bound: float | None
    seeds: list[int]
    most: int
    rows: list[RowStudy]
    skipped: dict[str, str]
    notes: list[str] = []
