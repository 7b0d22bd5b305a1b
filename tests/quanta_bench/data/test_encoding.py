"""One boundary between prompt and answer, for training and scoring alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from quanta_bench.data.encoding import encode, encode_context, encode_pair
from quanta_bench.errors import BenchError
from quanta_bench.models.loading import ModelRef, load_tokenizer
from quanta_bench.models.special_tokens import start_tokens
from quanta_bench.task import Example, Prompt

EXAMPLE = Example("1", "1", {}, gold=1)


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def real(offline):
    return load_tokenizer(ModelRef())


def test_context_and_answer_together_are_the_whole_text(tokenizer):
    context, answer = encode_pair(tokenizer, "Question: why?\nAnswer:", " because")
    assert tokenizer.decode(context + answer) == "Question: why?\nAnswer: because"
    assert tokenizer.decode(answer) == " because"


def test_a_space_at_the_end_of_the_context_belongs_to_the_answer(real):
    """ " A" and "A" are different tokens; the boundary must not depend on where the space is."""
    apart = encode_pair(real, "The answer is ", "A")
    together = encode_pair(real, "The answer is", " A")
    assert apart == together
    assert apart[1] == real.encode(" A", add_special_tokens=False)
    assert apart[1] != real.encode("A", add_special_tokens=False)


def test_an_empty_context_is_a_start_token(tokenizer):
    context, answer = encode_pair(tokenizer, "", "Ann left.")
    assert context == start_tokens(tokenizer)
    assert tokenizer.decode(answer) == "Ann left."


def with_marks(folder, first="<s>", last="</s>", names=("bos_token", "eos_token"), **options):
    """The tiny tokenizer, putting tokens before and after each text as BERT's and T5's do."""
    plain = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    single = " ".join([first] * options.get("opens", True) + ["$A"] + [last])
    plain.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    named = dict(zip(names, (first, last), strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token=last, **named)


@pytest.mark.parametrize("names", [("bos_token", "eos_token"), ("cls_token", "sep_token")])
@pytest.mark.parametrize("opens", [True, False])
def test_a_closing_token_does_not_come_between(tiny_model, tokenizer, names, opens):
    """Tokenizers that end every text with a mark would put it inside the sentence, whatever it is
    called: </s> or [SEP]."""
    marked = with_marks(tiny_model, names=names, opens=opens)
    context, answer = encode_pair(tokenizer, "one two", " three")
    assert encode_pair(marked, "one two", " three") == ([0] * opens + context, answer)


@pytest.mark.parametrize("names", [("bos_token", "eos_token"), ("cls_token", "sep_token")])
def test_an_answer_is_closed_by_the_end_token_whatever_it_is_called(tiny_model, names):
    item = encode(
        with_marks(tiny_model, names=names),
        EXAMPLE,
        Prompt("a", target=" b"),
        max_length=20,
        closed=True,
    )
    assert item.candidates[0][-1] == 1
    assert 1 not in (*item.contexts[0], *item.candidates[0][:-1])


CONTEXTS = st.text("ab \n", max_size=12)


@given(CONTEXTS, st.text("ab \n", min_size=1, max_size=6).filter(str.strip))
def test_what_is_trained_on_is_what_generation_reads(real, context, target):
    """The context of an answer that is learnt is the context that will be continued."""
    prompt = Prompt(context, target=target)
    item = encode(real, EXAMPLE, prompt, max_length=200, closed=True)
    assert list(item.contexts[0]) == encode_context(real, context, target)
    assert item.candidates[0][-1] == real.eos_token_id
    said = real.decode([*item.contexts[0], *item.candidates[0]], skip_special_tokens=True)
    assert said == context + target


def test_too_long_contexts_lose_their_left_end_and_are_counted(tokenizer):
    prompt = Prompt("x" * 50 + "END", (" yes", " no"), " no")
    item = encode(tokenizer, EXAMPLE, prompt, max_length=20)
    assert item.length == 20
    assert item.cut == 53 - 16
    assert item.shared  # candidates of unequal length are compared after the same context
    assert tokenizer.decode(list(item.contexts[0])).endswith("END")
    assert [tokenizer.decode(list(ids)) for ids in item.candidates] == [" yes", " no"]


HEADS = st.text("ab ", max_size=40).map(str.rstrip)


@given(HEADS, st.text("cd ?", max_size=12), st.integers(3, 40))
def test_a_context_with_a_tail_loses_what_stands_before_it(tokenizer, head, asked, room):
    """Every token is a character here, so the text says what is left."""
    tail = f"\n{asked}="
    whole = head + tail
    prompt = Prompt(whole, (" y",), " y", tail)
    item = encode(tokenizer, EXAMPLE, prompt, max_length=room + 2)
    kept = tokenizer.decode(list(item.contexts[0]))
    assert item.cut == max(0, len(whole) - room)
    if len(tail) >= room:
        assert kept == whole[len(whole) - min(room, len(whole)) :]
    else:
        assert kept == head[: room - len(tail)] + tail


def test_a_tail_that_the_context_does_not_end_with_is_refused():
    with pytest.raises(ValueError, match="does not end with"):
        Prompt("Passage: p\nQuestion: q", tail="\nAnswer:")


def test_an_answer_that_does_not_fit_is_an_error(tokenizer):
    with pytest.raises(BenchError, match=r"answer 'y{30}' is 30 tokens long.*max_length above 30"):
        encode(tokenizer, EXAMPLE, Prompt("hi", ("n", "y" * 30), "n"), max_length=20)


def test_an_answer_without_a_token_is_an_error(tokenizer):
    with pytest.raises(BenchError, match="the answer '' has no token"):
        encode(tokenizer, EXAMPLE, Prompt("hi", ("y", ""), "y"), max_length=20)


def test_the_target_alone_for_language_modelling(tokenizer):
    prompt = Prompt("Q:", (" yes", " no"), " no")
    item = encode(tokenizer, EXAMPLE, prompt, max_length=64, target_only=True)
    assert [tokenizer.decode(list(ids)) for ids in item.candidates] == [" no"]
    assert item.gold == 0


@pytest.mark.parametrize("names", [("bos_token", "eos_token"), ("cls_token", "sep_token")])
def test_a_cut_context_keeps_its_start_token(tiny_model, names):
    """Models that are trained with a start token in front go astray without it."""
    tokenizer = with_marks(tiny_model, names=names)
    item = encode(tokenizer, EXAMPLE, Prompt("x" * 50 + "END", (" y",), " y"), max_length=10)
    assert item.contexts[0][0] == 0
    assert tokenizer.decode(list(item.contexts[0][1:])).endswith("END")
    assert item.length == 10
