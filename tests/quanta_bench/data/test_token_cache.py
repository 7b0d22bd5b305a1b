"""Tokenised items that are kept: equal to fresh ones, and never those of something else."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from quanta_bench.data import token_cache
from quanta_bench.data.encoding import Encoded, encode
from quanta_bench.data.token_cache import encode_all
from quanta_bench.errors import BenchError
from quanta_bench.models.loading import ModelRef, load_tokenizer
from quanta_bench.task import Example, Prompt

OPTIONS = {"max_length": 60, "closed": False, "target_only": False}


@pytest.fixture
def tokenizer(tiny_model, tmp_path, monkeypatch):
    """The tiny model's tokenizer; a cache of one's own; two items are enough to be kept."""
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(token_cache, "MIN_ITEMS", 2)
    return load_tokenizer(ModelRef(".", f"local:{tiny_model}"))


def items() -> tuple[list[Example], list[Prompt]]:
    """Shared and unshared contexts, one that is cut, one that is empty, letters beyond ASCII."""
    prompts = [
        Prompt("What is it? It is", (" a film", " the rain", " of"), " the rain"),
        Prompt("word " * 80 + "and", (" one", " two"), " one"),
        Prompt("", ("Good", "Bäd 雨"), "Good"),
        # The candidates meet the context inside a word, so that its tokens differ.
        Prompt("The fil", ("m", "ter of rain"), "m", "fil"),
    ]
    golds = [1, 0, 1, None]
    return [Example(str(n), "g", {}, gold) for n, gold in enumerate(golds)], prompts


def entries(folder: Path) -> list[Path]:
    return sorted((folder / token_cache.FOLDER).glob("*"))


def plain(tokenizer, examples, prompts, **options) -> list[Encoded]:
    return [encode(tokenizer, e, p, **options) for e, p in zip(examples, prompts, strict=True)]


@pytest.mark.parametrize("target_only", [False, True])
@pytest.mark.parametrize("closed", [False, True])
def test_what_is_read_is_what_was_made(tokenizer, tmp_path, monkeypatch, closed, target_only):
    examples, prompts = items()
    options = {"max_length": 60, "closed": closed, "target_only": target_only}
    expected = plain(tokenizer, examples, prompts, task=3, **options)
    assert encode_all(tokenizer, examples, prompts, task=3, **options) == expected
    assert len(entries(tmp_path)) == 1
    monkeypatch.setattr(token_cache, "encode", lambda *_, **__: pytest.fail("tokenised again"))
    again = encode_all(tokenizer, examples, prompts, task=3, **options)
    assert again == expected
    assert all(one.example is other for one, other in zip(again, examples, strict=True))
    assert {type(token) for item in again for ids in item.candidates for token in ids} == {int}
    # The place of a task in a mixture is the caller's and no part of what is kept.
    assert [item.task for item in encode_all(tokenizer, examples, prompts, task=5, **options)] == (
        [5] * len(examples)
    )


def test_whatever_tokens_depend_on_asks_for_another_entry(tokenizer, tmp_path):
    examples, prompts = items()
    encode_all(tokenizer, examples, prompts, **OPTIONS)
    changed = [
        (examples, [replace(prompts[0], context="What was it? It was"), *prompts[1:]], OPTIONS),
        (examples, [replace(prompts[0], candidates=(" a", " the", " of")), *prompts[1:]], OPTIONS),
        (examples, [*prompts[:1], replace(prompts[1], tail="and"), *prompts[2:]], OPTIONS),
        ([replace(examples[0], gold=2), *examples[1:]], prompts, OPTIONS),
        (examples[::-1], prompts[::-1], OPTIONS),
        (examples, prompts, {**OPTIONS, "max_length": 59}),
        (examples, prompts, {**OPTIONS, "closed": True}),
        (examples, prompts, {**OPTIONS, "target_only": True}),
    ]
    for number, (some, words, options) in enumerate(changed, start=2):
        found = encode_all(tokenizer, some, words, **options)
        assert found == plain(tokenizer, some, words, **options)
        assert len(entries(tmp_path)) == number


def test_another_tokenizer_asks_for_another_entry(tokenizer, tmp_path):
    from tokenizers import normalizers

    examples, prompts = items()
    before = encode_all(tokenizer, examples, prompts, **OPTIONS)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("i", "o")
    after = encode_all(tokenizer, examples, prompts, **OPTIONS)
    assert after == plain(tokenizer, examples, prompts, **OPTIONS) != before
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("harm", ["emptied", "cut", "changed"])
def test_a_damaged_entry_is_made_again(tokenizer, tmp_path, harm):
    examples, prompts = items()
    expected = encode_all(tokenizer, examples, prompts, **OPTIONS)
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    entry.write_bytes({"emptied": b"", "cut": whole[:-40], "changed": flipped}[harm])
    assert encode_all(tokenizer, examples, prompts, **OPTIONS) == expected
    assert entries(tmp_path) == [entry]
    assert entry.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tokenizer, tmp_path):
    (tmp_path / token_cache.FOLDER).write_text("in the way")
    examples, prompts = items()
    expected = plain(tokenizer, examples, prompts, **OPTIONS)
    assert encode_all(tokenizer, examples, prompts, **OPTIONS) == expected


def test_a_disk_that_fills_up_costs_nothing_but_time(tokenizer, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    examples, prompts = items()
    expected = plain(tokenizer, examples, prompts, **OPTIONS)
    monkeypatch.setattr(Path, "replace", full)
    assert encode_all(tokenizer, examples, prompts, **OPTIONS) == expected
    assert not entries(tmp_path)


def test_few_items_are_not_kept(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "MIN_ITEMS", 5)
    encode_all(tokenizer, *items(), **OPTIONS)
    assert not entries(tmp_path)


def test_an_answer_that_does_not_fit_is_named_and_nothing_is_kept(tokenizer, tmp_path):
    examples, prompts = items()
    with pytest.raises(BenchError, match="Item 0: the answer"):
        encode_all(tokenizer, examples, prompts, **{**OPTIONS, "max_length": 3})
    assert not entries(tmp_path)
