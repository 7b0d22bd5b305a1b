"""The battery of tasks on every registered one whose rows the embedded data have."""

from __future__ import annotations

import pytest

from quanta_bench.plugins import TASKS
from quanta_bench.task import MissingDataError, Source
from quanta_bench.testing.tasks import SPLITS, TaskBattery

OWN_FILES = {"file", "jsonl"}
SCORED_ONLY = {"running_text", "wikipedia_text"}
ELSEWHERE = {
    "aqua", "cola", "commonsense170k", "cpsycound", "cpsycound_written", "math10k", "mawps",
    "r1_distill_sft", "stsb", "svamp", "wikitext2",
}  # fmt: skip
EMBEDDED = sorted(set(TASKS.names()) - OWN_FILES - SCORED_ONLY - ELSEWHERE)

pytestmark = pytest.mark.usefixtures("offline")

globals().update(
    {
        f"Test_{name}": type(f"Test_{name}", (TaskBattery,), {"task": TASKS.get(name)})
        for name in EMBEDDED
    }
)


@pytest.mark.parametrize("name", sorted(ELSEWHERE | SCORED_ONLY))
def test_the_others_say_that_the_embedded_data_lack_their_rows(name: str, embedded: Source) -> None:
    for split in SPLITS:
        if (name in SCORED_ONLY) is (split == "test") and name in SCORED_ONLY:
            assert TASKS.get(name)().examples(embedded, split)
            continue
        with pytest.raises(MissingDataError):
            TASKS.get(name)().examples(embedded, split)
