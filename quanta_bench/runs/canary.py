"""Compute the canary of this stack: a tiny model of fixed weights, trained and scored as any run.

The whole path of a run takes part: loading, LoRA, training, selection, scoring. Model and data are
made here, so that nothing is downloaded.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from quanta_bench.results.canary import FOLDER, Canary, in_words, read, stack_of
from quanta_bench.results.environment import environment
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec
from quanta_bench.utils.cache import cache_folder, keep
from quanta_bench.utils.quiet import quiet_libraries

VERSION = 1
"""Raised whenever the same stack would give another mean."""
SPLITS = {"train": 48, "validation": 8, "test": 100}
"""Rows of each split."""


def ensure(root: Path) -> Canary:
    """The canary of this stack, stored in a results folder; computed once on a machine.

    Args:
        root: the results folder.

    Raises:
        BenchError: it cannot be computed here.
    """
    stack = stack_of(environment())
    cached = cache_folder() / FOLDER / f"{stack}-{VERSION}.json"
    stored = root / FOLDER / f"{stack}.json"
    canary = next((c for c in map(read, (stored, cached)) if c and c.version == VERSION), None)
    canary = canary or compute()
    text = canary.model_dump_json(indent=1).encode()
    for path in (cached, stored):
        if read(path) != canary:
            # Without it, tables say that it is not known.
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
            keep(path, text)
    return canary


def is_due(results: Iterable[Result], root: Path) -> bool:
    """Whether this stack computed some of these results, and its canary is not stored."""
    here = stack_of(environment())
    computed = any(stack_of(result.training.environment) == here for result in results)
    return computed and read(root / FOLDER / f"{here}.json") is None


def compute() -> Canary:
    """Train and score the fixed run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_model(folder / "model")
        _write_rows(folder / "rows.jsonl")
        task = f"file:{folder / 'rows.jsonl'}"
        model = ModelSpec(name="model", source=f"local:{folder}")
        common = {"tasks": (task,), "protocol": "choice-text"}
        training = TrainingSpec(
            model=model,
            method="lora",
            settings={"r": 4},
            loss="answer",
            learning_rate=1e-2,
            batch_size=8,
            validations=1,
            **common,
        )
        store = Store(folder / "results")
        runner = Runner(store, Silent())
        result = runner.run(Job("canary", training, EvaluationSpec(**common)))
        lines = store.predictions(result.run) or []
        values = [line["log_likelihoods"][line["gold"]] for line in lines]
        here = result.evaluation_environment
    error = statistics.stdev(values) / len(values) ** 0.5
    return Canary(
        version=VERSION,
        stack=stack_of(here),
        name=in_words(here),
        mean=statistics.fmean(values),
        standard_error=error,
        items=len(values),
    )


def _write_model(folder: Path) -> None:
    """A LLaMA of two layers with NumPy's random weights, and a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    make_fast: Any = PreTrainedTokenizerFast
    make_fast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(vocabulary),
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=1,
    )
    # Torch's own random weights may differ from version to version.
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config)
    random = np.random.RandomState(0)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.ndim == 2:
            drawn = random.standard_normal(tuple(parameter.shape)) * 0.2
            parameter.data.copy_(torch.from_numpy(drawn))
    with quiet_libraries():
        model.save_pretrained(folder)


def _write_rows(path: Path) -> None:
    """Sums with two wrong answers each."""
    random = np.random.RandomState(1)
    lines = []
    for split, count in SPLITS.items():
        for _ in range(count):
            one, other = map(int, random.randint(10, 500, 2))
            choices = [str(one + other + gap) for gap in (0, 10, -3)]
            row = {"prompt": f"{one} + {other} =", "choices": choices, "answer": choices[0]}
            lines.append({**row, "split": split})
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
