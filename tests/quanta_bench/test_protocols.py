"""A protocol is one object: a fifth one is planned, trained, scored and refused like the others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from quanta_bench.cli.single_run import job
from quanta_bench.data.pools import Pools
from quanta_bench.errors import UsageError
from quanta_bench.plugins import PROTOCOLS, TASKS, find_protocol
from quanta_bench.protocols.choice import ChoiceText
from quanta_bench.results.store import Store
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner
from quanta_bench.suites.compatibility import check_protocols, metrics_of
from quanta_bench.task import Example, Prompt, Task
from tasks.boolq import BoolQ
from tasks.drop import Drop
from tasks.glue import RTE, STSB
from tasks.wikitext import WikiText2

LANGUAGE = ("answer", "answer+prompt")


@pytest.mark.parametrize(
    ("name", "task", "accepts", "compares", "losses"),
    [
        ("choice-text", BoolQ(), True, True, ("candidates", *LANGUAGE)),
        ("choice-label", BoolQ(), True, True, ("candidates", *LANGUAGE)),
        ("generate", BoolQ(), True, False, LANGUAGE),
        ("head", BoolQ(), False, False, ("labels",)),
        ("choice-text", Drop(), False, False, LANGUAGE),
        ("generate", Drop(), True, False, LANGUAGE),
        ("choice-text", RTE(), True, True, ("candidates", *LANGUAGE)),
        ("head", RTE(), True, False, ("labels",)),
        ("choice-label", RTE(), False, True, ("candidates", *LANGUAGE)),
        ("choice-label", WikiText2(), True, False, LANGUAGE),
        ("generate", WikiText2(), True, False, LANGUAGE),
        ("head", WikiText2(), False, False, ("labels",)),
    ],
)
def test_what_goes_with_what(
    name: str, task: Task, accepts: bool, compares: bool, losses: tuple[str, ...]
) -> None:
    protocol = find_protocol(name)
    assert protocol.name == name
    assert protocol.accepts(task) is accepts
    assert protocol.compares(task) is compares
    assert protocol.losses(task) == losses


def test_a_name_that_is_not_registered_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"no protocol called 'generated'\. Did you mean 'generate'"
    ):
        job("lora", ["boolq"], {"training.protocol": "generated"}, 0, "smollm2-135m", "embedded")


def test_a_number_has_no_classes_to_guess_among() -> None:
    items = [Example(str(n), str(n), {}, n) for n in range(4)]
    assert find_protocol("head").chance(RTE(), items) == 0.5
    # A correlation of guesses is zero, however the number is put.
    assert find_protocol("head").chance(STSB(), items) == 0
    assert find_protocol("generate").chance(BoolQ(), items) is None


def test_asking_a_protocol_what_it_accepts_imports_no_torch() -> None:
    code = (
        "import sys; from quanta_bench.plugins import PROTOCOLS\n"
        "for name in PROTOCOLS: PROTOCOLS.get(name)().scoring('sum')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- a fifth ------------------------------------------------------------------------------------


class Backwards(ChoiceText):
    """Candidates in reverse order, so that chance and credit follow what the task writes."""

    name = "backwards"

    def scoring(self, normaliser: str) -> str:
        return f"read from right to left by {normaliser}"


class Words(Task):
    """Which of two words fits?"""

    name = "words"
    title = "Words"
    protocols = ("backwards",)

    def examples(self, source: Any, split: str) -> Sequence[Example]:
        return [Example(f"{split}/{n}", f"{split}{n}", {"n": n}, n % 2) for n in range(6)]

    def prompt(self, example: Example, protocol: str) -> Prompt:
        assert protocol == "backwards"
        candidates = (" odd"[::-1], " even"[::-1])
        assert example.gold is not None
        return Prompt(f"{example.fields['n']}:", candidates, candidates[example.gold])


def test_a_fifth_protocol_is_one_class(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, llm_adapters: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(PROTOCOLS._loaded, "backwards", Backwards)
    monkeypatch.setitem(TASKS._loaded, "words", Words)
    settings = {
        "target_modules": ("q_proj",),
        "training.learning_rate": 1e-3,
        "training.precision": "float32",
    }
    source = f"local:{llm_adapters}"
    made = job("lora", ["words"], settings, 0, f"local:{tiny_model}", source)
    assert (made.training.protocol, made.training.loss) == ("backwards", "candidates")
    check_protocols(made.training, made.evaluation)
    boolq = made.training.model_copy(update={"tasks": ("boolq",)})
    with pytest.raises(UsageError, match="'boolq' does not support the protocol 'backwards'"):
        check_protocols(boolq, made.evaluation)
    with pytest.raises(UsageError, match=r"loss 'labels'\. Use the loss 'candidates' or"):
        check_protocols(made.training.model_copy(update={"loss": "labels"}), made.evaluation)
    assert "accuracy/sum" in metrics_of(Words(), "backwards")
    result = Runner(Store(tmp_path), Silent(), Pools()).run(made)
    task = result.tasks["words"]
    assert (task.items, task.chance, result.protocol["put"]) == (6, 0.5, "backwards")
    assert result.training.best_validation is not None
