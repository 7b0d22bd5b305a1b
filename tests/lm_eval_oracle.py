"""The same requests put to lm-evaluation-harness, for tests of what this suite makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest


class Harness:
    """Likelihoods and greedy texts by lm-evaluation-harness.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        max_length: tokens that the model reads at once.
        start: whether the tokenizer may put its start token before a text.
    """

    def __init__(
        self, model: Any, tokenizer: Any, max_length: int, *, start: bool | None = None
    ) -> None:
        with warnings.catch_warnings():
            # What it imports is not this project's.
            warnings.simplefilter("ignore")
            pytest.importorskip("lm_eval")
            from lm_eval.api.instance import Instance
            from lm_eval.models.huggingface import HFLM
        self._instance = Instance
        self._lm = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            max_length=max_length,
            add_bos_token=start,
            device="cpu",
            batch_size=4,
        )

    def _requests(self, kind: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        return [self._instance(kind, {}, one, n) for n, one in enumerate(arguments)]

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Log-likelihood of each continuation given its context."""
        found = self._lm.loglikelihood(self._requests("loglikelihood", pairs), disable_tqdm=True)
        return [total for total, _ in found]

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """Log-likelihood of each whole text."""
        requests = self._requests("loglikelihood_rolling", [(text,) for text in texts])
        return [float(total) for total in self._lm.loglikelihood_rolling(requests, True)]

    def greedy(self, contexts: Sequence[str], until: Sequence[str], tokens: int) -> list[str]:
        """The text that continues each context."""
        settings = {"until": list(until), "max_gen_toks": tokens, "do_sample": False}
        requests = self._requests("generate_until", [(one, settings) for one in contexts])
        return list(self._lm.generate_until(requests, disable_tqdm=True))
