"""The numbers of a small run, pinned: whoever changes one changes what stored results mean.

If this fails because numbers are meant to change, raise `quanta_bench.results.provenance.NUMBERS`,
say so in CHANGELOG.md, and pin the new ones. Stored results are then shown as stale.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from quanta_bench.data.pools import Pools
from quanta_bench.results.provenance import NUMBERS
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec

PINNED = "0.1.0"
LOSSES = {
    "choice-text": [0.70430, 0.65468, 0.65018, 0.69850],
    "choice-label": [0.69236, 0.69986, 0.69854, 0.69712],
}
"""Training loss of each step, by protocol."""
LIKELIHOODS = {
    "choice-text": [
        *(-39.76595, -39.76483, -39.77394, -39.76521, -39.76499, -39.76573),
        *(-150.96070, -150.85128, -150.18430, -150.59093, -149.23485, -150.53906),
    ],
    "choice-label": [
        *(-313.18950, -313.19147, -313.23886, -313.19185, -313.18863, -313.23008),
        *(-364.42797, -364.40577, -364.46013, -364.41406, -364.37948, -364.38872),
    ],
}
"""Log-likelihoods of each test item's candidates, summed, in nats."""


@pytest.mark.parametrize("protocol", ["choice-text", "choice-label"])
def test_numbers_of_a_small_run(
    tmp_path: Path, tiny_model: Path, llm_adapters: Path, protocol: str
) -> None:
    """Float32, on a processor: data, order, encoding, loss, schedule, scoring."""
    source = f"local:{llm_adapters}"
    training = TrainingSpec(
        model=ModelSpec(name=".", source=f"local:{tiny_model}"),
        method="lora",
        settings={"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]},
        tasks=("boolq", "piqa"),
        source=source,
        protocol=protocol,
        train_items=8,
        validation_items=4,
        batch_size=4,
        accumulate=2,
        learning_rate=1e-2,
        precision="float32",
    )
    scoring = EvaluationSpec(tasks=("boolq", "piqa"), source=source, protocol=protocol, items=6)
    store = Store(tmp_path)
    result = Runner(store, Silent(), Pools()).run(Job("LoRA", training, scoring))
    lines = store.predictions(result.run)
    assert lines is not None
    assert NUMBERS == PINNED
    assert result.training.losses == pytest.approx(LOSSES[protocol], rel=1e-4)
    sums = [sum(line["log_likelihoods"]) for line in lines]
    assert sums == pytest.approx(LIKELIHOODS[protocol], rel=1e-4)
