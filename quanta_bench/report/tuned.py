"""Whether a learning rate was tuned for the trainings of a row: what its origin says of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from quanta_bench.runs.identity import normal_form
from quanta_bench.spec import EvaluationSpec, TrainingSpec, canonical
from quanta_bench.utils.fingerprint import text_digest

TUNED = "compared on validation items"
"""How the origin of a learning rate begins that validation items decided."""

_SETTINGS = re.compile(r"\bfor settings ((?:[0-9a-f]{8} ?)+)")

Jobs = Sequence[tuple[TrainingSpec, EvaluationSpec]]


def origin(study: str, settings: Sequence[str]) -> str:
    """The origin of a rate that ``quanta-bench tune`` chose.

    Args:
        study: the study's fingerprint.
        settings: of the trainings it was chosen for, see `settings_of`.
    """
    return f"{TUNED} by quanta-bench tune, study {study} for settings {' '.join(settings)}"


def settings_of(jobs: Jobs) -> list[str]:
    """Fingerprints of a row's distinct trainings, of 8 hexadecimal digits each.

    All of a training counts but its learning rate and its seeds.
    """
    return sorted({_fingerprint(training) for training, _ in jobs})


def _fingerprint(training: TrainingSpec) -> str:
    spec, _ = normal_form(training)
    kept = spec.model_dump(mode="json", exclude_defaults=True, exclude={"learning_rate", "seeds"})
    return text_digest(canonical(kept))[:8]


def is_tuned(text: str, jobs: Jobs) -> bool:
    """Whether an origin says that a rate was tuned for these trainings.

    It has to name their settings. A method's default rate names none: it was compared on one task
    at one size, and rows of others have to say so.
    """
    named = _SETTINGS.search(text) if TUNED in text else None
    return named is not None and set(settings_of(jobs)) <= set(named[1].split())
