"""Greedy answers do not depend on padding or on what else is in the batch."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from transformers import AddedToken

from quanta_bench.errors import UsageError
from quanta_bench.evaluation import decisions, evaluators, generation
from quanta_bench.evaluation.generation import NonFiniteLogitsError, cut_at, generate
from quanta_bench.models.capabilities import Decoding
from quanta_bench.models.special_tokens import end_tokens
from quanta_bench.spec import EvaluationSpec
from quanta_bench.task import Example, Prompt
from tasks.drop import Drop

PROMPTS = ["a", "Who are you, and", "x y z " * 12 + "w", "1 + 1 ="]


def answers(pair, prompts, **options):
    options = {"max_new_tokens": 12, "max_length": 200, **options}
    return [text for text, _ in generate(*pair, [*map(Prompt, prompts)], **options)]


def greedy(pair, prompt, steps):
    """One token at a time, without a cache, a mask or padding."""
    model, tokenizer = pair
    ids = tokenizer.encode(prompt)
    start = len(ids)
    for _ in range(steps):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_a_batch_equals_one_at_a_time_and_a_plain_loop(pair):
    """LLM-Adapters pads without a mask, so its answers change with the batch."""
    together = answers(pair, PROMPTS)
    assert together == [answers(pair, [prompt])[0] for prompt in PROMPTS]
    with torch.no_grad():
        assert together == [greedy(pair, prompt, 12) for prompt in PROMPTS]
    assert len(set(together)) > 1


def test_answers_end_at_a_stop_string(pair):
    plain = answers(pair, PROMPTS)
    mark = plain[1][3]
    stopped = answers(pair, PROMPTS, stop=(mark,))
    assert stopped == [cut_at(text, (mark,)) for text in plain]
    assert mark not in stopped[1]


def test_the_first_of_several_stops_counts():
    assert cut_at("yes\nno. Q:", ("Q:", "\n", ".")) == "yes"
    assert cut_at("yes", ("Q:",)) == "yes"


def test_an_answer_that_is_not_finite_is_blamed_on_its_item_also_in_the_second_half(
    pair, monkeypatch
):
    examples = [
        Example(name, name, {"passage": name, "question": "?", "answers": (("a",),)}, None, ("a",))
        for name in ("first", "second", "third", "last")
    ]
    context = evaluators.Context(
        *pair,
        EvaluationSpec(tasks=("drop",), protocol="generate"),
        packed=False,
        cached=True,
        device=torch.device("cpu"),
        advance=lambda count: None,
    )

    def fails(model, tokenizer, prompts, **options):
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        names = [prompt.context for prompt in prompts]
        found = [n for n, text in enumerate(names) if "last" in text]
        if found:
            raise NonFiniteLogitsError(found[0], float("nan"))
        return [("a", 0)] * len(prompts)

    monkeypatch.setattr(evaluators, "generate", fails)
    with pytest.raises(decisions.NonFiniteError, match="drop, item last: the largest logit"):
        evaluators.evaluate(context, Drop(), examples)


def test_long_prompts_lose_their_left_end_and_are_counted(pair):
    long = "lost " * 100 + "kept"
    assert answers(pair, [long], max_length=16) == answers(pair, [long[-4:]], max_length=16)
    found = generate(*pair, [Prompt(long), Prompt("kept")], max_new_tokens=12, max_length=16)
    assert [cut for _, cut in found] == [500, 0]


def test_a_prompt_with_a_tail_is_cut_before_it(pair):
    whole = Prompt("p" * 100 + "\nQ: ?", tail="\nQ: ?")
    options = {"max_new_tokens": 12, "max_length": 12 + 25}
    [(text, cut)] = generate(*pair, [whole], **options)
    assert cut == 105 - 25
    assert text == answers(pair, ["p" * 20 + "\nQ: ?"])[0]
    # Where not even the tail has room, it is its end that counts.
    [(short, cut)] = generate(*pair, [whole], max_new_tokens=12, max_length=12 + 4)
    assert (short, cut) == (answers(pair, ["Q: ?"])[0], 105 - 4)


def test_without_a_cache_the_answers_are_the_same(pair):
    assert answers(pair, PROMPTS, use_cache=False) == answers(pair, PROMPTS)


def test_a_models_own_sampling_settings_do_not_matter(pair):
    model, _ = pair
    plain = answers(pair, PROMPTS)
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    try:
        assert answers(pair, PROMPTS) == plain
    finally:
        model.generation_config.do_sample = False
        model.generation_config.temperature = None


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("most", [2, 3, 16])
def test_items_are_judged_alike_whatever_their_batches(pair, monkeypatch, most, own):
    passages = [f"{word} " * (1 + 7 * n) for n, word in enumerate(("one", "two", "tri", "ten"))]
    examples = [
        Example(text, text, {"passage": text, "question": "?", "answers": (("a",),)}, None, ("a",))
        for text in (*passages, *(text.upper() for text in passages))
    ]
    done = []
    context = evaluators.Context(
        *pair,
        EvaluationSpec(tasks=("drop",), protocol="generate"),
        packed=False,
        cached=True,
        device=torch.device("cpu"),
        advance=done.append,
    )
    monkeypatch.setattr(evaluators, "GENERATION_BATCH", most)
    monkeypatch.setattr(evaluators, "rows_together", lambda _: most)
    if not own:
        apart = Decoding(joined=False, batched=True, cached=True)
        for module in (evaluators, generation):
            monkeypatch.setattr(module, "fastest_decoding", lambda *_, **options: apart)
    judged = evaluators.evaluate(context, Drop(), examples)
    assert sum(done) == len(examples)
    prompts = [Drop().prompt(example, "generate").context for example in examples]
    options = {"max_new_tokens": Drop.max_new_tokens, "max_length": 1024, "stop": Drop.stop}
    alone = [answers(pair, [prompt], **options)[0] for prompt in prompts]
    assert len(set(alone)) > 1
    assert [one.example for one in judged] == examples
    assert [one.detail["text"] for one in judged] == alone


@pytest.mark.parametrize("configured", [None, 1, 2, [2, 40], [0, 40]])
def test_what_closes_answers_in_training_ends_them(pair, configured):
    """Whatever the model's own configuration calls its end: 2 and 40 are letters here."""
    model, tokenizer = pair
    plain = answers(pair, PROMPTS, max_new_tokens=40)
    ended = copy.deepcopy(model)
    ended.generation_config.eos_token_id = configured
    special = configured == [0, 40]
    assert end_tokens(tokenizer, ended) == ([0, 1] if special else [1])
    # A model that always ends, by the token that training closes answers with.
    ended.lm_head = torch.nn.Linear(64, 258)
    torch.nn.init.zeros_(ended.lm_head.weight)
    ended.lm_head.bias.data = torch.nn.functional.one_hot(torch.tensor(1), 258).float()
    assert answers((ended, tokenizer), PROMPTS) == [""] * len(PROMPTS)
    ended = copy.deepcopy(model)
    ended.generation_config.eos_token_id = configured
    if not special:
        assert answers((ended, tokenizer), PROMPTS, max_new_tokens=40) == plain


def test_padding_after_an_end_is_no_text(pair):
    """Any token may fill rows up, a letter too."""
    model, tokenizer = pair
    plain = answers(pair, PROMPTS)
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = padded.convert_ids_to_tokens(40)
    mark = plain[1][3]
    assert answers((model, padded), PROMPTS) == plain
    stopped = answers((model, padded), PROMPTS, stop=(mark,))
    assert stopped == [cut_at(text, (mark,)) for text in plain]


def test_a_prompt_without_room_is_refused(pair):
    with pytest.raises(UsageError, match=r"max_length=12 leaves no token"):
        answers(pair, ["a"], max_length=12)


def test_a_chat_models_ends_are_all_heeded():
    class Tokenizer:
        eos_token_id, sep_token_id, all_special_ids = 5, None, [5, 6]
        added_tokens_decoder: ClassVar = {
            7: AddedToken("<|eot|>", special=True),
            8: AddedToken("plain", special=False),
        }

    def model(ends):
        return SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=ends))

    assert end_tokens(Tokenizer(), model([6, 7, 8, 9])) == [5, 6, 7]
    assert end_tokens(Tokenizer(), model(9)) == [5]
    assert end_tokens(Tokenizer(), SimpleNamespace()) == [5]
