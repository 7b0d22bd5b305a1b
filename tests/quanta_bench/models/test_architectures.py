"""Each listed architecture scores and generates as plain `transformers` does one at a time.

``quanta_bench/models/architectures.json`` lists what was found of each causal language model that
`transformers` has and that can be built tiny. ``python -m pytest -m slow`` checks all of them, and
running this file as a module writes the list anew; ``test_architectures_page.py`` renews the page
that shows it.
"""

from __future__ import annotations

import json
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from recorders import traced
from tiny_architectures import ENCODERS, tiny
from transformers import AutoTokenizer

from quanta_bench.data.batches import collate
from quanta_bench.data.encoding import Encoded
from quanta_bench.errors import BenchError
from quanta_bench.evaluation.decoding import decode
from quanta_bench.evaluation.generation import generate
from quanta_bench.evaluation.likelihood import log_likelihoods
from quanta_bench.models import capabilities
from quanta_bench.task import Example, Prompt

LIST = "architectures.json"
HELD: dict[str, dict[str, Any]] = json.loads(
    files("quanta_bench.models").joinpath(LIST).read_text(encoding="utf-8")
)["architectures"]

# One of each kind of layer: plain, learnt and no positions, grouped and latent attention, windows,
# experts, recurrent layers, hybrids, and an encoder with a causal mask.
CHOSEN = (
    "llama",
    "gpt2",
    "bloom",
    "mpt",
    "opt",
    "qwen3",
    "gemma2",
    "mistral",
    "mixtral",
    "deepseek_v3",
    "rwkv",
    "mamba",
    "recurrent_gemma",
    "qwen3_next",
    "roberta",
    "openai-gpt",
)
PROMPTS = ["2: say it", "A much longer prompt than the other one, or the third:", "x"]
STEPS = 6

# Of those that decode many rows together, the ones that make their own mask of two dimensions.
NOT_REPLAYED = {"bloom", "mpt"}
REPLAYED = [
    kind for kind in CHOSEN if HELD[kind]["generates"] == "joined" and kind not in NOT_REPLAYED
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def build(kind: str) -> Any:
    return tiny(kind, **({"is_decoder": True} if kind in ENCODERS else {}))


@torch.no_grad()
def plain_answer(model: Any, tokenizer: Any, prompt: str) -> str:
    ids = tokenizer.encode(prompt)
    start = len(ids)
    for _ in range(STEPS):
        ids.append(
            int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        )
        if ids[-1] == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))


@torch.no_grad()
def plain_score(model: Any, context: tuple[int, ...], candidate: tuple[int, ...]) -> float:
    ids = torch.tensor([[*context, *candidate]])
    logits = model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
    places = range(len(context) - 1, ids.shape[1] - 1)
    return sum(float(logits[at, token]) for at, token in zip(places, candidate, strict=True))


def items() -> list[Encoded]:
    def tokens(first: int, count: int) -> tuple[int, ...]:
        return tuple(3 + (first + 7 * n) % 250 for n in range(count))

    return [
        Encoded(
            Example(f"{n}", "g", {}),
            0,
            (tokens(n, length),) * 2,
            (tokens(90 + n, 3), tokens(50 + n, 1 + n)),
            (1, 1),
            gold=0,
            cut=0,
        )
        for n, length in enumerate((5, 12, 21))
    ]


def check(kind: str, tokenizer: Any) -> None:
    model = build(kind)
    assert capabilities.why_not_causal(model) is None
    with torch.no_grad():
        batch = collate(items(), 1, packed=capabilities.can_pack(model))
        scores = log_likelihoods(model, batch).tolist()
    expected = [
        plain_score(model, context, candidate)
        for item in items()
        for context, candidate in zip(item.contexts, item.candidates, strict=True)
    ]
    assert scores == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert found(model) == HELD[kind]
    if HELD[kind]["generates"] == "no":
        return
    answers = generate(
        model, tokenizer, [*map(Prompt, PROMPTS)], max_new_tokens=STEPS, max_length=100
    )
    assert [text for text, _ in answers] == [
        plain_answer(model, tokenizer, prompt) for prompt in PROMPTS
    ]


def found(model: Any) -> dict[str, Any]:
    packs = capabilities.can_pack(model)
    try:
        mode = capabilities.decoding_of(model, decode)
    except BenchError:
        return {"class": type(model).__name__, "packs": packs, "generates": "no", "cached": False}
    together = "joined" if mode.joined else "batched" if mode.batched else "one at a time"
    return {
        "class": type(model).__name__,
        "packs": packs,
        "generates": together,
        "cached": mode.cached,
    }


@pytest.mark.parametrize("kind", CHOSEN)
def test_a_chosen_architecture(kind: str, tokenizer: Any) -> None:
    check(kind, tokenizer)


@pytest.mark.parametrize("kind", REPLAYED)
def test_a_replay_of_operations_decodes_as_the_model_does(kind: str) -> None:
    """On a GPU a step is a graph: operations on tensors that were recorded once."""
    recording = partial(decode, record=traced)
    assert capabilities.decoding_of(build(kind), decode, recording=recording).recorded


@pytest.mark.slow
@pytest.mark.parametrize("kind", HELD)
def test_every_listed_architecture(kind: str, tokenizer: Any) -> None:
    check(kind, tokenizer)


def write() -> None:
    """Find out anew what each architecture can do, and write the list."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    held, others = {}, {}
    for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            model = build(kind)
        except Exception as error:  # whatever a configuration raises
            others[kind] = f"not built tiny: {type(error).__name__}"
            continue
        reason = capabilities.why_not_causal(model)
        if reason is None:
            held[kind] = found(model)
        else:
            others[kind] = reason
    content = {"transformers": transformers.__version__, "architectures": held, "others": others}
    path = Path(str(files("quanta_bench.models").joinpath(LIST)))
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
