"""Runs in a chat template: what enters their names, what they say, and what pages show of them."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from animals import write_data

from quanta_bench.cli.main import app
from quanta_bench.cli.options import read_settings
from quanta_bench.cli.prompts import add_prompts
from quanta_bench.cli.single_run import job, on_screen
from quanta_bench.cli.tasks import task_page
from quanta_bench.data.pools import Pools
from quanta_bench.errors import UsageError
from quanta_bench.evaluation import evaluators
from quanta_bench.plugins import find_task
from quanta_bench.report.prompts import context_seen
from quanta_bench.results.store import Store
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.progress import Silent
from quanta_bench.runs.runner import Runner

SETTINGS = {"r": 2, "training.validations": 1, "training.precision": "float32"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"file:{write_data(tmp_path_factory.mktemp('data'))}"


def asked(data: str, model: Path, *, chat: bool, method: str = "lora") -> Any:
    settings = read_settings(None, chat=chat) | (SETTINGS if method == "lora" else {})
    return job(method, [data], settings, 0, f"local:{model}", "embedded")


def test_a_run_trains_and_scores_in_the_template_and_says_so(
    data: str, chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    scored: list[str] = []
    encode_items = evaluators.encode_items

    def encoded(*words: Any, **options: Any) -> Any:
        made = encode_items(*words, **options)
        scored.extend(tokenizer.decode(item.contexts[0]) for item in made)
        return made

    monkeypatch.setattr(evaluators, "encode_items", encoded)
    runner = Runner(Store(tmp_path), Silent(), Pools())
    result = runner.run(asked(data, chat_model, chat=True))
    assert result.protocol["chat_template"] == "training, scoring"
    assert len(scored) == 8
    assert all(text.startswith("<s>user: Animal ") for text in scored)
    assert all(text.endswith("says</s><s>assistant:") for text in scored)
    task = find_task(data)
    example = runner.pools.get(data, "embedded", "test").examples[0]
    seen, cut = context_seen(result, data, task, example)
    assert (seen, cut) == (f"<s>user: {example.fields['prompt']}</s><s>assistant: ", 0)
    text = StringIO()
    Console(width=200, file=text).print(on_screen(result, tmp_path))
    assert "Prompts in the model's chat template: training, scoring." in text.getvalue()
    plain = runner.run(asked(data, chat_model, chat=False))
    assert "chat_template" not in plain.protocol
    assert plain.run != result.run
    assert plain.training.id != result.training.id


def test_a_checkpoint_is_chosen_by_answers_in_the_template(
    data: str, chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[bool] = []

    def mean_score(context: Any, samples: Any) -> float:
        asked_for.append(context.spec.chat_template)
        return 0.0

    monkeypatch.setattr(evaluators, "mean_score", mean_score)
    rows = [{"prompt": f"Say {n}", "target": str(n)} for n in range(60)]
    (tmp_path / "say.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {**SETTINGS, **read_settings(None, chat=True), "training.select": "score"}
    tasks = [f"file:{tmp_path / 'say.jsonl'}"]
    made = job("lora", tasks, settings, 0, f"local:{chat_model}", "embedded")
    Runner(Store(tmp_path), Silent(), Pools()).run(made)
    assert asked_for == [True]


def test_the_template_enters_the_names_of_runs_alone_where_it_is_asked_for(
    data: str, chat_model: Path
) -> None:
    with_it, without = (
        PlannedRun.of(asked(data, chat_model, chat=chat)).identify(Pools())
        for chat in (True, False)
    )
    assert with_it.training != without.training
    assert with_it.run != without.run
    planned = PlannedRun.of(asked(data, chat_model, chat=False))
    assert not planned.training.chat_template
    assert "chat_template" not in planned.training.model_dump(exclude_defaults=True)


def test_a_mapping_asks_for_the_template_by_itself(
    data: str, chat_model: Path, tmp_path: Path
) -> None:
    rows = data.partition(":")[2]
    text = (
        f"data: {rows}\nprompt: '{{{{ prompt }}}}'\nchoices: choices\nanswer: '{{{{ answer }}}}'\n"
        "split: '{{ split }}'\nchat_template: true\n"
    )
    (tmp_path / "animals.yaml").write_text(text)
    mapped = f"file:{tmp_path / 'animals.yaml'}"
    page = add_prompts(task_page(mapped), mapped, "embedded", f"local:{chat_model}", chat=False)
    (shown,) = page.as_data()["prompts"]
    assert shown["context"].startswith("<s>user: Animal ")
    assert shown["answer"] in ("moo", "meow", "quack")
    assert len(shown["others"]) == 2
    runner = Runner(Store(tmp_path / "results"), Silent(), Pools())
    result = runner.run(asked(mapped, chat_model, chat=False, method="none"))
    assert result.protocol["chat_template"] == "scoring"


def test_without_a_template_the_prompt_is_the_tasks_own(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app(["tasks", data, "--show"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "What the model reads" in said
    assert " of the list says" in said
    assert any(f'" {word}"' in said for word in ("moo", "meow", "quack"))


def test_a_model_without_a_template_and_a_head_are_refused(
    data: str, tiny_model: Path, tmp_path: Path
) -> None:
    runner = Runner(Store(tmp_path), Silent(), Pools())
    with pytest.raises(UsageError, match="has no chat template"):
        runner.run(asked(data, tiny_model, chat=True))
    settings = {"r": 2, "training.protocol": "head", "training.chat_template": True}
    with pytest.raises(UsageError, match="leave chat_template out"):
        job("lora", ["sst2"], {**settings, "evaluation.protocol": "head"}, 0, "smollm2-135m", "hub")
    for words in (["--show"], ["piqa", "--chat-template"]):
        with pytest.raises(UsageError, match="--show"):
            app(["tasks", *words], standalone_mode=False)
