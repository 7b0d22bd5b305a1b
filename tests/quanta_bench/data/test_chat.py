"""Prompts in chat templates: token for token what `apply_chat_template` of the tokenizer gives."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest
import torch
from tiny_models import byte_tokenizer, tiny_llama

from quanta_bench.data.chat import ChatPrompt, closing_token, in_chat, prompts_of
from quanta_bench.data.encoding import encode
from quanta_bench.data.tokenization import encode_items
from quanta_bench.errors import UsageError
from quanta_bench.evaluation.generation import generate, read_context
from quanta_bench.models.loading import ModelRef, load_tokenizer
from quanta_bench.task import Example, Prompt
from tasks.piqa import PIQA
from tasks.running_text import RunningText

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == "
    "'assistant' else 'user' %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + "
    "'<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
THINKING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML, "llama2": LLAMA2, "llama3": LLAMA3, "gemma": GEMMA, "thinking": THINKING
}  # fmt: skip
MARKS = (
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>",
)  # fmt: skip

QUESTION = "Question: What is the capital of Peru?\nAnswer:"
PROMPT = Prompt(QUESTION, (" Lima", " New York"), " Lima")
EXAMPLE = Example("1", "1", {}, gold=0)


def with_template(template: str) -> Any:
    tokenizer: Any = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    tokenizer.chat_template = template
    return tokenizer


def plain(tokenizer: Any, *said: str, **options: Any) -> list[int]:
    """The tokenizer's own ids of a conversation."""
    roles = ("user", "assistant")
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    made = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
    return list(made)


@pytest.fixture(scope="module", params=[*TEMPLATES, "embedded"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    if request.param == "embedded":
        request.getfixturevalue("offline")
        return load_tokenizer(ModelRef())
    return with_template(TEMPLATES[request.param])


def test_scoring_and_training_see_what_apply_chat_template_gives(tokenizer: Any) -> None:
    prompt = in_chat(tokenizer, PROMPT)
    scored = encode(tokenizer, EXAMPLE, prompt, max_length=400)
    trained = encode(tokenizer, EXAMPLE, prompt, max_length=400, closed=True)
    for number, answer in enumerate(("Lima", "New York")):
        whole = plain(tokenizer, QUESTION, answer)
        ids = [*scored.contexts[number], *scored.candidates[number]]
        assert whole[: len(ids)] == ids
        assert tokenizer.decode(scored.candidates[number]).strip() == answer
        # Trained on to the mark that ends the turn; what follows it is a line break or nothing.
        closed = [*trained.contexts[number], *trained.candidates[number]]
        assert whole[: len(closed)] == closed
        assert closed[-1] in tokenizer.all_special_ids
        assert not tokenizer.decode(whole[len(closed) :]).strip()
    assert scored.sizes == (len("Lima"), len("New York"))


def test_generation_reads_the_generation_prompt(tokenizer: Any) -> None:
    prompt = in_chat(tokenizer, PROMPT)
    ids, cut = read_context(tokenizer, prompt, max_length=400, max_new_tokens=8)
    expected = plain(tokenizer, QUESTION, add_generation_prompt=True)
    # A template that marks a finished answer as one without thoughts is read with this mark.
    assert ids[: len(expected)] == expected
    assert tokenizer.decode(ids[len(expected) :]) in ("", "<think>\n\n</think>\n\n")
    assert cut == 0


def test_start_tokens_are_the_templates_own_and_not_put_twice() -> None:
    tokenizer = with_template(LLAMA3)
    ids = encode(tokenizer, EXAMPLE, in_chat(tokenizer, PROMPT), max_length=400).contexts[0]
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_long_question_is_cut_inside_the_users_turn() -> None:
    tokenizer = with_template(CHATML)
    long = Prompt("word " * 60 + "END", (" yes",), " yes")
    item = encode(tokenizer, EXAMPLE, in_chat(tokenizer, long), max_length=80)
    text = tokenizer.decode(item.contexts[0])
    assert re.fullmatch(
        r"<\|im_start\|>user\n.*word END<\|im_end\|>\n<\|im_start\|>assistant\n", text
    )
    assert item.length == 80
    assert item.cut > 0
    tailed = Prompt("word " * 60 + "\nQuestion", (" yes",), " yes", tail="\nQuestion")
    item = encode(tokenizer, EXAMPLE, in_chat(tokenizer, tailed), max_length=80)
    text = tokenizer.decode(item.contexts[0])
    assert text.startswith("<|im_start|>user\nword word")
    assert text.endswith("\nQuestion<|im_end|>\n<|im_start|>assistant\n")


def test_a_turns_end_stops_generation_though_it_is_not_the_end_token() -> None:
    """As with base models whose end token is not the one that their template writes."""
    tokenizer = with_template(CHATML)
    prompt = in_chat(tokenizer, PROMPT)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert closing_token(tokenizer, prompt) == end != tokenizer.eos_token_id
    model = tiny_llama(vocab_size=len(tokenizer), max_position_embeddings=256)
    with torch.no_grad():
        # The model says A, then ends its turn, then would go on with B.
        table = {tokenizer.encode("\n")[-1]: "A", tokenizer.encode("A")[-1]: end, end: "B"}
        model.lm_head.weight.zero_()
        model.model.norm.weight.fill_(1.0)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        for before, after in table.items():
            one = model.model.norm(model.get_input_embeddings().weight[before])
            number = after if isinstance(after, int) else tokenizer.encode(after)[-1]
            model.lm_head.weight[number] += one * 10
    ((answer, _),) = generate(model, tokenizer, [prompt], max_new_tokens=4, max_length=200)
    assert answer == "A"


def test_todays_date_does_not_enter_a_prompt() -> None:
    template = "Today is {{ strftime_now('%d %b %Y') }}, {{ strftime_now('%Y-%m-%d') }}.\n" + CHATML
    prompt = in_chat(with_template(template), PROMPT)
    assert prompt.context.startswith("Today is 26 Jul 2024, 2024-07-26.\n")
    today = datetime.datetime.now(datetime.UTC).strftime("%d %b %Y")
    assert today not in prompt.context


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "does not show an answer"),
        (
            "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}",
            "does not show a question",
        ),
        ("{{ raise_exception('no users') }}", "cannot be filled.*no users"),
        ("{% for", "cannot be filled"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(template: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        in_chat(with_template(template), PROMPT)


def test_running_text_is_no_conversation_and_the_default_is_no_template() -> None:
    tokenizer = with_template(CHATML)
    text = Example("t", "t", {"text": "Ann left."}, references=("Ann left.",))
    (left,) = prompts_of(tokenizer, RunningText(), [text], "choice-text", chat=True)
    assert not isinstance(left, ChatPrompt)
    item = Example(
        "1", "1", {"question": "How to open a tin?", "choices": ("pull", "push")}, gold=0
    )
    for chat in (False, True):
        (made,) = prompts_of(tokenizer, PIQA(), [item], "choice-text", chat=chat)
        assert isinstance(made, ChatPrompt) == chat
    whole = encode_items(tokenizer, [(PIQA(), [item])], "choice-text", max_length=400, chat=True)
    assert "<|im_start|>user" in tokenizer.decode(whole[0].contexts[0])
