"""Refuse outputs that are NaN or infinite, and say what may help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from quanta_bench.errors import BenchError, DivergedError
from quanta_bench.evaluation import evaluators
from quanta_bench.evaluation.decisions import NonFiniteError
from quanta_bench.results.records import TrainingRecord


def perplexity(reference: str, judged: Sequence[evaluators.Judged]) -> float:
    """Perplexity of a running text; an error names the text.

    Raises:
        NonFiniteError: a likelihood is NaN or infinite.
    """
    try:
        return evaluators.perplexity(judged)
    except NonFiniteError as error:
        raise NonFiniteError(f"{reference}: {error}") from None


@contextmanager
def finite_outputs(record: TrainingRecord) -> Iterator[None]:
    """On NaN or infinite outputs, say which weights gave them and what may help."""
    try:
        yield
    except NonFiniteError as error:
        spec, base = record.spec, record.precision["base"]
        wider = "" if base == "float32" else " or compute in float32 (training.precision=float32)"
        if not record.steps:
            raise BenchError(
                f"{error}. It was scored with the weights of {record.model} as they are, in "
                f"{base}: check these{wider}."
            ) from None
        raise DivergedError(
            f"{error}. It was scored with the weights that {spec.method!r} had after step "
            f"{record.best_step} of {record.steps}, at a learning rate of "
            f"{spec.learning_rate:g}, in {base}: lower training.learning_rate{wider}."
        ) from None
