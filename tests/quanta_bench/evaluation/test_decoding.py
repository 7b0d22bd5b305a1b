"""Rows that are read apart and written together continue as each would alone."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from recorders import computed_again, not_recorded, traced
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    StoppingCriteriaList,
    StopStringCriteria,
)

from quanta_bench.evaluation import decoding, generation, graphs, steps
from quanta_bench.evaluation.decoding import decode, rows_together
from quanta_bench.models.capabilities import decoding_of
from quanta_bench.task import Prompt

TEXTS = ["a", "Who are you, and", "x y z " * 12, "1 + 1 =", "one " * 30, "?!", "Zq" * 50]
STEPS = 40


def rows(tokenizer, texts):
    ids = [tokenizer.encode(text) for text in texts]
    width = max(map(len, ids))
    pad = tokenizer.pad_token_id
    return {
        "input_ids": torch.tensor([[pad] * (width - len(row)) + row for row in ids]),
        "attention_mask": torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in ids]),
    }


def continuations(model, tokenizer, texts, **options):
    """What ``generate`` writes to each text, up to a row's end."""
    inputs = rows(tokenizer, texts)
    options = {"max_new_tokens": STEPS, "do_sample": False, **options}
    found = model.generate(**inputs, pad_token_id=tokenizer.pad_token_id, **options)
    return [
        tokenizer.decode(row, skip_special_tokens=True)
        for row in found[:, inputs["input_ids"].shape[1] :]
    ]


def stopping(tokenizer, *marks):
    return StoppingCriteriaList([StopStringCriteria(tokenizer, list(marks))])


@pytest.fixture(scope="module")
def alone(pair):
    """Each text's continuation by ``transformers`` alone, one at a time, with and without stops."""
    found = {}
    for text in TEXTS:
        [plain] = continuations(*pair, [text])
        [stopped] = continuations(*pair, [text], stopping_criteria=stopping(pair[1], *"eEo"))
        found[text] = plain, stopped
    return found


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=9),
    budget=st.sampled_from([16, 100, 10_000]),
    ended=st.sampled_from([1, 3, 8]),
    record=st.sampled_from([None, computed_again]),
)
def test_texts_do_not_depend_on_what_else_is_in_the_batch(
    pair, alone, texts, budget, ended, record
):
    """However prompts are batched for reading, and whenever rows that have ended are dropped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "evaluation_tokens", lambda _: budget)
        for kind in (steps.Steps, steps.RecordedSteps):
            patch.setattr(kind, "ended_part", ended)
        patch.setattr(steps, "RESERVE", 7)
        own = partial(decode, record=record)
        plain = continuations(*pair, texts, custom_generate=own)
        marks = stopping(pair[1], *"eEo")
        stopped = continuations(*pair, texts, custom_generate=own, stopping_criteria=marks)
    assert plain == [alone[text][0] for text in texts]
    assert stopped == [alone[text][1] for text in texts]


def test_rows_that_have_ended_are_no_longer_computed(pair, alone, monkeypatch):
    lengths = [len(pair[1].encode(alone[text][1])) for text in TEXTS]
    assert len(set(lengths)) > 2
    seen, done = [], []
    forward = steps.forward

    def counted(model, ids, mask, cache):
        seen.append(ids.numel())
        return forward(model, ids, mask, cache)

    for module in (decoding, steps):
        monkeypatch.setattr(module, "forward", counted)
    monkeypatch.setattr(steps.Steps, "ended_part", 100)

    def own(*args, **kwargs):
        return decode(*args, **kwargs, advance=done.append)

    continuations(*pair, TEXTS, custom_generate=own, stopping_criteria=stopping(pair[1], *"eEo"))
    # A row's first token follows from its prompt; each other needs a step of its own.
    prompts = sum(len(pair[1].encode(text)) for text in TEXTS)
    assert sum(seen) <= prompts * 1.5 + sum(min(length, STEPS) - 1 for length in lengths)
    assert sum(done) == len(TEXTS)


class Copies(TorchDispatchMode):
    """Counts the bytes that copies and concatenations of keys, values and states write."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("cat", "copy_", "clone") and result.is_floating_point():
            written = args[1] if name == "copy_" else result
            self.bytes += written.numel() * written.element_size()
        return result


def test_a_token_copies_nothing_of_what_was_read_before(pair):
    def copied(length, steps, **options):
        inputs = {"input_ids": torch.full((3, length), 9), "attention_mask": torch.ones(3, length)}
        with Copies() as copies:
            pair[0].generate(
                **inputs,
                max_new_tokens=steps,
                min_new_tokens=steps,
                do_sample=False,
                pad_token_id=0,
                **options,
            )
        return copies.bytes

    ours, growing = (
        [copied(length, 20, **options) - copied(length, 2, **options) for length in (10, 100)]
        for options in ({"custom_generate": decode}, {})
    )
    assert ours[0] == ours[1]
    assert growing[1] - growing[0] > ours[0]


@pytest.mark.parametrize(
    "config",
    [
        {"eos_token_id": [1, *range(60, 100)]},
        {"no_repeat_ngram_size": 2},
        {"suppress_tokens": list(range(100, 256))},
        {"min_new_tokens": 10, "eos_token_id": list(range(60, 200))},
    ],
)
def test_what_a_models_configuration_asks_for_is_heeded(pair, config):
    model, tokenizer = pair
    wanted = [continuations(model, tokenizer, [text], **config)[0] for text in TEXTS]
    assert wanted != [continuations(model, tokenizer, [text])[0] for text in TEXTS]
    assert continuations(model, tokenizer, TEXTS, custom_generate=decode, **config) == wanted


def wild(model: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.3)
    return model.eval()


def adapted(pair):
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    return wild(get_peft_model(copy.deepcopy(pair[0]), config))


SMALL = {"vocab_size": 258, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 1}
OTHERS = {
    "an adapter": adapted,
    "learned positions": lambda pair: wild(GPT2LMHeadModel(GPT2Config(**SMALL, n_embd=32))),
    "slopes in place of positions": lambda pair: wild(
        BloomForCausalLM(BloomConfig(**SMALL, hidden_size=32))
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_models_continue_alike(pair, kind):
    model, tokenizer = OTHERS[kind](pair), pair[1]
    wanted = [continuations(model, tokenizer, [text])[0] for text in TEXTS]
    assert len(set(wanted)) > 1
    assert decoding_of(model, decode).joined
    assert continuations(model, tokenizer, TEXTS, custom_generate=decode) == wanted


@pytest.mark.parametrize("stopped", [False, True])
def test_a_replayed_step_reads_only_tensors(pair, alone, stopped):
    """Replays of a trace write what the model writes alone, and few traces are made."""
    made = []

    def record(step):
        made.append(traced(step))
        return made[-1]

    options = {"stopping_criteria": stopping(pair[1], *"eEo")} if stopped else {}
    own = partial(decode, record=record)
    assert continuations(*pair, TEXTS, custom_generate=own, **options) == [
        alone[text][stopped] for text in TEXTS
    ]
    assert 1 <= len(made) <= (1 + math.log2(len(TEXTS)) if stopped else 1)


def test_a_step_that_reads_more_than_tensors_would_be_seen(pair, alone):
    """The control: a count that Python keeps is as old as the trace."""

    class Forgetful(steps.RecordedSteps):
        def __call__(self, tokens):
            logits = super().__call__(tokens)
            self._place = self._place.clone()
            return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "RecordedSteps", Forgetful)
        found = continuations(*pair, TEXTS, custom_generate=partial(decode, record=traced))
    assert found != [alone[text][0] for text in TEXTS]


def test_steps_are_recorded_where_a_model_proves_that_they_may(pair):
    def mode(model, record):
        return decoding_of(copy.deepcopy(model), decode, recording=partial(decode, record=record))

    assert mode(pair[0], traced).recorded
    assert mode(OTHERS["an adapter"](pair), traced).recorded
    assert mode(OTHERS["learned positions"](pair), traced).recorded
    assert mode(pair[0], not_recorded) == decoding_of(pair[0], decode)
    # Slopes are made from a mask of two dimensions.
    slopes = mode(OTHERS["slopes in place of positions"](pair), traced)
    assert slopes.joined
    assert not slopes.recorded


@pytest.mark.parametrize(("bound", "recorded"), [(16, True), (15, False)])
def test_steps_of_short_answers_are_not_recorded(pair, alone, monkeypatch, bound, recorded):
    made = []

    def record(step):
        made.append(step)
        return step

    prompts = [Prompt(text) for text in TEXTS]
    options = {"max_new_tokens": bound, "max_length": 400}
    called = generation.generate(*pair, prompts, **options)
    monkeypatch.setattr(generation, "RECORDERS", {"cpu": (record, record)})
    assert generation.generate(*pair, prompts, **options) == called
    assert bool(made) == recorded


def test_a_step_that_is_refused_after_the_proof_is_called(pair, monkeypatch):
    """A model proves itself on a few tokens; a batch of other shapes may still be refused."""
    prompts = [Prompt(text) for text in TEXTS]
    options = {"max_new_tokens": STEPS, "max_length": 400}
    called = generation.generate(*pair, prompts, **options)
    tried = []

    def refuses(step):
        tried.append(step)
        not_recorded(step)

    monkeypatch.setattr(graphs, "record_graph", refuses)
    recorders = {"cpu": (computed_again, graphs.graph_or_calls)}
    monkeypatch.setattr(generation, "RECORDERS", recorders)
    assert generation.generate(copy.deepcopy(pair[0]), pair[1], prompts, **options) == called
    assert tried


def test_memory_that_runs_out_is_not_taken_for_a_refusal(monkeypatch):
    def runs_out(step):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(graphs, "record_graph", runs_out)
    with pytest.raises(torch.OutOfMemoryError):
        graphs.graph_or_calls(lambda: torch.zeros(()))


def test_after_a_failed_recording_none_is_tried(monkeypatch):
    monkeypatch.setattr(graphs, "_failures", ["operation not permitted"])
    with pytest.raises(RuntimeError, match="operation not permitted"):
        graphs.record_graph(lambda: torch.zeros(()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_of_a_step_writes_what_calls_write(pair):
    model = copy.deepcopy(pair[0]).cuda()
    inputs = {name: tensor.cuda() for name, tensor in rows(pair[1], TEXTS).items()}
    options = {"max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
    own = partial(decode, record=graphs.record_graph)
    replayed = model.generate(**inputs, **options, custom_generate=own)
    assert torch.equal(replayed, model.generate(**inputs, **options, custom_generate=decode))
    assert generation.fastest_decoding(model, max_new_tokens=STEPS, length=400).recorded


def test_the_number_of_rows_is_bound_by_what_they_keep(pair):
    model, _ = pair
    # Two layers of keys and values, two heads of width 16, in float32.
    assert decoding_of(model, decode).token_bytes == 2 * 2 * 2 * 16 * 4
    assert rows_together(1) == 64
    assert rows_together((4 << 30) / 40) == 40
    assert rows_together(1 << 40) == 16
