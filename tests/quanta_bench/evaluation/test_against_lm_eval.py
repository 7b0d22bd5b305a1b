"""Scores, answers and perplexities are those of lm-evaluation-harness on the same model and texts.

Where the two differ by intention, a test says so: what a too long context loses, how much the
windows of a long text have in common, and what a tie counts.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from lm_eval_oracle import Harness
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from quanta_bench.data.batches import collate
from quanta_bench.data.windows import encode_windows
from quanta_bench.evaluation import decisions, evaluators, likelihood
from quanta_bench.evaluation.generation import generate
from quanta_bench.models.capabilities import can_pack
from quanta_bench.spec import EvaluationSpec
from quanta_bench.task import Example, Prompt
from tasks.arc import ArcChallenge
from tasks.boolq import BoolQ
from tasks.hellaswag import HellaSwag
from tasks.piqa import PIQA
from tasks.running_text import RunningText
from tasks.siqa import SIQA
from tasks.winogrande import WinoGrande

LENGTH = 512
"""Tokens that the model reads at once."""

PASSAGE = (
    "The ferry left the harbour at nine with forty people and twelve crates of apples. By noon the "
    "wind had turned, and the captain took in two sails. They came to the island at four."
)


def item(name, **fields):
    return Example(name, name, fields, gold=0)


ITEMS = [
    (
        HellaSwag(),
        [
            item(
                "scene",
                activity_label="Sailing",
                ctx_a="A man unties the boat at the harbour.",
                ctx_b="the man",
                choices=("takes in two sails.", "eats apples.", "sings to the wind.", "sleeps."),
            ),
            item(
                "article",
                activity_label="Health",
                ctx_a="[header] How to rest [title] Sit down. [step] Find a chair.",
                ctx_b="",
                choices=("Sit. [substeps] Wait. [title] Rise", "Run.", "Hop.", "Fly."),
            ),
        ],
    ),
    (
        ArcChallenge(),
        [
            item("ice", question="What is ice?", choices=("fire", "frozen water", "oil", "tin")),
            item(
                "wind",
                question=f"{PASSAGE} What came first?",
                choices=("the wind that turned by noon", "four", "twelve crates"),
            ),
        ],
    ),
    (BoolQ(), [item("noon", question="did it turn by noon", passage="", choices=("no", "yes"))]),
    (
        BoolQ("with_passage"),
        [item("read", question="did it turn", passage=PASSAGE, choices=("no", "yes"))],
    ),
    (PIQA(), [item("cup", question="Dry a cup", choices=("use a towel of apples", "use wind"))]),
    (
        SIQA(),
        [
            item(
                "fall",
                context="The captain fell.",
                question="How would he feel?",
                choices=("glad", "hurt", "rich"),
            )
        ],
    ),
    (
        WinoGrande(),
        [
            item(
                "crates",
                question="The crates missed the boat because the _ was small.",
                choices=("crates", "boat"),
            ),
            # Nothing stands before the blank: the candidates follow a start token.
            item(
                "start",
                question="_ took in two sails because the captain was away.",
                choices=("The man", "Forty people"),
            ),
        ],
    ),
]


def byte_level():
    """A vocabulary over bytes that puts nothing before a text, as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # No more than ASCII: half a character is text to no one.
    return tokenizer, [*map(chr, range(33, 127)), "Ġ", "Ċ"]


def with_start():
    """A vocabulary with spaces as marks of words, and a start token before a text, as LLaMA's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return tokenizer, [*map(chr, range(32, 127)), "\n", "▁"]


@pytest.fixture(scope="module", params=[byte_level, with_start], ids=lambda make: make.__name__)
def tokenizer(request):
    found, alphabet = request.param()
    found.train_from_iterator(
        [PASSAGE, *(text for pair in pairs("choice-text") for text in pair)],
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=list(alphabet),
            show_progress=False,
        ),
    )
    if request.param is with_start:
        found.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=found, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


@pytest.fixture(scope="module")
def model(tokenizer):
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = LlamaForCausalLM(config).float().eval()
        for parameter in found.parameters():
            # A freshly made model hardly looks at what it reads; a wilder one does.
            if parameter.dim() == 2:
                parameter.data.normal_(0, 0.2)
    return found


@pytest.fixture(scope="module")
def harness(model, tokenizer):
    return Harness(model, tokenizer, LENGTH)


def known(protocol):
    """The items of tasks that can be put so."""
    return [(task, examples) for task, examples in ITEMS if protocol in task.protocols]


def pairs(protocol):
    """Context and candidate, of every candidate of every item."""
    prompts = [task.prompt(one, protocol) for task, ones in known(protocol) for one in ones]
    return [(prompt.context, text) for prompt in prompts for text in prompt.candidates]


def context_of(model, tokenizer, spec, *, packed=False):
    return evaluators.Context(
        model,
        tokenizer,
        spec,
        packed=packed,
        cached=True,
        device=torch.device("cpu"),
        advance=lambda _: None,
    )


def chosen(model, tokenizer, protocol="choice-text", *, packed=False, max_length=LENGTH):
    """The log-likelihoods that the suite stores, of every candidate of every item."""
    spec = EvaluationSpec(tasks=("any",), max_length=max_length, protocol=protocol)
    context = context_of(model, tokenizer, spec, packed=packed)
    return [
        judged.detail["log_likelihoods"]
        for task, examples in known(protocol)
        for judged in evaluators.evaluate(context, task, examples)
    ]


def close(values):
    return pytest.approx(values, abs=1e-4, rel=0)


# --- candidates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "flat"])
def test_candidates_have_the_likelihoods_of_the_harness(model, tokenizer, harness, packed):
    """In a packed row no candidate may see another, whatever the others' lengths."""
    assert can_pack(model)
    found = chosen(model, tokenizer, packed=packed)
    assert [one for item in found for one in item] == close(
        harness.likelihoods(pairs("choice-text"))
    )


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "flat"])
def test_a_prompt_that_ends_in_white_space_tells_candidates_apart_as_the_harness_does(
    model, tokenizer, harness, packed
):
    """LLM-Adapters' prompt ends in a line break and spaces. The harness counts the break to the
    answer, the suite to the prompt, so all candidates of an item differ by one number."""
    found = chosen(model, tokenizer, "choice-label", packed=packed)
    theirs = iter(harness.likelihoods(pairs("choice-label")))
    for item in found:
        shift, *others = [ours - next(theirs) for ours in item]
        assert others == close([shift] * len(others))


@pytest.mark.parametrize("tokenizer", [byte_level], indirect=True)
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "flat"])
@pytest.mark.parametrize("length", [24, 40])
def test_long_contexts_lose_their_left_end_as_in_the_harness(model, tokenizer, packed, length):
    """The harness bounds what is read, which is all but the last token, and cuts each candidate's
    context by itself, where the suite cuts all as the longest candidate asks."""
    found = chosen(model, tokenizer, packed=packed, max_length=length)
    assert found != chosen(model, tokenizer, packed=packed)
    asked = iter(pairs("choice-text"))
    for item in found:
        texts = [next(asked) for _ in item]
        sizes = [len(tokenizer.encode(text)) for _, text in texts]
        expected = [
            Harness(model, tokenizer, length - 1 - (max(sizes) - size)).likelihoods([text])[0]
            for text, size in zip(texts, sizes, strict=True)
        ]
        assert item == close(expected)


def test_without_ties_the_winner_is_that_of_the_harness(model, tokenizer, harness):
    """The harness takes ``argmax`` of the sums (its ``acc``)."""
    theirs = iter(harness.likelihoods(pairs("choice-text")))
    for task, examples in known("choice-text"):
        context = context_of(model, tokenizer, EvaluationSpec(tasks=("any",), max_length=LENGTH))
        for judged in evaluators.evaluate(context, task, examples):
            sums = [next(theirs) for _ in judged.detail["log_likelihoods"]]
            ours = evaluators.normalised(judged.detail, "sum")
            assert decisions.winners(ours) == (int(np.argmax(sums)),)


def test_on_a_tie_the_harness_takes_the_first_and_the_suite_counts_chance(model, tokenizer):
    """The one intended difference: of two equal choices ``argmax`` finds the first. The harness's
    accuracy on such an item is 1 or 0 by the order of the choices, the suite's 1/2 either way."""
    with torch.no_grad():
        even = copy.deepcopy(model)
        even.get_output_embeddings().weight.zero_()
    texts = (" wind", " wind")
    theirs = Harness(even, tokenizer, LENGTH).likelihoods([("The", text) for text in texts])
    assert int(np.argmax(theirs)) == 0
    context = context_of(even, tokenizer, EvaluationSpec(tasks=("any",), max_length=LENGTH))
    for gold in (0, 1):
        twins = Example("twins", "twins", {"question": "wind", "choices": ("oil", "oil")}, gold)
        (judged,) = evaluators.evaluate(context, ArcChallenge(), [twins])
        assert judged.answer.scores == {"accuracy": 0.5}
        assert judged.detail["tied"] == [0, 1]
        assert judged.answer.prediction is None


# --- generated answers --------------------------------------------------------------------------

CONTEXTS = [
    "The ferry",
    f"Passage: {PASSAGE}\nQuestion: When did the wind turn?\nAnswer:",
    "Question: What is ice?\nAnswer:",
    f"{PASSAGE} {PASSAGE}",
    "By noon",
    f"{PASSAGE} The captain",
]


def generated(model, tokenizer, stop=(), max_length=LENGTH):
    prompts = [Prompt(context) for context in CONTEXTS]
    found = generate(model, tokenizer, prompts, max_new_tokens=24, stop=stop, max_length=max_length)
    return [text for text, _ in found]


def test_answers_in_a_batch_of_unequal_lengths_are_those_of_the_harness(model, tokenizer, harness):
    plain = generated(model, tokenizer)
    assert len(set(plain)) == len(CONTEXTS)
    assert plain == harness.greedy(CONTEXTS, [], 24)
    # Marks that some of the answers hold, early and late.
    for stop in ((plain[1][2],), (plain[0][5:8], plain[3][9:11])):
        stopped = generated(model, tokenizer, stop)
        assert stopped != plain
        assert stopped == harness.greedy(CONTEXTS, stop, 24)


@pytest.mark.parametrize("tokenizer", [byte_level], indirect=True)
def test_long_prompts_are_cut_before_an_answer_as_in_the_harness(model, tokenizer):
    found = generated(model, tokenizer, max_length=50)
    assert found != generated(model, tokenizer)
    assert found == Harness(model, tokenizer, 50).greedy(CONTEXTS, [], 24)


# --- texts --------------------------------------------------------------------------------------


def test_a_text_in_one_window_has_the_likelihood_of_the_harness(model, tokenizer):
    texts = [PASSAGE, "Short.", f"{PASSAGE} {PASSAGE}"]
    context = context_of(model, tokenizer, EvaluationSpec(tasks=("any",), max_length=LENGTH))
    examples = [Example(text, text, {"text": text}) for text in texts]
    judged = evaluators.evaluate(context, RunningText(), examples)
    # Otherwise the harness predicts the start token too, from another one.
    theirs = Harness(model, tokenizer, LENGTH, start=False).rolling(texts)
    assert [one.detail["log_likelihoods"][0] for one in judged] == close(theirs)


def test_windows_without_overlap_are_the_rolling_windows_of_the_harness(model, tokenizer):
    """These have one token in common, and the last reaches back as far as it can: of three full
    windows, no further than the suite's. (Scores are taken with half a window of overlap.)"""
    window = 20
    whole = f"{PASSAGE} {PASSAGE}"
    text = next(
        whole[:end]
        for end in range(len(whole))
        if len(tokenizer.encode(whole[:end], add_special_tokens=False)) == 3 * window
    )
    windows = encode_windows(
        tokenizer,
        Example(text, text, {}),
        Prompt("", target=text),
        max_length=window + 1,
        overlap=1,
    )
    assert len(windows) == 3
    with torch.no_grad():
        found = likelihood.log_likelihoods(model, collate(windows, 0, packed=False))
    (theirs,) = Harness(model, tokenizer, window, start=False).rolling([text])
    assert float(found.sum()) == close(theirs)
