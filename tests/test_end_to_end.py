"""The real pretrained model on real items, from the command line to the stored result."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from quanta_bench.data.batches import collate
from quanta_bench.data.pools import Pools, draw
from quanta_bench.data.tokenization import encode_items
from quanta_bench.evaluation import likelihood
from quanta_bench.models.loading import ModelRef, load_model

pytestmark = pytest.mark.usefixtures("offline")


def test_packed_scores_on_the_real_model_are_those_of_one_candidate_at_a_time():
    base = load_model(ModelRef(), torch.float32)
    pools = Pools()
    drawn = []
    for name in ("boolq", "hellaswag", "winogrande", "arc_easy"):
        pool = pools.get(name, "embedded", "test")
        drawn.append((pool.task, draw(pool.examples, 2, 0)))
    items = encode_items(base.tokenizer, drawn, "choice-text", max_length=512)
    with torch.no_grad():
        found = likelihood.log_likelihoods(base.model, collate(items, 0, packed=True)).tolist()
        expected = []
        for item in items:
            for context, candidate in zip(item.contexts, item.candidates, strict=True):
                logits = base.model(torch.tensor([[*context, *candidate]])).logits[0]
                log_p = logits.log_softmax(-1)[len(context) - 1 : -1]
                expected.append(float(log_p.gather(1, torch.tensor(candidate)[:, None]).sum()))
    assert found == pytest.approx(expected, abs=1e-3)


def test_quanta_is_trained_scored_and_stored_from_the_command_line(tmp_path):
    words = "--method quanta --task arc_easy --json --set training.train_items=8"
    words += " --set training.validation_items=4 --set evaluation.items=4"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "quanta_bench.cli.main",
            "run",
            *words.split(),
            "--results",
            tmp_path,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    training = result["training"]
    assert training["model"] == "SmolLM2-135M-Instruct, dequantised from Q4_1"
    assert training["base_parameters"] == 134_515_008
    assert training["trainable_parameters"] == 205_440
    assert training["steps"] == 1
    assert result["tasks"]["arc_easy"]["items"] == 4
    folder = tmp_path / "runs" / result["run"]
    assert {path.name for path in folder.iterdir()} == {
        "result.json",
        "predictions.jsonl",
        "adapter",
    }
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
