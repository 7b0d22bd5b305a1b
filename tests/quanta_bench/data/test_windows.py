"""Long texts: every token is predicted once, from the context that its window has."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from quanta_bench.data.batches import collate
from quanta_bench.data.encoding import encode
from quanta_bench.data.windows import TRAINING_OVERLAP, encode_windows, scoring_overlap, spans
from quanta_bench.errors import BenchError
from quanta_bench.evaluation import likelihood
from quanta_bench.evaluation.decisions import NonFiniteError
from quanta_bench.evaluation.evaluators import Context, evaluate, perplexities, perplexity
from quanta_bench.spec import EvaluationSpec
from quanta_bench.task import Example, Prompt, Task

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom."


class Text(Task):
    name = "text"
    title = "Text"
    kind = "perplexity"
    metric = "perplexity"

    def examples(self, source, split):
        raise NotImplementedError

    def prompt(self, example, protocol):
        return Prompt(example.fields.get("context", ""), target=example.fields["text"])


class Words(Text):
    def words(self, example):
        return len(example.fields["text"].split())


def item(text, context="", name="1"):
    return Example(name, name, {"text": text, "context": context})


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def model(tiny_model):
    # Random weights of the usual size hardly look at their context; these do.
    found = AutoModelForCausalLM.from_pretrained(tiny_model).double().eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(4 if parameter.dim() == 2 else 1)
    return found


@pytest.fixture
def judge(model, tokenizer):
    def call(task, examples, max_length, advance=lambda _: None):
        spec = EvaluationSpec(tasks=("text",), max_length=max_length)
        context = Context(
            model,
            tokenizer,
            spec,
            packed=False,
            cached=True,
            device=torch.device("cpu"),
            advance=advance,
        )
        return evaluate(context, task, examples)

    return call


def log_probability(model, context, token):
    """Of one token after a context, from a forward pass of nothing else."""
    with torch.no_grad():
        logits = model(torch.tensor([context])).logits[0, -1]
    return float(logits.log_softmax(-1)[token])


# --- which token stands in which window ---------------------------------------------------------

LENGTHS = st.integers(8, 40).flatmap(
    lambda length: st.tuples(st.just(length), st.integers(1, length - 1))
)


@given(st.integers(1, 60), st.integers(1, 200), LENGTHS)
def test_windows_predict_every_token_once_and_hold_no_more_than_fits(context, target, window):
    length, overlap = window
    found = list(spans(context, target, length, overlap))
    assert [n for start, end in found for n in range(start, end)] == list(range(target))
    for number, (start, end) in enumerate(found):
        assert start < end
        # Something stands before each window's first token.
        assert end - start + (overlap if number else 1) <= length
    if context + target <= length:
        assert found == [(0, target)]
    if len(found) > 1:
        # Only the last window may have room left over.
        assert all(end - start == length - overlap for start, end in found[1:-1])


def test_a_long_prompt_keeps_half_of_the_window_and_what_a_short_answer_leaves():
    assert next(spans(100, 100, 20, 10)) == (0, 10)
    assert next(spans(12, 100, 20, 10)) == (0, 10)
    assert next(spans(8, 100, 20, 10)) == (0, 12)
    assert next(spans(100, 4, 20, 10)) == (0, 4)


@pytest.mark.parametrize("context", ["", "Who said so?"])
def test_a_text_that_fits_is_encoded_as_any_other_item(tokenizer, context):
    example = item("Ann did.", context)
    prompt = Prompt(context, target=" Ann did.")
    for length in (22, 40):
        found = encode_windows(tokenizer, example, prompt, max_length=length, overlap=4)
        assert found == [encode(tokenizer, example, prompt, max_length=length)]


@pytest.mark.parametrize("overlap", [1, TRAINING_OVERLAP, 9])
def test_windows_join_into_the_text_and_begin_with_the_start_token(tokenizer, overlap):
    found = encode_windows(
        tokenizer, item(TEXT), Prompt("", target=TEXT), max_length=18, overlap=overlap
    )
    assert tokenizer.decode([n for one in found for n in one.candidates[0]]) == TEXT
    assert all(one.length <= 18 for one in found)
    if overlap > 1:  # one token of overlap is the text's own
        assert all(one.contexts[0][0] == tokenizer.bos_token_id for one in found)
    assert {len(one.contexts[0]) for one in found[1:]} == {overlap}


def test_an_end_token_closes_the_text_once(tokenizer):
    found = encode_windows(
        tokenizer, item(TEXT), Prompt("", target=TEXT), max_length=18, overlap=2, closed=True
    )
    ids = [n for one in found for n in one.candidates[0]]
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id


def test_the_tokens_that_a_prompt_loses_are_counted_once(tokenizer):
    context = "x" * 30
    found = encode_windows(
        tokenizer, item(TEXT, context), Prompt(context, target=TEXT), max_length=20, overlap=10
    )
    assert [one.cut for one in found] == [20] + [0] * (len(found) - 1)


def test_an_empty_text_is_refused(tokenizer):
    with pytest.raises(BenchError, match="no text"):
        encode_windows(tokenizer, item(""), Prompt("Why?"), max_length=20, overlap=10)


# --- scores -------------------------------------------------------------------------------------


def test_a_text_in_one_window_has_its_likelihood_under_the_whole_context(judge, model, tokenizer):
    (judged,) = judge(Text(), [item(TEXT)], 100)
    ids = tokenizer.encode(TEXT)
    with torch.no_grad():
        logits = model(torch.tensor([[tokenizer.bos_token_id, *ids]])).logits[0, :-1]
    expected = logits.log_softmax(-1)[range(len(ids)), ids].sum()
    assert judged.detail["log_likelihoods"] == pytest.approx([float(expected)])
    assert judged.detail["tokens"] == [len(ids)]


@pytest.mark.parametrize("length", [8, 9, 21, 50, 78, 79])
def test_a_longer_text_has_the_likelihood_of_its_tokens_one_by_one(judge, model, tokenizer, length):
    (judged,) = judge(Text(), [item(TEXT)], length)
    start, ids = tokenizer.bos_token_id, tokenizer.encode(TEXT)
    first, step = length - 1, length // 2
    total = 0.0
    for at, token in enumerate(ids):
        if at < first:
            context = ids[:at]
        else:
            begin = first + (at - first) // step * step
            context = ids[begin - (length - step - 1) : at]
        assert len(context) < length
        total += log_probability(model, [start, *context], token)
    assert judged.detail["log_likelihoods"] == pytest.approx([total])
    assert judged.detail["tokens"] == [len(ids)]


def test_of_a_prompt_and_its_answer_only_the_answer_is_scored(judge, model, tokenizer):
    context, answer = "Question: why?\nAnswer:", " because of " + TEXT
    (judged,) = judge(Text(), [item(answer, context)], 200)
    before, ids = tokenizer.encode(context), tokenizer.encode(answer)
    total = sum(log_probability(model, before + ids[:n], ids[n]) for n in range(len(ids)))
    assert judged.detail["log_likelihoods"] == pytest.approx([total])
    assert judged.detail["tokens"] == [len(ids)]
    # In several windows the first of them still begins with the prompt.
    (judged,) = judge(Text(), [item(answer, context)], 60)
    assert judged.detail["tokens"] == [len(ids)]
    assert judged.cut == 0


def test_perplexity_per_token_and_per_word_are_of_one_total(judge, tokenizer):
    texts = [TEXT, "Short one.", TEXT + " " + TEXT]
    judged = judge(Words(), [item(text, name=text) for text in texts], 30)
    total = sum(one.detail["log_likelihoods"][0] for one in judged)
    tokens = sum(len(tokenizer.encode(text)) for text in texts)
    words = 18 + 2 + 36
    assert perplexities(judged) == pytest.approx(
        {
            "perplexity": math.exp(-total / tokens),
            "word_perplexity": math.exp(-total / words),
        }
    )
    assert [one.detail["tokens"][0] for one in judged] == [len(t) for t in texts]
    assert [one.detail["bytes"][0] for one in judged] == [len(t) for t in texts]
    assert perplexities(judge(Text(), [item(TEXT)], 30)).keys() == {"perplexity"}


def test_a_perplexity_that_float64_cannot_hold_is_an_error():
    judged = [SimpleNamespace(detail={"log_likelihoods": [-7e3], "tokens": [10], "words": [2]})]
    assert perplexity(judged) == pytest.approx(math.exp(700))
    with pytest.raises(NonFiniteError, match=r"per word, exp\(3500\), is beyond float64"):
        perplexity(judged, "words")


def test_progress_counts_texts_not_windows(judge):
    done = []
    judge(Text(), [item(TEXT, name="a"), item(TEXT * 40, name="b")], 20, done.append)
    assert sum(done) == 2


# --- training -----------------------------------------------------------------------------------


def test_windows_of_training_text_train_every_token_once(model, tokenizer):
    windows = encode_windows(
        tokenizer, item(TEXT), Prompt("", target=TEXT), max_length=18, overlap=TRAINING_OVERLAP
    )
    batch = collate(windows, 0, packed=False)
    assert batch.targets.tolist() == tokenizer.encode(TEXT)
    start, ids = tokenizer.bos_token_id, tokenizer.encode(TEXT)
    total, begin = 0.0, 0
    for at, token in enumerate(ids):
        if at and (at - 17) % 16 == 0:
            begin = at - 1
        total += log_probability(model, [start, *ids[begin:at]], token)
    loss = likelihood.loss(model, batch, "answer")
    assert float(loss.detach()) == pytest.approx(-total / len(ids))


def test_scored_windows_overlap_by_half_and_move_on():
    assert [scoring_overlap(length) for length in (8, 9, 1024)] == [4, 5, 512]
