"""Both scorers' results on disk: lm-eval's as its own command writes them, ours beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quanta_bench.errors import BenchError
from quanta_bench.export.formats import lm_eval_results
from quanta_bench.export.formats.options import Options
from quanta_bench.export.harness.subject import Subject
from quanta_bench.utils.folders import storage_errors

THEIRS = "lm-eval"
OURS = "quanta-bench"


def tracker(folder: Path) -> Any:
    """What ``simple_evaluate`` records settings in, and writes files with."""
    from lm_eval.loggers import EvaluationTracker

    return EvaluationTracker(output_path=str(folder / THEIRS))


def save(
    tracked: Any, results: Mapping[str, Any], subject: Subject, folder: Path
) -> dict[str, list[Path]]:
    """Write ``results_DATE.json`` and ``samples_TASK_DATE.jsonl`` of each scorer.

    Args:
        tracked: lm-eval's tracker, which `tracker` made and ``simple_evaluate`` filled.
        results: what ``simple_evaluate`` returned. lm-eval changes it as it writes.
        subject: the model. Of an exported folder we have no run and so no results to write.
        folder: where to.

    Returns:
        The files of each, by its folder's name.

    Raises:
        BenchError: lm-eval could not write.
        StorageError: the folder cannot be written.
    """
    with storage_errors(folder, "Name another folder with --to."):
        folder.mkdir(parents=True, exist_ok=True)
        found = dict(results)
        samples = found.pop("samples")
        tracked.save_results_aggregated(results=found, samples=samples)
        for task in found["configs"]:
            tracked.save_results_samples(task_name=task, samples=samples[task])
        files = {THEIRS: sorted((folder / THEIRS).glob(f"*/*_{tracked.date_id}.json*"))}
        # It reports what it cannot write to its log alone.
        if len(files[THEIRS]) != 1 + len(found["configs"]):
            raise BenchError(f"lm-evaluation-harness could not write all of its files to {folder}.")
        if subject.run is not None:
            files[OURS] = lm_eval_results.write([subject.run], folder / OURS, Options(items=True))
        return files
