"""What a model can do is found by trying it, and what it cannot do is done the slow way."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_architectures import tiny
from transformers import AutoTokenizer

from quanta_bench.data.batches import collate
from quanta_bench.data.bucketing import by_tokens
from quanta_bench.data.encoding import Encoded
from quanta_bench.errors import BenchError
from quanta_bench.evaluation.decoding import decode
from quanta_bench.evaluation.generation import generate
from quanta_bench.evaluation.likelihood import log_likelihoods
from quanta_bench.models.capabilities import can_pack, decoding_of, positions, why_not_causal
from quanta_bench.models.rope import unscaled_length, use_own_lengths
from quanta_bench.plugins import build_method
from quanta_bench.task import Example, Prompt

DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0 + n for n in range(4)],
    "original_max_position_embeddings": 64,
}
SCALED: dict[str, Any] = {
    "dynamic": {"max_position_embeddings": 64, "rope_parameters": DYNAMIC},
    "longrope": {"original_max_position_embeddings": 64, "rope_parameters": LONG},
    "default": {},
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def scaled(kind: str) -> Any:
    model = tiny("phi3" if kind == "longrope" else "llama", sliding_window=None, **SCALED[kind])
    use_own_lengths(model)
    return model


def alone(kind: str, tokenizer: Any, text: str, steps: int) -> str:
    """Greedy, each step with a fresh model and no cache, as `transformers` does a single row."""
    ids = tokenizer.encode(text)
    start = len(ids)
    for _ in range(steps):
        model = tiny("phi3" if kind == "longrope" else "llama", sliding_window=None, **SCALED[kind])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))


def item(number: int, length: int) -> Encoded:
    context = tuple(2 + (7 * k + number) % 250 for k in range(length))
    candidates = ((9, 8, 30), (7, 6))
    return Encoded(Example(str(number), "g", {}), 0, (context,) * 2, candidates, (2, 2), 0, 0)


def scores(model: Any, items: list[Encoded]) -> dict[str, list[float]]:
    packed = can_pack(model)
    result: dict[str, list[float]] = {}
    with torch.no_grad():
        for part in by_tokens(items, 512, packed=packed):
            batch = collate(part, 1, packed=packed)
            values = log_likelihoods(model, batch).tolist()
            for value, index in zip(values, batch.example.tolist(), strict=True):
                result.setdefault(part[index].example.id, []).append(value)
    return result


@pytest.mark.parametrize("kind", SCALED)
def test_scores_do_not_depend_on_the_longest_row(kind: str) -> None:
    short = [item(n, 58 + n) for n in range(3)]
    apart = scores(scaled(kind), short)
    model = scaled(kind)
    together = scores(model, [*short, item(9, 100)])
    # What was computed before leaves nothing behind either.
    again = scores(model, short)
    for name, values in apart.items():
        assert together[name] == pytest.approx(values, abs=1e-4)
        assert again[name] == pytest.approx(values, abs=1e-4)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_long_row_has_the_frequencies_of_its_length(kind: str) -> None:
    one = item(3, 90)
    plain = tiny("phi3" if kind == "longrope" else "llama", sliding_window=None, **SCALED[kind])
    with torch.no_grad():
        expected = []
        for candidate in one.candidates:
            ids = torch.tensor([[*one.contexts[0], *candidate[:-1]]])
            logits = copy.deepcopy(plain)(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            expected.append(sum(float(logits[89 + n, t]) for n, t in enumerate(candidate)))
    assert scores(scaled(kind), [item(1, 20), one])["3"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", SCALED)
def test_answers_do_not_depend_on_the_longest_row(kind: str, tokenizer: Any) -> None:
    texts = ["Who are you, and what", "y" * 62, "z" * 80]
    model = scaled(kind)
    found = generate(model, tokenizer, [*map(Prompt, texts)], max_new_tokens=6, max_length=300)
    assert [text for text, _ in found] == [alone(kind, tokenizer, text, 6) for text in texts]


def test_lengths_that_scale_are_known() -> None:
    assert [unscaled_length(scaled(kind)) for kind in SCALED] == [64, 64, None]
    assert not can_pack(scaled("dynamic"))
    assert decoding_of(scaled("dynamic"), decode, length=64).cached
    assert not decoding_of(scaled("dynamic"), decode, length=65).cached


def test_positions_are_what_the_model_has() -> None:
    assert positions(tiny("llama")) == 128
    assert positions(tiny("gpt2")) == 128
    assert positions(tiny("opt")) == 128
    # RoBERTa's first position is the padding token's number and one.
    assert positions(tiny("roberta", is_decoder=True)) == 128 - 2
    assert positions(scaled("dynamic")) == 256
    assert positions(tiny("bloom")) is None


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
@pytest.mark.parametrize("cached", [True, False])
def test_padding_leaves_trained_vectors_in_sight(kind: str, cached: bool, tokenizer: Any) -> None:
    built = build_method("prefix", {"num_virtual_tokens": 4})
    model = built.adapt(tiny(kind), 0).eval()
    drawn = torch.Generator().manual_seed(0)
    for value in built.trainable(model).values():
        value.data.copy_(torch.randn(value.shape, generator=drawn))
    prompts = [*map(Prompt, ("a", "Who are you", "x y z " * 4 + "w"))]
    options: dict[str, Any] = {"max_new_tokens": 6, "max_length": 100, "use_cache": cached}
    together = generate(model, tokenizer, prompts, **options)
    assert together == [generate(model, tokenizer, [one], **options)[0] for one in prompts]
    for (text, _), prompt in zip(together, prompts, strict=True):
        ids = tokenizer.encode(prompt.context)
        for _ in range(6):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        written = ids[len(tokenizer.encode(prompt.context)) :]
        assert text == tokenizer.decode(written, skip_special_tokens=True)


def test_latent_attention_is_read_and_written_apart(tokenizer: Any) -> None:
    """Its values have another width than its keys."""
    model = tiny("deepseek_v3")
    assert decoding_of(model, decode).joined
    # Two layers keep 16 compressed numbers of a token, and 8 that are rotated.
    assert decoding_of(model, decode).token_bytes == 2 * (16 + 8) * 4


def test_a_model_without_numbers_is_not_called_what_it_is_not() -> None:
    model = tiny("llama")
    model.lm_head.weight.data.fill_(float("nan"))
    assert why_not_causal(model) is None


def test_a_model_that_cannot_generate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")

    def refuse(**inputs: Any) -> Any:
        raise ValueError("it has no such loop")

    monkeypatch.setattr(model, "generate", refuse)
    with pytest.raises(BenchError, match="cannot generate answers"):
        decoding_of(model, decode)
