"""The hub: scores as metadata of a model's card (``model-index``) and in ``.eval_results``.

What is written is a model repository's own files, in a clone of it or in a new folder: a card that
is there keeps its text and the scores of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quanta_bench.errors import UsageError
from quanta_bench.export.card import base_on_the_hub, eval_results, write_entries
from quanta_bench.export.formats.names import model_name
from quanta_bench.export.formats.options import Options
from quanta_bench.export.stored import StoredRun
from quanta_bench.results.records import Result

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD = "README.md"


def write(runs: Sequence[StoredRun], folder: Path, options: Options) -> list[Path]:
    """Write the scores of the one run into a card.

    Raises:
        UsageError: there are several runs or items are asked for, which a card does not hold, or
            the card that is there cannot be read.
    """
    if options.items:
        raise UsageError("A card on the hub holds no items: leave out --items.")
    if len(runs) != 1:
        raise UsageError(
            f"A card on the hub is about one model, and these are {len(runs)} runs: name one."
        )
    result = runs[0].result
    path = folder / CARD
    folder.mkdir(parents=True, exist_ok=True)
    _card(path, result)
    entries = write_entries(result, folder)
    return [path, *([entries] if entries else [])]


def _card(path: Path, result: Result) -> None:
    """Add a run's scores to the card, in place of those of the same task, data and metric."""
    from huggingface_hub import ModelCard, ModelCardData

    if path.exists():
        try:
            card = ModelCard.load(path)
        except Exception as error:  # the card's YAML, read by several libraries
            reason = " ".join(str(error).split())
            raise UsageError(f"The metadata of {path} cannot be read: {reason}") from error
        card.data.model_name = card.data.model_name or model_name(result)
    else:
        name = model_name(result)
        data = ModelCardData(model_name=name, base_model=base_on_the_hub(result))
        card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {name}\n")
    ours = eval_results(result)
    replaced = {_subject(one) for one in ours}
    others = [one for one in card.data.eval_results or [] if _subject(one) not in replaced]
    card.data.eval_results = [*others, *ours]
    card.save(path)


def _subject(one: EvalResult) -> tuple[Any, ...]:
    """What a score is of, whatever its value and interval."""
    return (*one.unique_identifier, one.metric_type, one.metric_name)
