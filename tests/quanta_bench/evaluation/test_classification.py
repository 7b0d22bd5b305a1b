"""Texts, losses and answers of a classification head, against plain `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from quanta_bench.data.bucketing import by_tokens
from quanta_bench.data.texts import EncodedTexts, collate_texts, encode_texts
from quanta_bench.errors import BenchError
from quanta_bench.evaluation.classification import head_losses, head_outputs, judge_outputs
from quanta_bench.models.loading import ModelRef, load_classifier, load_tokenizer
from quanta_bench.spec import TrainingSpec
from quanta_bench.task import Answer, Example
from quanta_bench.training.objectives import Labels
from tasks.glue import MRPC, RTE, SST2, STSB, CoLA, GlueTask

PAIRS = [("A film of words.", "Words."), ("Rain fell on the film.", "It was wet, it was.")]
SCORES = [3.25, 0.0]


def items(task: GlueTask) -> list[Example]:
    """Two items, of one sentence or of two, with the labels 0 and 1."""
    count = 1 if isinstance(task, (SST2, CoLA)) else 2
    return [
        Example(str(n), str(n), {"sentences": pair[:count], "score": SCORES[n]}, n)
        for n, pair in enumerate(PAIRS)
    ]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT, whose tokenizer says which text a token belongs to."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    alphabet = ["[PAD]", "[CLS]", "[SEP]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={t: n for n, t in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip
    config = BertConfig(
        vocab_size=len(alphabet), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=96,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["roberta", "bert", "llama"])
def folder(request: pytest.FixtureRequest) -> Path:
    """A model's folder: two kinds of encoder, and a decoder, which reads its last token."""
    name = {"roberta": "tiny_roberta", "bert": "bert", "llama": "tiny_model"}[request.param]
    found: Path = request.getfixturevalue(name)
    return found


def plain(folder: Path, ours: Any, outputs: int) -> Any:
    """`transformers`' own classifier with the same weights."""
    with torch.random.fork_rng():
        theirs = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=outputs)
    theirs.load_state_dict(ours.state_dict())
    theirs.config.pad_token_id = ours.config.pad_token_id
    return theirs.eval()


@pytest.mark.parametrize("task", [SST2(), RTE(), STSB()], ids=lambda task: task.name)
def test_outputs_loss_and_gradients_are_those_of_transformers(task: GlueTask, folder: Path) -> None:
    loaded = load_classifier(
        ModelRef(".", f"local:{folder}"), torch.float32, outputs=task.outputs, seed=0
    )
    model, tokenizer = loaded.model, loaded.tokenizer
    theirs = plain(folder, model, task.outputs)
    examples = items(task)
    columns = zip(*(e.fields["sentences"] for e in examples), strict=True)
    texts = [list(column) for column in columns]
    inputs = tokenizer(*texts, padding=True, return_tensors="pt")
    labels = torch.tensor(SCORES) if task.outputs == 1 else torch.tensor([0, 1])
    expected = theirs(**inputs, labels=labels)

    encoded = encode_texts(tokenizer, task, examples, max_length=512)
    batch = collate_texts(encoded, tokenizer.pad_token_id, outputs=task.outputs)
    assert torch.equal(batch.input_ids, inputs["input_ids"])
    assert torch.equal(batch.attention_mask, inputs["attention_mask"])
    types = inputs.get("token_type_ids")
    assert (batch.token_type_ids is None) is (types is None)
    if types is not None:
        assert torch.equal(batch.token_type_ids, types)
        assert bool(types.any()) is (task.name != "sst2")
    assert batch.tokens == int(inputs["attention_mask"].sum())

    objective = Labels(TrainingSpec(method="lora", tasks=(task.name,), protocol="head"))
    assert torch.allclose(head_outputs(model, batch), expected.logits, atol=1e-6)
    loss = objective.loss(model, batch)
    assert loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    loss.backward()
    expected.loss.backward()
    other = dict(theirs.named_parameters())
    for name, value in model.named_parameters():
        assert (value.grad is None) is (other[name].grad is None), name
        if value.grad is not None:
            assert torch.allclose(value.grad, other[name].grad, atol=1e-6), name


def test_a_batch_says_of_an_item_what_it_says_of_it_alone(folder: Path) -> None:
    loaded = load_classifier(ModelRef(".", f"local:{folder}"), torch.float32, outputs=2, seed=0)
    pad = loaded.tokenizer.pad_token_id
    encoded = encode_texts(loaded.tokenizer, RTE(), items(RTE()), max_length=512)
    assert len(encoded[0].ids) != len(encoded[1].ids)
    with torch.no_grad():
        together = head_outputs(loaded.model, collate_texts(encoded, pad, outputs=2))
        alone = [head_outputs(loaded.model, collate_texts([i], pad, outputs=2)) for i in encoded]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


@pytest.mark.parametrize("bound", [9, 12, 512])
def test_the_longer_text_of_a_pair_is_cut_first(tiny_roberta: Path, bound: int) -> None:
    loaded = load_classifier(
        ModelRef(".", f"local:{tiny_roberta}"), torch.float32, outputs=2, seed=0
    )
    tokenizer = loaded.tokenizer
    pair = ("film " * 200, "words")
    item = Example("1", "1", {"sentences": pair}, 0)
    found = encode_texts(tokenizer, RTE(), [item], max_length=bound)[0]
    # The model has positions for 64 tokens, whatever is asked for.
    room = min(bound, 64)
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in pair)
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    kept = first[: room - 4 - len(second)]
    assert found.ids == (start, *kept, end, end, *second, end)
    assert found.cut == len(first) - len(kept)
    batch = collate_texts([found], tokenizer.pad_token_id, outputs=2)
    assert head_outputs(loaded.model, batch).shape == (1, 2)


def test_batches_of_texts_keep_to_their_budget() -> None:
    texts = [EncodedTexts(Example(str(n), "", {}), 0, (1,) * n, None, 0, 0) for n in range(1, 30)]
    batches = by_tokens(texts, 40, packed=False)
    assert sorted(len(i.ids) for b in batches for i in b) == list(range(1, 30))
    assert all(len(b) == 1 or max(len(i.ids) for i in b) * len(b) <= 40 for b in batches)


def test_answers_are_judged_by_the_largest_output_or_by_the_number() -> None:
    pair = items(RTE())
    assert [one.scores for one in judge_outputs(RTE(), pair[1], [0.1, 0.2])] == [{"accuracy": 1.0}]
    # Of scores the accuracy is that of the nearest whole one; the item's is 0.
    for said, right in ((4.5, 0.0), (0.5, 0.0), (0.4, 1.0), (-3.0, 1.0)):
        expected = Answer(said, "3.25", {"accuracy": right})
        assert judge_outputs(STSB(), pair[0], [said]) == (expected,)
    assert (STSB().target(pair[0]), RTE().target(pair[1])) == (3.25, 1)
    with pytest.raises(BenchError, match="no label"):
        RTE().target(Example("x", "x", {}))


@pytest.mark.parametrize(
    ("task", "outputs", "expected"),
    [
        # By hand: of 0, 1, 0, 1 the second and the fourth are found; or the last alone.
        (RTE(), [[1, 0], [0, 1], [1, 0], [0, 1]], 1.0),
        (RTE(), [[1, 0], [1, 0], [1, 0], [0, 1]], 0.75),
        (MRPC(), [[1, 0], [1, 0], [1, 0], [0, 1]], 2 / 3),
        (CoLA(), [[1, 0], [1, 0], [1, 0], [0, 1]], 2 / (2 * 3) ** 0.5 / 2**0.5),
        (STSB(), [[0.0], [1.0], [0.0], [1.0]], 1.0),
        (STSB(), [[1.0], [0.0], [1.0], [0.0]], -1.0),
    ],
)
def test_a_checkpoint_is_chosen_by_the_tasks_own_metric(
    task: GlueTask, outputs: list[list[float]], expected: float
) -> None:
    class Model(torch.nn.Module):
        def forward(self, **_: Any) -> Any:
            return type("Output", (), {"logits": torch.tensor(outputs)})

    examples = [
        Example(str(n), str(n), {"sentences": ("a", "b"), "score": 5.0 * (n % 2)}, n % 2)
        for n in range(4)
    ]
    texts = [EncodedTexts(e, 0, (1, 2), None, task.target(e), 0) for e in examples]
    objective = Labels(TrainingSpec(method="lora", tasks=(task.name,), protocol="head"))
    batch = objective.collate(texts, 0, packed=False)
    judged = objective.judge(Model(), batch)
    assert objective.metric(judged) == pytest.approx(expected)
    losses = head_losses(torch.tensor(outputs, dtype=torch.float32), batch.targets)
    assert [item.loss for item in judged] == pytest.approx(losses.tolist())
    assert objective.loss(Model(), batch).item() == pytest.approx(losses.mean().item())


def test_three_texts_are_refused(tiny_roberta: Path) -> None:
    tokenizer = load_tokenizer(ModelRef(".", f"local:{tiny_roberta}"))
    item = Example("1", "1", {"sentences": ("a", "b", "c")}, 0)
    with pytest.raises(BenchError, match="3 texts; a head reads one or two"):
        encode_texts(tokenizer, RTE(), [item], max_length=8)


def test_a_task_that_says_nothing_of_heads_has_none() -> None:
    from tasks.piqa import PIQA

    task, item = PIQA(), Example("1", "1", {}, 0)
    assert task.outputs == 0
    for ask in (lambda: task.texts(item), lambda: task.judge_value(item, 1.0)):
        with pytest.raises(BenchError, match="'piqa' does not say"):
            ask()
